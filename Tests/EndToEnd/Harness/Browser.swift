/// Chromium without a window, with a profile of its own.
import Foundation

struct Browser: Sendable {
    private static let executable = "/usr/bin/chromium"
    private let installation: Installation
    private let profile: String
    let process: ChildProcess

    /// Opens a page.
    /// - Parameter flags: further ones of Chromium.
    init(_ installation: Installation, _ url: String = "about:blank", flags: [String] = []) throws {
        self.installation = installation
        profile = installation.directory + "/browser"
        process = try installation.run(
            Self.executable,
            [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--user-data-dir=\(profile)", "--remote-debugging-port=0",
            ] + flags + [url],
            environment: [
                "HOME": profile, "XDG_CONFIG_HOME": profile + "/config", "XDG_CACHE_HOME": profile + "/cache",
            ])
    }

    /// Goes to a page and waits until a JavaScript expression is neither null nor false there.
    /// - Returns: its value.
    func go<Value: Decodable>(to url: String, until expression: String) async throws -> Value {
        let look = try installation.run(Place.python, [Place.peer("page.py"), profile, url, expression])
        return try JSONDecoder().decode(Value.self, from: Data(try await look.line(within: 30).utf8))
    }
}
