/// A gateway with its embedded Kontrol, agents and private services on free ports of the loopback interface, as an operator would
/// start them: the built executables with a directory of their own.
import Foundation
import Synchronization

/// Where things of the checkout are.
enum Place {
    static let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path
    static let checkout = URL(fileURLWithPath: tests).deletingLastPathComponent().deletingLastPathComponent().path
    /// The directory with the built products: where the running test binary is.
    static let products: String = {
        let binary =
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
        return URL(fileURLWithPath: binary).deletingLastPathComponent().path
    }()
    static let python = "/usr/bin/python3"
    static let node = "/usr/bin/node"
    static func peer(_ name: String) -> String { "\(tests)/Peers/\(name)" }
}

/// A TCP port that nothing listened on a moment ago.
func freePort() throws -> Int {
    let handle = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(handle) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let bound = withUnsafeMutablePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(handle, $0, length) == 0 && getsockname(handle, $0, &length) == 0
        }
    }
    guard bound else { throw HarnessError("no free port") }
    return Int(UInt16(bigEndian: address.sin_port))
}

/// One gateway, what belongs to it, and a directory. All its processes run until ``withInstallation(sharing:options:hasOwnKontrol:_:)`` ends.
final class Installation: Sendable {
    let directory: String
    let port: Int
    let kontrolPort: Int
    let adminPort: Int
    private let options: [String]
    private let hasOwnKontrol: Bool
    private let processes = Mutex<[ChildProcess]>([])

    var url: String { "http://127.0.0.1:\(port)" }
    var kontrolURL: String { "http://127.0.0.1:\(kontrolPort)/kite" }
    var environment: [String: String] {
        ["KITE_HOME": home + "/kite", "HOME": home, "TMPDIR": directory + "/tmp"]
    }
    /// Where the kite key is.
    private let home: String

    fileprivate init(sharing other: Installation?, options: [String], hasOwnKontrol: Bool) throws {
        // Short: browsers put sockets of the local domain into it, whose paths have at most 107 bytes.
        directory = NSTemporaryDirectory() + "kites-\(UUID().uuidString.prefix(8))"
        home = other?.home ?? directory
        try FileManager.default.createDirectory(atPath: directory + "/tmp", withIntermediateDirectories: true)
        (port, kontrolPort, adminPort) = (try freePort(), try freePort(), try freePort())
        self.options = options
        self.hasOwnKontrol = hasOwnKontrol
    }

    /// Kills every process and removes the directory.
    fileprivate func end() async throws {
        for process in processes.withLock({ $0 }) {
            process.kill(SIGKILL)
            _ = try await process.waitForEnd()
        }
        // What a killed browser had begun to write may come late.
        for _ in 0..<20 where FileManager.default.fileExists(atPath: directory) {
            try? FileManager.default.removeItem(atPath: directory)
        }
    }

    /// Starts a program in the installation's environment.
    func run(
        _ executable: String, _ arguments: [String], environment: [String: String] = [:]
    ) throws -> ChildProcess {
        let process = try ChildProcess(
            executable, arguments, environment: self.environment.merging(environment) { $1 })
        processes.withLock { $0.append(process) }
        return process
    }
    func kiteproxy(_ arguments: String...) throws -> ChildProcess {
        try run("\(Place.products)/kiteproxy", arguments)
    }
    func tunnelclient(_ arguments: String..., environment: [String: String] = [:]) throws -> ChildProcess {
        try run("\(Place.products)/tunnelclient", arguments + ["--gateway", url], environment: environment)
    }
    func testKite(_ arguments: String...) throws -> ChildProcess {
        try run("\(Place.products)/TestKite", arguments)
    }

    /// Starts the gateway and does not wait for it.
    /// - Parameter further: more options.
    func spawnGateway(_ further: String...) throws -> ChildProcess {
        let kontrol = hasOwnKontrol ? ["--kontrol-url", kontrolURL] : ["--kontrol-listen", "127.0.0.1:\(kontrolPort)"]
        return try run(
            "\(Place.products)/kiteproxy",
            [
                "serve", "--listen", "127.0.0.1:\(port)", "--admin-listen", "127.0.0.1:\(adminPort)", "--data-dir",
                directory + "/data",
            ] + kontrol + options + further)
    }

    /// Starts the gateway and waits until it is ready.
    func startGateway() async throws -> ChildProcess {
        let gateway = try spawnGateway()
        try await answers("http://127.0.0.1:\(adminPort)/readyz", gateway)
        return gateway
    }

    /// Starts a Kontrol of its own and does not wait for it.
    func spawnKontrol() throws -> ChildProcess {
        try kiteproxy(
            "kontrol", "--kontrol-listen", "127.0.0.1:\(kontrolPort)", "--data-dir", directory + "/kontrol")
    }

    /// Waits until a program answers with 200.
    func answers(_ url: String, _ program: ChildProcess) async throws {
        try await deadline(30, "\(url) to answer", program) {
            while (try? await curl(url).status) != 200 { try await Task.sleep(for: .milliseconds(50)) }
        }
    }

    /// Starts an agent and waits until it has printed the public URL of its route.
    func startAgent(_ arguments: String...) async throws -> (agent: ChildProcess, url: String) {
        let agent = try run("\(Place.products)/tunnelclient", arguments + ["--gateway", url])
        let line = try await agent.line { $0.hasPrefix("http") || $0.hasPrefix("tcp") }
        return (agent, line)
    }

    /// Starts a private service of `targets.py`; returns its port.
    func startTarget(_ kind: String) async throws -> (target: ChildProcess, port: Int) {
        let target = try run(Place.python, [Place.peer("targets.py"), kind])
        guard let port = Int(try await target.line()) else { throw HarnessError("no port from targets.py \(kind)") }
        return (target, port)
    }

    /// Starts a gateway, a target and an agent before it.
    func start(_ kind: String) async throws -> Running {
        let gateway = try await startGateway()
        let (target, port) = try await startTarget(kind)
        let (agent, url) = try await startAgent("http", "127.0.0.1:\(port)", "--name", kind)
        return Running(gateway: gateway, agent: agent, target: target, targetPort: port, url: url)
    }
}

/// Runs a test with an installation of its own. Afterwards all its processes have ended and its directory is gone.
/// - Parameters:
///   - other: whose kite key is used; its own when nil.
///   - options: further ones of the gateway.
///   - hasOwnKontrol: whether Kontrol is a program of its own (``Installation/spawnKontrol()``) instead of a part of the gateway.
func withInstallation(
    sharing other: Installation? = nil, options: [String] = [], hasOwnKontrol: Bool = false,
    _ body: (Installation) async throws -> Void
) async throws {
    let installation = try Installation(sharing: other, options: options, hasOwnKontrol: hasOwnKontrol)
    do {
        try await body(installation)
    } catch {
        // Also when the test was cancelled for taking too long.
        await Task { try? await installation.end() }.value
        throw error
    }
    try await installation.end()
}

/// What ``Installation/start(_:)`` started.
struct Running: Sendable {
    let gateway: ChildProcess
    let agent: ChildProcess
    let target: ChildProcess
    let targetPort: Int
    let url: String
}

/// What curl saw.
struct Answer: Sendable {
    let status: Int
    let fields: [String: String]
    let body: String
}

/// Makes a request with curl.
func curl(_ url: String, _ arguments: String...) async throws -> Answer {
    let output = try await ChildProcess.run(
        "/usr/bin/curl", ["--silent", "--show-error", "--max-time", "20", "--include"] + arguments + [url])
    // A line end is one Character to Swift, and none of it is wanted.
    let lines = output.replacing("\r\n", with: "\n").components(separatedBy: "\n")
    let head = lines.prefix { !$0.isEmpty }
    let status = Int(head.first?.split(separator: " ").dropFirst().first ?? "") ?? 0
    var fields: [String: String] = [:]
    for line in head.dropFirst() {
        guard let colon = line.firstIndex(of: ":") else { continue }
        fields[line[..<colon].lowercased()] = line[line.index(after: colon)...]
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }
    return Answer(status: status, fields: fields, body: lines.dropFirst(head.count + 1).joined(separator: "\n"))
}

/// Runs an action of `visitor.py` and decodes what it saw.
func visit<Seen: Decodable>(_ action: String, _ arguments: String..., within seconds: Double = 120) async throws -> Seen
{
    let output = try await ChildProcess.run(
        Place.python, [Place.peer("visitor.py"), action] + arguments, within: seconds)
    return try JSONDecoder().decode(Seen.self, from: Data(output.utf8))
}
