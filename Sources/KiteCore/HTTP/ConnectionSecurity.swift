/// What a TLS handshake has established besides encryption: whom the connection belongs to.

/// The certificate of a client, verified by the rule of the host that it asked for.
package struct ClientCertificate: Sendable, Hashable {
    /// The subject as RFC 4514 writes it; visible ASCII.
    package let subject: String
    /// SHA-256 of the certificate in DER, in hexadecimal.
    package let fingerprint: String
    /// The certificate in DER.
    package let der: [UInt8]

    package init(subject: String, fingerprint: String, der: [UInt8]) {
        self.subject = subject
        self.fingerprint = fingerprint
        self.der = der
    }
}

/// Goes through a connection's pipeline as an event right before the end of the handshake is reported.
package struct ConnectionSecurity: Sendable, Hashable {
    /// The host, or the pattern of hosts, by whose rule for client certificates the handshake was made. Requests for other hosts with such
    /// a rule are none of this connection's.
    package let clientRule: String
    /// nil where the rule does not demand one and the client has none.
    package let clientCertificate: ClientCertificate?

    package init(clientRule: String, clientCertificate: ClientCertificate?) {
        self.clientRule = clientRule
        self.clientCertificate = clientCertificate
    }
}
