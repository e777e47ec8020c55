/// The keys of hosts that take client certificates.
import KiteCommand
import KiteTLS

/// Who must show a certificate.
enum ClientCertificatePolicy: String, Sendable, CaseIterable {
    case required, optional
}

extension HostSection {
    static let clientCertificateKeys: [SectionKey] = [
        .single(
            "client-ca", .text("FILE"), shown: "none", isForHostsOnly: true,
            meaning:
                "Certificates (PEM) of those who issue the client certificates that the host takes over TLS; reloaded when changed"
        ) { $0.clientAuthority = $1 },
        .single(
            "client-cert", .choice, shown: "`required`", isForHostsOnly: true,
            meaning: "With `client-ca`: whether visitors without a certificate are refused in the handshake"
        ) { $0.clientCertificatePolicy = $1 },
    ]
}

extension GatewayConfiguration {
    /// Who issues the client certificates that hosts take.
    var clientAuthorities: [ServerCertificates.ClientAuthority] {
        sections.all.compactMap { section in
            guard case .host(let pattern) = section.subject, let path = section.clientAuthority else { return nil }
            return .init(
                host: "\(pattern)", path: path, isRequired: section.clientCertificatePolicy != .optional)
        }
    }

    /// The same, as requests are held to it.
    var clientRules: HostTable<ClientRuleName> {
        var rules = HostTable<ClientRuleName>()
        for authority in clientAuthorities {
            rules[authority.host] = ClientRuleName(pattern: authority.host, isRequired: authority.isRequired)
        }
        return rules
    }
}
