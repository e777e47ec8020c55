/// Settings of the moment after a connection is accepted: the TLS handshake and the protocol that it chooses.
import KiteCommand
import NIOCore

extension GatewaySettings {
    static let tlsHandshakeTimeout = Setting<TimeAmount>.single(
        "tls-handshake-timeout", .time(.milliseconds(100) ... .minutes(10)), default: .seconds(10),
        meaning: "From a connection's begin to the end of its TLS handshake", atLimit: "connection closed")
}
