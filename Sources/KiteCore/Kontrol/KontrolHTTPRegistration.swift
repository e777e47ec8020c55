/// Keeps a kite registered with Kontrol over HTTP, for where a long-lived connection to it is not wanted.
internal import KiteDialing
internal import KiteHTTP
internal import KiteSupport
internal import Logging
public import NIOCore
public import ServiceLifecycle

#if canImport(FoundationEssentials)
internal import FoundationEssentials
#else
internal import Foundation
#endif

/// Registers with `POST /register`, then sends `GET /heartbeat` as often as Kontrol asks, and registers again when told to.
public struct KontrolHTTPRegistration: Service {
    /// Sends one HTTP request.
    /// - Returns: the status, and the body of at most 64 KiB.
    public typealias Requester =
        @Sendable (_ method: String, _ url: String, _ body: ByteBuffer?) async throws -> (
            status: Int, body: ByteBuffer
        )

    private let kontrol: KontrolClient
    private let base: String
    private let url: String
    private let requester: Requester
    private let onRegistered: (@Sendable (String) -> Void)?

    /// - Parameters:
    ///   - kontrol: gives the kite key and takes over new ones; need not be run for this.
    ///   - url: where the kite is reached.
    ///   - requester: nil: connections of its own, through the proxies that the process's environment names.
    ///   - onRegistered: called with the URL after each registration.
    public init(
        _ kontrol: KontrolClient, url: String, requester: Requester? = nil,
        onRegistered: (@Sendable (String) -> Void)? = nil
    ) {
        self.kontrol = kontrol
        self.url = url
        self.requester = requester ?? Self.ownRequester()
        self.onRegistered = onRegistered
        let kontrolURL = kontrol.client.url
        base = kontrolURL.hasSuffix("/kite") ? String(kontrolURL.dropLast(5)) : kontrolURL
    }

    /// Made once: loading the system's certificates takes a while.
    private static let systemDialer = Result {
        var configuration = Dialer.Configuration()
        configuration.proxies = try ProxyEnvironment(environment: ProcessInfo.processInfo.environment)
        return try Dialer(configuration: configuration)
    }

    /// Keeps a connection to Kontrol between heartbeats.
    private static func ownRequester() -> Requester {
        let http = systemDialer.map { HTTPRequester(dialer: $0) }
        return { method, url, body in
            guard let parts = URLParts(url) else {
                throw KontrolError(.refused, "Kontrol's URL is no http or https URL")
            }
            var fields = HeaderBlock()
            if body != nil { fields.append("Content-Type", "application/json") }
            let head = RequestHead(
                method: method == "POST" ? .post : .get, target: parts.target, authority: parts.authority,
                fields: fields)
            let (response, answer) = try await http.get().send(
                head, body: body, to: parts.endpoint, timeout: .seconds(20), maxResponseBytes: 65536)
            return (Int(response.status), answer)
        }
    }

    public func run() async throws {
        await cancelWhenGracefulShutdown { await self.keepRegistered() }
    }

    private func keepRegistered() async {
        var backoff = Backoff(limit: KontrolClient.longestPause)
        while !Task.isCancelled {
            guard (try? await Task.sleep(for: backoff.next())) != nil else { return }
            do {
                let interval = try await register()
                backoff.reset()
                _ = backoff.next()
                try await sendHeartbeats(every: interval)
            } catch {
                if Task.isCancelled { return }
                kontrol.kite.logger.warning("Not registered with Kontrol", metadata: ["reason": "\(error)"])
            }
        }
    }

    /// - Returns: how often Kontrol wants to hear from the kite.
    private func register() async throws -> Duration {
        let request = RegisterRequest(url: url, kite: kontrol.kite.identity, auth: .kiteKey(kontrol.key.text))
        let (status, body) = try await requester(
            "POST", base + "/register", ByteBuffer(bytes: try JSONEncoder().encode(request)))
        let data = Data(body.readableBytesView.prefix(65536))
        guard status == 200 else {
            let reason = (try? JSONDecoder().decode(RegisterRefusal.self, from: data))?.err ?? "HTTP status \(status)"
            throw KontrolError(status == 401 || status == 403 ? .forbidden : .refused, reason)
        }
        guard let answer = try? JSONDecoder().decode(RegisterResponse.self, from: data) else {
            throw KontrolError(.invalidAnswer, "Kontrol's answer to the registration makes no sense")
        }
        try kontrol.take(answer)
        kontrol.kite.logger.info("Registered with Kontrol", metadata: ["url": "\(loggable(answer.url))"])
        onRegistered?(answer.url)
        return .seconds(min(max(answer.heartbeatInterval, 1), 60))
    }

    /// Returns when Kontrol wants a new registration.
    private func sendHeartbeats(every interval: Duration) async throws {
        let id = kontrol.kite.identity.id.addingPercentEncodingForQuery()
        while true {
            try await Task.sleep(for: interval)
            let (status, body) = try await requester("GET", "\(base)/heartbeat?id=\(id)", nil)
            switch (status, String(buffer: body).trimmingWhitespaceAndNewlines()) {
            case (200, "pong"): continue
            case (200, "registeragain"): return
            default: throw KontrolError(.invalidAnswer, "Kontrol answered a heartbeat with HTTP status \(status)")
            }
        }
    }
}

extension String {
    /// As the value of a query parameter (RFC 3986 section 2.3: unreserved characters stay).
    func addingPercentEncodingForQuery() -> String {
        var result = ""
        for byte in utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                result.unicodeScalars.append(Unicode.Scalar(byte))
            default: result += "%" + hexadecimal([byte]).uppercased()
            }
        }
        return result
    }
}
