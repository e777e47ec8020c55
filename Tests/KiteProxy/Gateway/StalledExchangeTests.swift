/// Targets that stop in the middle, and requests that ask for the way to one.
import KiteHTTP
import KiteTunnel
import NIOCore
import NIOPosix
import Testing

@testable import KiteGateway

/// Answers the first bytes with given ones, and then neither reads nor writes.
private final class Staller: ByteTransportDelegate {
    private let transport: any ByteTransport
    private let answer: String?

    /// - Parameter answer: nil reads nothing either.
    init(_ transport: any ByteTransport, answer: String?) {
        self.transport = transport
        self.answer = answer
        if answer == nil { transport.setReading(false) }
    }
    func transportReceived(_ bytes: ByteBuffer) {
        if let answer { transport.write(ByteBuffer(string: answer)) }
    }
    func transportInputClosed() { transport.closeOutput() }
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

@Suite("Exchanges that stall", .timeLimit(.minutes(1)))
struct StalledExchangeTests {
    private func withTarget(
        answer: String?, _ body: @escaping @Sendable (_ gateway: Int) async throws -> Void
    ) async throws {
        let target = try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: [testGroup.next()]
        ) { $0.delegate = Staller($0, answer: answer) }
        let port = target.address.port ?? 0
        try await withGateway({ $0.timeouts.bodyIdle = .milliseconds(500) }) { _, gateway async throws in
            let agent = try makeAgent(
                gateway: gateway, target: port, tunnels: [TunnelRequest(name: "shop", kind: .http)])
            try await withAgent(agent) { _ async throws in try await body(gateway) }
        }
        await target.close()
    }

    @Test("An upload that the target does not read ends with 504")
    func upload() async throws {
        try await withTarget(answer: nil) { port async throws in
            let size = 32 << 20
            let head = "POST /proxy/shop/ HTTP/1.1\r\nHost: x\r\nContent-Length: \(size)\r\n\r\n"
            let answer = try await send(head + String(repeating: "x", count: size), to: port, until: "\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 504 "))
        }
    }

    @Test("A response that stops in its body is broken off")
    func response() async throws {
        try await withTarget(answer: "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc") { port async throws in
            let answer = try await get("/proxy/shop/", port: port)
            #expect(answer.hasSuffix("\r\n\r\nabc"))
        }
    }

    @Test("Max-Forwards of zero is answered by the gateway")
    func maxForwards() async throws {
        try await withTarget(answer: "HTTP/1.1 204 Target\r\nConnection: close\r\n\r\n") { port async throws in
            for (method, value, status) in [
                ("OPTIONS", "1", "204"), ("OPTIONS", "0", "200"), ("TRACE", "0", "501"), ("TRACE", "x", "400"),
                ("GET", "0", "204"),
            ] {
                let answer = try await send(
                    "\(method) /proxy/shop/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nMax-Forwards: \(value)\r\n\r\n",
                    to: port)
                #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(method) \(value)")
            }
        }
    }
}
