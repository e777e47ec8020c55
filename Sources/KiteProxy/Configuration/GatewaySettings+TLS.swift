/// Settings of TLS listeners, and of what stands in front of them.
import KiteCommand
import KiteGateway
import KiteHTTP
import KiteTLS
import NIOSSL

extension GatewaySettings {
    static let tlsDefault = Setting<UnknownNamePolicy>.single(
        "tls-default", .choice, default: .first,
        meaning:
            "What clients get that ask for a host without a certificate, or for none: the first certificate, or a refusal (`unrecognized_name`)"
    )
    static let tlsMinimumVersion = Setting<MinimumTLSVersion>.single(
        "tls-min-version", .choice, default: .tls12, meaning: "The oldest version of TLS that is spoken",
        atLimit: "the handshake fails (`protocol_version`)")
    static let proxyProtocol = Setting<[AddressRange]>.list(
        "proxy-protocol", .addressRange, default: [],
        meaning:
            "Load balancers in front of the gateway whose connections begin with a PROXY protocol header (version 1 or 2), on every listener; the address in it counts as the visitor's. Connections of theirs without a header, or with a malformed one, are closed; those of others are not searched for one"
    )
}

/// What a TLS client gets that asks for a host without a certificate.
enum UnknownNamePolicy: String, Sendable, CaseIterable {
    case first, refuse
}

/// Versions of TLS that may be demanded.
enum MinimumTLSVersion: String, Sendable, CaseIterable {
    case tls12 = "1.2"
    case tls13 = "1.3"
}

extension GatewayConfiguration {
    /// How handshakes are conducted.
    var tlsOptions: CertificateStore.Options {
        var options = CertificateStore.Options()
        if settings[GatewaySettings.http2] { options.applicationProtocols.insert(HTTPVersion.http2.name, at: 0) }
        options.refusesUnknownNames = settings[GatewaySettings.tlsDefault] == .refuse
        options.minimumVersion = settings[GatewaySettings.tlsMinimumVersion] == .tls13 ? .tlsv13 : .tlsv12
        return options
    }
}
