/// The handshake as clients see it: the openssl program against a listener.
import Foundation
import KiteHTTP
import KiteTLS
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization
import Testing

/// Says to a client what is known about it, and closes.
private final class Teller: ByteTransportDelegate {
    init(_ transport: SocketTransport) {
        let security = transport.security
        transport.write(
            ByteBuffer(
                string:
                    "alpn=\(transport.negotiatedProtocol ?? "-") rule=\(security?.clientRule ?? "-") subject=\(security?.clientCertificate?.subject ?? "-")\n"
            ))
        transport.close()
    }
    func transportReceived(_ bytes: ByteBuffer) {}
    func transportInputClosed() {}
    func transportWritabilityChanged(_ isWritable: Bool) {}
    func transportClosed(_ error: TransportError?) {}
}

@Suite(.timeLimit(.minutes(1)), .serialized) struct ServerTLSHandlerTests {
    private final class Seen: Sendable { let failures = Mutex<[String]>([]) }
    private let files: TestCertificates
    private let store: CertificateStore
    private let seen = Seen()
    private let loops = [MultiThreadedEventLoopGroup.singleton.next(), MultiThreadedEventLoopGroup.singleton.next()]

    init() throws {
        files = try TestCertificates()
        try files.make("ec", for: ["a.example"])
        try files.make("rsa", for: ["a.example"], key: ["rsa:2048"])
        store = CertificateStore()
        try store.replace([files.load("ec"), files.load("rsa")], of: .files)
    }

    private func listen() async throws -> Listener {
        var configuration = Listener.Configuration()
        let store = store
        configuration.addSecurity = {
            try $0.pipeline.syncOperations.addHandler(ServerTLSHandler(store: store))
        }
        return try await Listener.bind(
            to: SocketAddress(ipAddress: "127.0.0.1", port: 0), loops: loops, configuration: configuration,
            onEvent: { [seen] event in
                guard case .handshakeFailed(_, let error) = event else { return }
                seen.failures.withLock { $0.append(error.map { "\($0)" } ?? "late") }
            }, onAccept: { $0.delegate = Teller($0) })
    }

    /// What openssl prints; it keeps the connection until the listener closes it.
    private func connect(_ listener: Listener, _ arguments: String...) throws -> String {
        try Program.run(
            "openssl", ["s_client", "-connect", "127.0.0.1:\(listener.address.port ?? 0)", "-ign_eof"] + arguments,
            mustSucceed: false)
    }

    @Test func theCertificateFollowsTheSignaturesThatTheClientKnows() async throws {
        let listener = try await listen()
        let modern = try connect(listener, "-servername", "a.example")
        #expect(modern.contains("a:PKEY: id-ecPublicKey") && modern.contains("TLSv1.3"))
        for version in ["-tls1_2", "-tls1_3"] {
            let old = try connect(listener, "-servername", "a.example", version, "-sigalgs", "RSA-PSS+SHA256")
            #expect(old.contains("a:PKEY: rsaEncryption") && old.contains("alpn=-"), "\(version)")
        }
        let rsa = try connect(listener, "-servername", "a.example", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
        #expect(rsa.contains("a:PKEY: rsaEncryption"))
        await listener.close()
    }

    @Test func onlyModernVersionsAndSuitesAreSpoken() async throws {
        let listener = try await listen()
        for arguments in [
            ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], ["-tls1_2", "-cipher", "AES128-SHA"],
            ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"], ["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        ] {
            let output = try Program.run(
                "openssl", ["s_client", "-connect", "127.0.0.1:\(listener.address.port ?? 0)"] + arguments,
                mustSucceed: false)
            #expect(output.contains("Cipher is (NONE)"), "\(arguments): \(output)")
        }
        try store.setOptions(
            {
                var options = CertificateStore.Options(); options.minimumVersion = .tlsv13; return options
            }())
        #expect(try connect(listener, "-tls1_2").contains("protocol version"))
        #expect(try connect(listener, "-tls1_3").contains("alpn=-"))
        await listener.close()
    }

    @Test func theOrderOfSuitesIsTheGateways() async throws {
        let listener = try await listen()
        let (aes128, aes256, chaCha) = (
            "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"
        )
        for (offered, chosen) in [
            ([aes128, aes256], aes128), ([aes256, aes128], aes128), ([aes256, chaCha], aes256),
            ([aes256, chaCha, aes128], aes128), ([chaCha, aes256, aes128], chaCha), ([chaCha], chaCha),
            ([aes256], aes256),
        ] {
            let output = try connect(listener, "-tls1_2", "-cipher", offered.joined(separator: ":"))
            #expect(output.contains("Cipher is \(chosen)"), "\(offered)")
        }
        await listener.close()
    }

    @Test func namesWithoutACertificateAreRefusedWithTheirAlert() async throws {
        var options = CertificateStore.Options()
        options.refusesUnknownNames = true
        try store.setOptions(options)
        let listener = try await listen()
        #expect(try connect(listener, "-servername", "b.example").contains("unrecognized name"))
        #expect(try connect(listener, "-noservername").contains("unrecognized name"))
        #expect(try connect(listener, "-servername", "a.example").contains("alpn=-"))
        await listener.close()
        #expect(seen.failures.withLock { $0.first } == "no certificate for b.example")
    }

    @Test func protocolsAreNegotiatedOrRefused() async throws {
        let listener = try await listen()
        #expect(try connect(listener, "-alpn", "h2,http/1.1").contains("alpn=http/1.1"))
        #expect(try connect(listener, "-alpn", "ftp").contains("no application protocol"))
        await listener.close()
    }

    @Test func challengesEndWithTheirHandshake() async throws {
        try files.make("challenge", for: ["a.example"], subject: "/CN=challenge")
        try store.setChallenge(files.load("challenge"), for: "a.example")
        let listener = try await listen()
        let output = try connect(listener, "-servername", "a.example", "-alpn", "acme-tls/1")
        #expect(output.contains("subject=CN = challenge") && output.contains("ALPN protocol: acme-tls/1"))
        #expect(!output.contains("alpn="))
        #expect(try connect(listener, "-servername", "a.example").contains("subject=CN = a.example"))
        await listener.close()
    }

    @Test func requestsInTheClearAreToldSo() async throws {
        let listener = try await listen()
        let output = try Program.run(
            "curl", ["-sS", "-i", "http://127.0.0.1:\(listener.address.port ?? 0)/"], mustSucceed: false)
        #expect(output.contains("400 Bad Request") && output.contains("HTTPS is spoken on this port."))
        await listener.close()
    }

    @Test func clientCertificatesAreVerifiedByTheHostsRule() async throws {
        try files.make("ca", for: [], subject: "/CN=Test CA", isAuthority: true)
        try files.make("other-ca", for: [], subject: "/CN=Other CA", isAuthority: true)
        try files.make("alice", for: [], issuer: "ca", subject: "/O=Example, Inc./CN=alice")
        try files.make("mallory", for: [], issuer: "other-ca", subject: "/CN=alice")
        let authority = try files.bytes("ca.crt")
        try store.setClientRules([
            "must.example": ClientCertificateRule(authoritiesPEM: authority, isRequired: true),
            "may.example": ClientCertificateRule(authoritiesPEM: authority, isRequired: false),
        ])
        let listener = try await listen()
        func connect(_ host: String, as name: String? = nil, _ version: String) throws -> String {
            let own = name.map { ["-cert", files.path($0 + ".crt"), "-key", files.path($0 + ".key")] } ?? []
            return try Program.run(
                "openssl",
                [
                    "s_client", "-connect", "127.0.0.1:\(listener.address.port ?? 0)", "-ign_eof", "-servername", host,
                    version,
                ]
                    + own, mustSucceed: false)
        }
        for version in ["-tls1_2", "-tls1_3"] {
            let known = "subject=CN=alice,O=Example\\, Inc."
            #expect(try connect("must.example", as: "alice", version).contains("rule=must.example \(known)"))
            #expect(try connect("may.example", as: "alice", version).contains("rule=may.example \(known)"))
            #expect(try connect("may.example", version).contains("rule=may.example subject=-"))
            #expect(try connect("a.example", as: "alice", version).contains("rule=- subject=-"))
            for output in [
                try connect("must.example", version), try connect("must.example", as: "mallory", version),
                try connect("may.example", as: "mallory", version),
            ] {
                #expect(output.contains("alert") && !output.contains("rule="), "\(version): \(output)")
            }
        }
        await listener.close()
    }

    @Test func missingCertificatesAreWaitedFor() async throws {
        try files.make("late", for: ["late.example"])
        let late = try files.load("late")
        let store = store
        let asking = Asked()
        store.setOnDemand { name, loop in
            asking.names.withLock { $0.append(name) }
            guard name == "late.example" else { return nil }
            return loop.scheduleTask(in: .milliseconds(100)) { try? store.replace([late], of: .automatic(name)) }
                .futureResult.map { _ in }
        }
        let listener = try await listen()
        #expect(try connect(listener, "-servername", "late.example").contains("subject=CN = late.example"))
        #expect(try connect(listener, "-servername", "late.example").contains("subject=CN = late.example"))
        #expect(try connect(listener, "-servername", "never.example").contains("subject=CN = a.example"))
        #expect(asking.names.withLock { $0 } == ["late.example", "never.example"])
        await listener.close()
    }

    private final class Asked: Sendable { let names = Mutex<[String]>([]) }

    @Test func helloesInPiecesAreUnderstood() async throws {
        let listener = try await listen()
        let bytes = HelloWriter.modern.bytes
        // The key share is missing, so the answer is an alert or a request for one; without the whole message there is none at all.
        for cut in stride(from: 1, to: bytes.count, by: 7) {
            let output = try await exchange(listener, [Array(bytes[..<cut]), Array(bytes[cut...])])
            #expect(!output.isEmpty, "cut at \(cut)")
        }
        #expect(try await exchange(listener, [[22, 3, 1, 0, 5, 2, 0, 0, 1, 0]]) == [21, 3, 3, 0, 2, 2, 10])
        #expect(try await exchange(listener, [Array("SSH-2.0-x\r\n".utf8)]) == [])
        await listener.close()
    }

    /// Sends pieces, reads until something has come or the peer closes.
    private func exchange(_ listener: Listener, _ pieces: [[UInt8]]) async throws -> [UInt8] {
        let promise = loops[0].makePromise(of: [UInt8].self)
        let channel = try await ClientBootstrap(group: loops[0]).channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(FirstBytes(promise))
                }
            }.connect(to: listener.address).get()
        for piece in pieces { try? await channel.writeAndFlush(ByteBuffer(bytes: piece)) }
        let output = try await promise.futureResult.get()
        try? await channel.close()
        return output
    }
}

private final class FirstBytes: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let promise: EventLoopPromise<[UInt8]>
    init(_ promise: EventLoopPromise<[UInt8]>) { self.promise = promise }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        promise.succeed(Array(unwrapInboundIn(data).readableBytesView))
    }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    func channelInactive(context: ChannelHandlerContext) { promise.succeed([]) }
}
