/// Settings of the moment after a connection is accepted: the TLS handshake and the protocol that it chooses.
import KiteCommand
import NIOCore

extension GatewaySettings {
    static let tlsHandshakeTimeout = Setting<TimeAmount>.single(
        "tls-handshake-timeout", .time(.milliseconds(100) ... .minutes(10)), default: .seconds(10),
        meaning: "From a connection's begin to the end of its TLS handshake", atLimit: "connection closed")
    static let http2 = Setting<Bool>.single(
        "http2", .flag, default: true, meaning: "Whether TLS listeners offer HTTP/2 besides HTTP/1.1")
    static let streams = Setting<Int>.single(
        "max-streams", .integer(1...10_000), default: 128, meaning: "Requests under way on one HTTP/2 connection",
        atLimit: "stream refused; the visitor tries again")
}
