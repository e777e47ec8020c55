/// Registering over a connection, and the heartbeats on it.
import KiteCore
import Logging
import Synchronization

extension KontrolServer {
    /// How long a kite may take to begin its heartbeats.
    private static let heartbeatTimeout = Duration.seconds(4)

    func register(_ request: KiteRequest) async throws -> RegisterResponse {
        let (credential, _, text) = try credential(request)
        let url = try Self.url(request)
        let caller = request.caller
        let registered = try await answering { () throws(KontrolError) in
            try await self.service.register(
                caller, url: url, credential: credential, kiteKey: text, source: .connection)
        }
        let connection = request.remote.connectionID
        guard let (beats, beat) = sessions.withLock({ $0.beginHeartbeats(of: caller.path, on: connection) }) else {
            await service.deregister(registered.receipt)
            throw KiteError(.generic, "Too many kites are registered on this connection")
        }
        // The heartbeats may begin after the answer: Go's kites take both in any order.
        request.runAfterAnswer { [self] in
            let function = DnodeFunction { _ in beat.yield() }
            async let begun: Void = askForHeartbeats(request.remote, function, kite: registered.kite)
            let last = await follow(beats, registered, request)
            await service.disconnected(last)
            request.remote.release(function)
            await begun
        }
        return RegisterResponse(
            url: url, heartbeatInterval: 0, publicKey: registered.publicKey?.pem, kiteKey: registered.kiteKey?.text)
    }

    /// `[{url}]` as Go sends it, `[url]` as kite.js does.
    private static func url(_ request: KiteRequest) throws(KiteError) -> String {
        let value: DnodeValue = try request.single()
        if let url = value.string { return url }
        let arguments: RegisterRequest = try request.argument(0)
        return arguments.url ?? ""
    }

    private func askForHeartbeats(_ remote: RemoteKite, _ function: DnodeFunction, kite: KontrolKite) async {
        let interval = Int64(clamping: service.options.limits.heartbeatInterval)
        do {
            _ = try await remote.call(
                "kite.heartbeat", arguments: [.int(interval), .function(function)], timeout: Self.heartbeatTimeout)
        } catch is CancellationError {
            // The connection ended before.
        } catch {
            // It is not dropped for that: it may beat all the same.
            service.logger.warning(
                "A kite did not accept to send heartbeats",
                metadata: ["kite": "\(kite.identity.path)", "error": "\(error)"])
        }
    }

    /// Passes heartbeats on until the connection ends or a newer registration takes over.
    /// - Returns: the registration that was kept alive last.
    private func follow(
        _ beats: AsyncStream<Void>, _ registered: KontrolService.Registered, _ request: KiteRequest
    ) async -> Registry.Receipt {
        var receipt = registered.receipt
        for await _ in beats {
            switch await service.heartbeat(receipt) {
            case .alive, .store: continue
            case .superseded: return receipt
            case .outdated:
                // A key travels with the answer to a registration only, and every kite registers again when it has connected again.
                service.logger.info(
                    "A kite has to register again, to be told of the key pair",
                    metadata: KontrolService.metadata(registered.kite))
                request.remote.close()
                return receipt
            case .gone:
                // It was silent for too long, and is here again; unless its key has been withdrawn meanwhile.
                guard let (credential, _, text) = try? credential(request),
                    let again = try? await service.register(
                        request.caller, url: registered.kite.url, credential: credential, kiteKey: text,
                        source: .connection)
                else {
                    request.remote.close()
                    return receipt
                }
                receipt = again.receipt
                guard again.kiteKey == nil else {
                    request.remote.close()
                    return receipt
                }
            }
        }
        return receipt
    }
}
