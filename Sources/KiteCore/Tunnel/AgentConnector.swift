/// How an agent gets a connection that a lane can use: dial, upgrade, HELLO, WELCOME.
import KiteHTTP
import KiteSupport
import NIOCore
import Synchronization

/// Makes the connections of one agent. Remembers which kind of upgrade passes.
final class AgentConnector: Sendable {
    private let configuration: TunnelAgentConfiguration
    private let dialer: LaneDialer
    private let choice = Mutex(UpgradeChoice())

    init(_ configuration: TunnelAgentConfiguration, dialer: @escaping LaneDialer) {
        self.configuration = configuration
        self.dialer = dialer
    }

    /// What an agent says on a connection of its session.
    func hello(agent: String, epoch: UInt64, _ purpose: AgentHello.Purpose) -> AgentHello {
        AgentHello(
            agent: agent, epoch: epoch, software: cut(configuration.software, to: 128), purpose: purpose,
            wantsNotes: configuration.wantsNotes)
    }

    /// - Throws: ``AgentHandshakeError``, or what the dialler or the credential throws.
    func connect(
        _ address: GatewayAddress, _ loop: any EventLoop, _ hello: AgentHello
    ) async throws -> NIOLoopBound<EstablishedConnection> {
        let credential = try await configuration.credential()
        let transport = try await dialer(address.endpoint, loop)
        let kind = choice.withLock { $0.next }
        let request = AgentHandshake.Request(
            address: address, credential: credential, hello: hello, usesWebSocket: kind == .webSocket,
            timeout: TimeAmount(configuration.welcomeTimeout), software: hello.software)
        do {
            let connection = try await establish(transport, request, loop)
            choice.withLock { $0.succeeded(kind) }
            return connection
        } catch let error as AgentHandshakeError {
            if let isTelling = error.isTelling { choice.withLock { $0.failed(kind, isTelling: isTelling) } }
            throw error
        }
    }

    private func establish(
        _ transport: NIOLoopBound<any ByteTransport>, _ request: AgentHandshake.Request, _ loop: any EventLoop
    ) async throws -> NIOLoopBound<EstablishedConnection> {
        let running = NIOLoopBoundBox<AgentHandshake?>.makeEmptyBox(eventLoop: loop)
        let isCancelled = NIOLoopBoundBox<Bool>.makeBoxSendingValue(false, eventLoop: loop)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                loop.execute {
                    guard !isCancelled.value else {
                        transport.value.abort(TransportError(.cancelled, "cancelled"))
                        return continuation.resume(throwing: CancellationError())
                    }
                    running.value = AgentHandshake(
                        transport: transport.value, wheel: LoopFlusher.on(loop).wheel, request: request
                    ) { result in
                        running.value = nil
                        continuation.resume(with: result.map { NIOLoopBound($0, eventLoop: loop) })
                    }
                }
            }
        } onCancel: {
            loop.execute {
                isCancelled.value = true
                running.value?.cancel()
            }
        }
    }
}
