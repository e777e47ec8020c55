/// Looks whether a name is the client's, over real connections to 127.0.0.1.
import Crypto
import Foundation
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS
import SwiftASN1
import X509

package enum Validation {
    /// Connects to these ports whatever the name; nil: that kind fails.
    package static func connecting(httpPort: @escaping @Sendable () -> Int?, tlsPort: @escaping @Sendable () -> Int?)
        -> TestAuthority.Validation
    {
        { kind, name, token, keyAuthorization in
            do {
                switch kind {
                case "http-01":
                    guard let port = httpPort() else { return "there is no port for HTTP" }
                    return try await http(port, name, token, keyAuthorization)
                case "tls-alpn-01":
                    guard let port = tlsPort() else { return "there is no port for TLS" }
                    return try await tls(port, name, keyAuthorization)
                default: return "\(kind) is not supported"
                }
            } catch {
                return "the connection failed: \(error)"
            }
        }
    }

    /// RFC 8555 section 8.3.
    private static func http(_ port: Int, _ name: String, _ token: String, _ keyAuthorization: String) async throws
        -> String?
    {
        let group = MultiThreadedEventLoopGroup.singleton
        let promise = group.next().makePromise(of: String.self)
        let channel = try await ClientBootstrap(group: group).connectTimeout(.seconds(5)).channelInitializer {
            channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(Collector(promise))
            }
        }.connect(host: "127.0.0.1", port: port).get()
        let request =
            "GET /.well-known/acme-challenge/\(token) HTTP/1.1\r\nHost: \(name)\r\nUser-Agent: test authority\r\nConnection: close\r\n\r\n"
        try await channel.writeAndFlush(ByteBuffer(string: request))
        let timer = channel.eventLoop.scheduleTask(in: .seconds(5)) { channel.close(promise: nil) }
        let answer = try await promise.futureResult.get()
        timer.cancel()
        guard answer.hasPrefix("HTTP/1.1 200 "), let end = answer.firstRange(of: "\r\n\r\n") else {
            return "the answer is \(answer.prefix(60))"
        }
        var body = answer[end.upperBound...]
        while body.last?.isWhitespace == true { body.removeLast() }
        return body == keyAuthorization ? nil : "the answer is not the key authorization"
    }

    /// RFC 8737 section 3.
    private static func tls(_ port: Int, _ name: String, _ keyAuthorization: String) async throws -> String? {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.applicationProtocols = ["acme-tls/1"]
        configuration.minimumTLSVersion = .tlsv12
        let context = try NIOSSLContext(configuration: configuration)
        let group = MultiThreadedEventLoopGroup.singleton
        let loop = group.next()
        let shown = loop.makePromise(of: [NIOSSLCertificate].self)
        let chosen = loop.makePromise(of: String?.self)
        let channel: any Channel
        do {
            channel = try await ClientBootstrap(group: loop).connectTimeout(.seconds(5)).channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let tls = try NIOSSLClientHandler(
                        context: context, serverHostname: name,
                        customVerificationCallback: { certificates, promise in
                            shown.succeed(certificates)
                            promise.succeed(.certificateVerified)
                        })
                    try channel.pipeline.syncOperations.addHandlers(tls, HandshakeWatch(chosen))
                }
            }.connect(host: "127.0.0.1", port: port).get()
        } catch {
            shown.fail(error)
            chosen.fail(error)
            throw error
        }
        channel.eventLoop.scheduleTask(in: .seconds(5)) { channel.close(promise: nil) }
        channel.closeFuture.whenComplete { _ in shown.fail(ChannelError.eof) }
        let negotiated = try await chosen.futureResult.get()
        let certificates = try await shown.futureResult.get()
        channel.close(promise: nil)
        guard negotiated == "acme-tls/1" else { return "acme-tls/1 was not agreed on" }
        return try check(certificates, name, keyAuthorization)
    }

    private static func check(_ certificates: [NIOSSLCertificate], _ name: String, _ keyAuthorization: String) throws
        -> String?
    {
        guard let first = certificates.first, certificates.count == 1 else { return "there is not one certificate" }
        let certificate = try Certificate(derEncoded: try first.toDERBytes())
        guard certificate.issuer == certificate.subject,
            certificate.publicKey.isValidSignature(certificate.signature, for: certificate)
        else { return "the certificate is not signed by itself" }
        guard let names = try certificate.extensions.subjectAlternativeNames, names.count == 1,
            names.first == .dnsName(name)
        else { return "the certificate is not for the name alone" }
        let identifier: ASN1ObjectIdentifier = [1, 3, 6, 1, 5, 5, 7, 1, 31]
        guard let own = certificate.extensions[oid: identifier], own.critical else {
            return "there is no critical acmeIdentifier"
        }
        let digest = SHA256.hash(data: Data(keyAuthorization.utf8)).map { $0 as UInt8 }
        return own.value.elementsEqual([0x04, 0x20] + digest) ? nil : "acmeIdentifier is not of the key authorization"
    }
}

/// Takes all bytes until the end.
private final class Collector: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let promise: EventLoopPromise<String>
    private var received = ByteBuffer()

    init(_ promise: EventLoopPromise<String>) { self.promise = promise }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        received.writeImmutableBuffer(unwrapInboundIn(data))
        if received.readableBytes > 65_536 { context.close(promise: nil) }
    }

    func channelInactive(context: ChannelHandlerContext) { promise.succeed(String(buffer: received)) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

/// Hears of the end of the handshake.
private final class HandshakeWatch: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let promise: EventLoopPromise<String?>

    init(_ promise: EventLoopPromise<String?>) { self.promise = promise }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted(let negotiated)? = event as? TLSUserEvent { promise.succeed(negotiated) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        promise.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { promise.fail(ChannelError.eof) }
}
