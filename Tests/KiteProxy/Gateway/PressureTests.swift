/// The process is short of memory or descriptors: what is new is refused, what runs goes on.
import KiteDialing
import KiteHTTP
import KiteTunnel
import NIOCore
import NIOPosix
import Testing

@testable import KiteGateway

@Suite("Shortages", .timeLimit(.minutes(1)))
struct PressureTests {
    @Test func aShortageBeginsAtNineTenthsAndEndsBelowEight() {
        var machine = PressureStateMachine()
        let limits = PressureStateMachine.Amounts(memory: 1000, descriptors: 100)
        for (memory, descriptors, expected) in [
            (0, 0, nil), (899, 89, nil), (900, 0, .memory), (899, 0, .memory), (800, 0, .memory), (799, 0, nil),
            (899, 0, nil), (0, 90, .descriptors), (0, 80, .descriptors), (900, 80, .memory), (0, 79, nil),
            (.max, .max, .memory), (0, 0, nil),
        ] as [(Int, Int, Shortage?)] {
            let before = machine.shortage
            let hasChanged = machine.update(used: .init(memory: memory, descriptors: descriptors), limits: limits)
            #expect(machine.shortage == expected, "\(memory) \(descriptors)")
            #expect(hasChanged == (before != expected))
        }
    }

    @Test func whatIsUnknownOrUnlimitedIsNoShortage() {
        var machine = PressureStateMachine()
        _ = machine.update(used: .init(memory: .max, descriptors: .max), limits: .init())
        #expect(machine.shortage == nil)
        _ = machine.update(used: .init(), limits: .init(memory: 1, descriptors: 1))
        #expect(machine.shortage == nil)
        _ = machine.update(used: .init(memory: .max), limits: .init(memory: .max))
        #expect(machine.shortage == .memory)
    }

    @Test func memoryThatWasFreedIsGivenBack() throws {
        // Many small pieces: large ones are returned by themselves.
        var pieces = (0..<400_000).map { [UInt8](repeating: 1, count: 100 + $0 % 100) }
        let kept = pieces.enumerated().compactMap { $0.offset % 4000 == 0 ? $0.element : nil }
        let full = try #require(ProcessAmounts.used().memory)
        pieces = []
        ProcessAmounts.giveBackMemory()
        #expect(try #require(ProcessAmounts.used().memory) < full - (20 << 20))
        withExtendedLifetime(kept) {}
    }

    @Test func theSystemSaysWhatIsUsed() throws {
        let used = ProcessAmounts.used()
        #expect(try #require(used.memory) > 1 << 20)
        #expect((3..<100_000).contains(try #require(used.descriptors)))
        #expect(try #require(ProcessAmounts.descriptorLimit()) > 3)
    }

    @Test(
        arguments: [
            ("max\n", nil), ("1073741824\n", 1 << 30), ("9223372036854771712\n", nil), ("", nil), ("0", nil),
            ("x", nil),
            ("99999999999999999999999", nil),
        ] as [(String, Int?)])
    func limitsOfControlGroups(text: String, expected: Int?) { #expect(ProcessAmounts.limit(text) == expected) }

    @Test(
        "Requests are refused while there is too little, what runs goes on, and afterwards all is well",
        arguments: [
            Shortage.memory, .descriptors,
        ])
    func refused(shortage: Shortage) async throws {
        let (mirror, target) = try await startMirror()
        try await withGateway { gateway, port async throws in
            let agent = try makeAgent(
                gateway: port, target: target, tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(agent) { _ async throws in
                #expect(try await get("/proxy/shop/a", port: port).hasPrefix("HTTP/1.1 200"))
                var options = gateway.options
                let echo = Task {
                    try await upgraded("/proxy/shop/ws", port: port) {
                        while gateway.pressure.shortage == nil { try await Task.sleep(for: .milliseconds(20)) }
                    }
                }
                try await eventually { await gateway.metrics().openUpgrades == 1 }
                switch shortage {
                case .memory: options.limits.memoryBytes = 1 << 20
                case .descriptors: options.limits.descriptors = 4
                }
                await gateway.reconfigure(options)
                try await eventually { gateway.pressure.shortage == shortage }
                let refused = try await get("/proxy/shop/a", port: port)
                #expect(refused.hasPrefix("HTTP/1.1 503"))
                #expect(refused.contains("Retry-After: 5\r\n"))
                #expect(try await get("/kite/info", port: port).hasPrefix("HTTP/1.1 503"))
                // Of a session that has begun.
                #expect(try await get("/proxy/shop/000/abc/xhr", port: port).hasPrefix("HTTP/1.1 200"))
                #expect(try await echo.value == "echo")
                let metrics = await gateway.metrics()
                #expect(metrics.isShort)
                #expect(metrics.refusals[RefusalCause(shortage)] == 2)
                options.limits.memoryBytes = nil
                options.limits.descriptors = nil
                await gateway.reconfigure(options)
                try await eventually { gateway.pressure.shortage == nil }
                #expect(try await get("/proxy/shop/a", port: port).hasPrefix("HTTP/1.1 200"))
            }
        }
        await mirror.close()
    }
}

/// Upgrades, waits, and sends something, which comes back.
private func upgraded(
    _ path: String, port: Int, _ wait: @Sendable () async throws -> Void
) async throws -> String {
    let loop = testGroup.next()
    let (opened, echoed) = (
        loop.makePromise(of: NIOLoopBound<any ByteTransport>.self), loop.makePromise(of: String.self)
    )
    let dialer = try Dialer()
    loop.execute {
        dialer.dial(Endpoint(.tcp(host: "127.0.0.1", port: port)), on: loop) { result in
            switch result {
            case .success(let transport):
                transport.delegate = UpgradedVisitor(transport, opened, echoed)
                transport.write(
                    ByteBuffer(
                        string: "GET \(path) HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"))
            case .failure(let error):
                opened.fail(error)
                echoed.fail(error)
            }
        }
    }
    let transport = try await opened.futureResult.get()
    try await wait()
    loop.execute { transport.value.write(ByteBuffer(string: "echo")) }
    return try await echoed.futureResult.get()
}

private final class UpgradedVisitor: ByteTransportDelegate {
    private let transport: any ByteTransport
    private let opened: EventLoopPromise<NIOLoopBound<any ByteTransport>>
    private let echoed: EventLoopPromise<String>
    private var hasOpened = false

    init(
        _ transport: any ByteTransport, _ opened: EventLoopPromise<NIOLoopBound<any ByteTransport>>,
        _ echoed: EventLoopPromise<String>
    ) {
        (self.transport, self.opened, self.echoed) = (transport, opened, echoed)
    }
    func transportReceived(_ bytes: ByteBuffer) {
        guard hasOpened else {
            hasOpened = true
            return opened.succeed(NIOLoopBound(transport, eventLoop: transport.eventLoop))
        }
        echoed.succeed(String(buffer: bytes))
        transport.close()
    }
    func transportInputClosed() { transport.close() }
    func transportClosed(_ error: TransportError?) {
        opened.fail(error ?? TransportError(.reset, "closed"))
        echoed.fail(error ?? TransportError(.reset, "closed"))
    }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}
