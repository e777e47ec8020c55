/// Keeps a kite registered with Kontrol.
internal import KiteSupport
internal import Logging
public import ServiceLifecycle

/// Registers a kite, and again after every disconnect, until the service group shuts down. Kontrol asks for the heartbeats itself, and the
/// kite sends them.
///
/// ```swift
/// let kontrol = try KontrolClient(kite: kite, connector: connector)
/// let services: [any Service] = [kontrol, KontrolRegistration(kontrol, url: "http://10.0.0.7:3636/kite")]
/// ```
public struct KontrolRegistration: Service {
    private let kontrol: KontrolClient
    private let url: String
    private let onRegistered: (@Sendable (String) -> Void)?

    /// - Parameters:
    ///   - kontrol: must be run as well.
    ///   - url: where the kite is reached.
    ///   - onRegistered: called with the URL after each registration.
    public init(_ kontrol: KontrolClient, url: String, onRegistered: (@Sendable (String) -> Void)? = nil) {
        self.kontrol = kontrol
        self.url = url
        self.onRegistered = onRegistered
    }

    public func run() async throws {
        await cancelWhenGracefulShutdown { await self.keepRegistered() }
    }

    private func keepRegistered() async {
        // Listening from the beginning, so that no reconnect is missed.
        let events = kontrol.client.events()
        var iterator = events.makeAsyncIterator()
        var backoff = Backoff(limit: KontrolClient.longestPause)
        while !Task.isCancelled {
            guard (try? await Task.sleep(for: backoff.next())) != nil else { return }
            let before = kontrol.client.remote
            do {
                let noted = try await kontrol.register(url: url)
                kontrol.kite.logger.info("Registered with Kontrol", metadata: ["url": "\(loggable(noted))"])
                onRegistered?(noted)
            } catch {
                if Task.isCancelled { return }
                kontrol.kite.logger.warning("Not registered with Kontrol yet", metadata: ["reason": "\(error)"])
                continue
            }
            // Over a connection that was made meanwhile the registration may have been lost with the earlier one.
            let used = kontrol.client.remote
            guard let used, before == nil || before == used else { continue }
            backoff.reset()
            var isLost = used.isClosed
            while !isLost {
                guard let event = await iterator.next() else { return }
                switch event {
                case .disconnected(let remote, _): isLost = remote == used
                // An event of long ago says nothing about now.
                case .connected: isLost = kontrol.client.remote != used
                case .failed: break
                }
            }
        }
    }
}

extension KontrolClient {
    /// A service that keeps the kite registered at a URL.
    public func registration(url: String) -> KontrolRegistration { KontrolRegistration(self, url: url) }
}
