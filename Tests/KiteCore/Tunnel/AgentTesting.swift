/// What tests of an agent share: an agent that echoes, and what it reports.
import KiteHTTP
import KiteTunnel
import Logging
import NIOCore
import NIOPosix
import Synchronization

/// A suite that runs agents.
protocol AgentTesting {}

extension AgentTesting {
    static var loops: MultiThreadedEventLoopGroup { .singleton }

    /// Runs an agent that echoes every stream beside a body.
    func withAgent(
        port: Int, tunnels: [TunnelRequest] = [TunnelRequest(name: "blog", kind: .http)],
        agentLoops: Int = 1, welcomeTimeout: Duration = .seconds(10), dialer: @escaping LaneDialer = plainDialer,
        credential: @escaping @Sendable () async throws -> String = { "key" },
        _ body: @escaping @Sendable (TunnelAgentSession, EventLog) async throws -> Void
    ) async throws {
        var configuration = TunnelAgentConfiguration(
            gateway: "http://127.0.0.1:\(port)", tunnels: tunnels, software: "test/1", wantsNotes: true,
            credential: credential)
        configuration.welcomeTimeout = welcomeTimeout
        let log = EventLog()
        let session = TunnelAgentSession(
            configuration: configuration, loops: (0..<agentLoops).map { _ in Self.loops.next() }, dialer: dialer,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        ) { incoming in
            log.note(tunnel: incoming.tunnel)
            let stream = incoming.stream
            let sees = StreamRecorder()
            sees.onBytes = { [unowned stream] in stream.write($0) }
            sees.onInputClosed = { [unowned stream] in stream.closeOutput() }
            stream.delegate = sees
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { for await event in session.events { log.add(event) } }
            group.addTask { try await session.run() }
            try await body(session, log)
            group.cancelAll()
            try await group.waitForAll()
        }
    }

    func gateway(loops: Int = 1) -> TestGateway {
        TestGateway(loops: Array(Self.loops.makeIterator()).prefix(loops).map { $0 as any EventLoop })
    }
}

/// What an agent has reported.
final class EventLog: Sendable {
    private let events = Mutex<[TunnelEvent]>([])
    private let tunnels = Mutex<[Int]>([])
    func add(_ event: TunnelEvent) { events.withLock { $0.append(event) } }
    func note(tunnel: Int) { tunnels.withLock { $0.append(tunnel) } }
    var all: [TunnelEvent] { events.withLock { $0 } }
    /// The tunnels of the streams that have arrived.
    var streams: [Int] { tunnels.withLock { $0 } }
    func wait(_ condition: @Sendable ([TunnelEvent]) -> Bool) async throws {
        let end = ContinuousClock.now + .seconds(20)
        while !condition(all) {
            guard ContinuousClock.now < end else {
                throw TransportError(.idleTimeout, "the event never came: \(all)")
            }
            try await Task.sleep(for: .milliseconds(5))
        }
    }
}
