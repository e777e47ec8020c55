/// Connections over real sockets: with and without TLS, through proxies, and how they fail.
import Foundation
import KiteDialing
import KiteHTTP
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization
import Testing

/// Sends everything back; half-closes when the peer does.
private final class Echo: ByteTransportDelegate {
    private let transport: any ByteTransport
    init(_ transport: any ByteTransport) { self.transport = transport }
    func transportReceived(_ bytes: ByteBuffer) { transport.write(bytes) }
    func transportInputClosed() { transport.closeOutput() }
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// Answers with some bytes, then breaks the connection off.
private final class Breaker: ByteTransportDelegate {
    private let transport: any ByteTransport
    init(_ transport: any ByteTransport) { self.transport = transport }
    func transportReceived(_ bytes: ByteBuffer) { transport.abort(TransportError(.cancelled, "not today")) }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// Completes with everything that arrived when the transport has closed.
private final class Talker: ByteTransportDelegate {
    private let promise: EventLoopPromise<(text: String, error: TransportError?)>
    private var received = ByteBuffer()
    init(_ promise: EventLoopPromise<(text: String, error: TransportError?)>) { self.promise = promise }
    func transportReceived(_ bytes: ByteBuffer) { received.writeImmutableBuffer(bytes) }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) { promise.succeed((String(buffer: received), error)) }
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// A proxy that speaks as little as a test needs: answers each line of a script once enough bytes for it have come, then relays.
private final class FakeProxy: ByteTransportDelegate {
    private let transport: any ByteTransport
    private let dialer: Dialer
    private let target: Endpoint
    private let heard: @Sendable ([UInt8]) -> Void
    private var script: [(needed: @Sendable ([UInt8]) -> Bool, answer: [UInt8])]
    private var buffer: [UInt8] = []

    init(
        _ transport: any ByteTransport, dialer: Dialer, target: Endpoint,
        script: [(needed: @Sendable ([UInt8]) -> Bool, answer: [UInt8])], heard: @escaping @Sendable ([UInt8]) -> Void
    ) {
        self.transport = transport
        self.dialer = dialer
        self.target = target
        self.script = script
        self.heard = heard
    }

    func transportReceived(_ bytes: ByteBuffer) {
        buffer.append(contentsOf: bytes.readableBytesView)
        guard let step = script.first, step.needed(buffer) else { return }
        heard(buffer)
        buffer = []
        script.removeFirst()
        guard script.isEmpty else { return transport.write(ByteBuffer(bytes: step.answer)) }
        transport.setReading(false)
        dialer.dial(target, on: transport.eventLoop) { result in
            switch result {
            case .success(let upstream):
                self.transport.write(ByteBuffer(bytes: step.answer))
                TransportRelay(self.transport, upstream)
                self.transport.setReading(true)
            case .failure(let error): self.transport.abort(error)
            }
        }
    }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

@Suite(.timeLimit(.minutes(1))) struct DialerTests {
    private let loop = MultiThreadedEventLoopGroup.singleton.next()

    private func listen(
        secure: Bool = false, path: String? = nil, _ accept: @escaping @Sendable (SocketTransport) -> Void
    ) async throws -> Listener {
        var configuration = Listener.Configuration()
        if secure {
            let context = try TestCertificates.serverContext()
            configuration.addSecurity = { channel in
                try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
            }
        }
        let address =
            try path.map { try SocketAddress(unixDomainSocketPath: $0) }
            ?? SocketAddress(ipAddress: "127.0.0.1", port: 0)
        return try await Listener.bind(to: address, loops: [loop], configuration: configuration, onAccept: accept)
    }

    private func endpoint(_ listener: Listener, secure: Bool = false, name: String? = nil) -> Endpoint {
        Endpoint(
            .tcp(host: "127.0.0.1", port: listener.address.port ?? 0), isSecure: secure, serverName: name)
    }

    private func dialer(trusting: Bool = true, with configuration: Dialer.Configuration = .init()) throws -> Dialer {
        guard trusting else { return try Dialer(configuration: configuration) }
        return try TestCertificates.withRootFile {
            try Dialer(configuration: configuration, tls: Dialer.tlsContext(trusting: $0))
        }
    }

    /// Connects, sends, half-closes, and returns what came back until the connection had closed.
    private func talk(_ dialer: Dialer, _ endpoint: Endpoint, sending text: String = "hello") async throws
        -> (text: String, error: TransportError?)
    {
        let promise = loop.makePromise(of: (text: String, error: TransportError?).self)
        loop.execute {
            dialer.dial(endpoint, on: loop) { result in
                switch result {
                case .success(let transport):
                    transport.delegate = Talker(promise)
                    transport.write(ByteBuffer(string: text))
                    transport.closeOutput()
                case .failure(let error): promise.fail(error)
                }
            }
        }
        return try await promise.futureResult.get()
    }

    private func failure(_ dialer: Dialer, _ endpoint: Endpoint) async throws -> TransportError {
        do {
            let answer = try await talk(dialer, endpoint)
            return try #require(answer.error, "connected to \(endpoint)")
        } catch let error as TransportError {
            return error
        }
    }

    @Test func connectsOverTCPAndUNIX() async throws {
        let listener = try await listen { $0.delegate = Echo($0) }
        #expect(try await talk(dialer(), endpoint(listener)) == ("hello", nil))
        await listener.close()
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("d-\(UUID().uuidString)").path
        let local = try await listen(path: path) { $0.delegate = Echo($0) }
        #expect(try await talk(dialer(), Endpoint(.unix(path: path))) == ("hello", nil))
        await local.close()
        try? FileManager.default.removeItem(atPath: path)
    }

    @Test func speaksTLSAndEndsItProperly() async throws {
        let listener = try await listen(secure: true) { $0.delegate = Echo($0) }
        let large = String(repeating: "0123456789", count: 100_000)
        for name in ["kite.test", nil] {
            let answer = try await talk(dialer(), endpoint(listener, secure: true, name: name), sending: large)
            #expect(answer.text == large)
            #expect(answer.error == nil)
        }
        await listener.close()
    }

    @Test func aConnectionBrokenOffUnderTLSDoesNotLookComplete() async throws {
        let listener = try await listen(secure: true) { $0.delegate = Breaker($0) }
        let answer = try await talk(dialer(), endpoint(listener, secure: true, name: "kite.test"))
        #expect(answer.error?.code == .reset)
        await listener.close()
    }

    @Test func verifiesNameAndChain() async throws {
        let listener = try await listen(secure: true) { $0.delegate = Echo($0) }
        let other = try await failure(dialer(), endpoint(listener, secure: true, name: "other.test"))
        #expect(other.code == .tlsFailed)
        let unknown = try await failure(dialer(trusting: false), endpoint(listener, secure: true, name: "kite.test"))
        #expect(unknown.code == .tlsFailed)
        let plain = try await listen { $0.delegate = Echo($0) }
        #expect(try await failure(dialer(), endpoint(plain, secure: true)).code == .tlsFailed)
        await listener.close()
        await plain.close()
    }

    @Test func saysWhyItFailed() async throws {
        let listener = try await listen { $0.delegate = Echo($0) }
        await listener.close()
        let refused = try await failure(dialer(), endpoint(listener))
        #expect(refused.code == .connectFailed)
        #expect(refused.message.hasSuffix("connection refused"))
        let missing = try await failure(dialer(), Endpoint(.unix(path: "/nowhere/at/all")))
        #expect(missing.message == "unix:/nowhere/at/all could not be connected to: no such socket")
        let unknown = try await failure(dialer(), Endpoint(.tcp(host: "no-such-host.invalid", port: 1)))
        #expect(unknown.message.hasSuffix("unknown host name"))
    }

    @Test func givesUpOnASilentServer() async throws {
        let listener = try await listen { _ in }
        var configuration = Dialer.Configuration()
        configuration.connectTimeout = .milliseconds(50)
        let error = try await failure(dialer(with: configuration), endpoint(listener, secure: true))
        #expect(error.code == .connectTimeout)
        await listener.close()
    }

    @Test func asksWhetherAnAddressIsAllowed() async throws {
        let listener = try await listen { $0.delegate = Echo($0) }
        var configuration = Dialer.Configuration()
        for host in ["127.0.0.1", "localhost"] {
            configuration.isAllowed = { _ in false }
            let endpoint = Endpoint(.tcp(host: host, port: listener.address.port ?? 0))
            #expect(try await failure(dialer(with: configuration), endpoint).code == .refused)
        }
        await listener.close()
    }

    // MARK: Proxies

    private static let headComplete: @Sendable ([UInt8]) -> Bool = { Array($0.suffix(4)) == Array("\r\n\r\n".utf8) }
    private static let connect: [(needed: @Sendable ([UInt8]) -> Bool, answer: [UInt8])] = [
        (headComplete, Array("HTTP/1.1 200 Connected\r\n\r\n".utf8))
    ]
    private static let socks: [(needed: @Sendable ([UInt8]) -> Bool, answer: [UInt8])] = [
        ({ $0.count >= 4 }, [5, 2]), ({ $0.count >= 11 }, [1, 0]),
        ({ $0.count >= 7 }, [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
    ]

    @Test(arguments: [ProxyServer.Kind.http, .socks5], [false, true])
    func goesThroughAProxy(kind: ProxyServer.Kind, secure: Bool) async throws {
        let target = try await listen(secure: secure) { $0.delegate = Echo($0) }
        let direct = try dialer()
        let place = Endpoint(.tcp(host: "127.0.0.1", port: target.address.port ?? 0))
        let record = Recorder()
        let script = kind == .http ? Self.connect : Self.socks
        let proxy = try await listen { transport in
            transport.delegate = FakeProxy(
                transport, dialer: direct, target: place, script: script, heard: { record.add($0) })
        }
        var configuration = Dialer.Configuration()
        let server = ProxyServer(
            kind: kind, host: "127.0.0.1", port: proxy.address.port ?? 0,
            credentials: .init(user: "user", password: "pass"))
        configuration.proxies.secure = server
        configuration.proxies.plain = server
        // The name exists for the proxy only.
        let answer = try await talk(
            dialer(with: configuration), Endpoint(.tcp(host: "kite.test", port: 443), isSecure: secure))
        #expect(answer == ("hello", nil))
        let said = record.all
        if kind == .http {
            let head = String(decoding: said.first ?? [], as: UTF8.self)
            #expect(head.hasPrefix("CONNECT kite.test:443 HTTP/1.1\r\n"))
            #expect(head.contains("\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n"))
        } else {
            #expect(said.first == [5, 2, 0, 2])
            #expect(said.last == [5, 1, 0, 3, 9] + Array("kite.test".utf8) + [1, 0xBB])
        }
        await proxy.close()
        await target.close()
    }

    @Test(arguments: [ProxyServer.Kind.http, .socks5])
    func asksNoProxyForANameThatAddsToTheRequest(kind: ProxyServer.Kind) async throws {
        let record = Recorder()
        let proxy = try await listen { transport in
            transport.delegate = Eavesdropper(heard: { record.add($0) })
        }
        var configuration = Dialer.Configuration()
        configuration.proxies.plain = ProxyServer(kind: kind, host: "127.0.0.1", port: proxy.address.port ?? 0)
        for host in ["a b", "a\r\nX: y", "a\0", ""] {
            let error = try await failure(dialer(with: configuration), Endpoint(.tcp(host: host, port: 80)))
            #expect(error.code == .refused)
        }
        await proxy.close()
        #expect(record.all.isEmpty)
    }

    @Test func tellsWhatTheProxyRefused() async throws {
        let proxy = try await listen { transport in transport.delegate = Refuser(transport) }
        var configuration = Dialer.Configuration()
        configuration.proxies.plain = ProxyServer(kind: .http, host: "127.0.0.1", port: proxy.address.port ?? 0)
        let error = try await failure(dialer(with: configuration), Endpoint(.tcp(host: "kite.test", port: 80)))
        #expect(error == TransportError(.refused, "The proxy asks for a user name and password (407)"))
        await proxy.close()
        let gone = try await failure(dialer(with: configuration), Endpoint(.tcp(host: "kite.test", port: 80)))
        #expect(gone.code == .connectFailed)
        #expect(gone.message.hasPrefix("The proxy 127.0.0.1:"))
    }
}

/// Says nothing.
private final class Eavesdropper: ByteTransportDelegate {
    private let heard: @Sendable ([UInt8]) -> Void
    init(heard: @escaping @Sendable ([UInt8]) -> Void) { self.heard = heard }
    func transportReceived(_ bytes: ByteBuffer) { heard(Array(bytes.readableBytesView)) }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// A proxy that wants credentials.
private final class Refuser: ByteTransportDelegate {
    private let transport: any ByteTransport
    init(_ transport: any ByteTransport) { self.transport = transport }
    func transportReceived(_ bytes: ByteBuffer) {
        transport.write(ByteBuffer(string: "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"))
        transport.close()
    }
    func transportInputClosed() {}
    func transportClosed(_ error: TransportError?) {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
}

/// Keeps what was heard on another thread.
private final class Recorder: Sendable {
    private let state = Mutex<[[UInt8]]>([])
    func add(_ bytes: [UInt8]) { state.withLock { $0.append(bytes) } }
    var all: [[UInt8]] { state.withLock { $0 } }
}
