/// The certificates of the TLS listeners: which one a handshake gets, and how they are replaced while connections come in.
import KiteHTTP
package import NIOCore
package import NIOSSL
import Synchronization

/// May be used on any thread. Everything that costs is done when certificates change; a handshake looks names up in tables that are
/// swapped as a whole.
package final class CertificateStore: Sendable {
    /// How handshakes are conducted.
    package struct Options: Sendable, Hashable {
        /// TLS 1.2 or 1.3; what is older is never spoken.
        package var minimumVersion = TLSVersion.tlsv12
        /// For ALPN, the preferred one first. A client that offers others only is refused (RFC 7301 section 3.2).
        package var applicationProtocols = [HTTPVersion.http1.name]
        /// Whether a client that names no host, or one without a certificate, is refused; otherwise it gets the first certificate.
        package var refusesUnknownNames = false

        package init() {}
    }

    /// Where certificates come from. Where several have one for a name, files go first.
    package enum Origin: Sendable, Hashable, Comparable {
        case files
        /// Issued for the name.
        case automatic(String)
    }

    /// What a handshake gets.
    package enum Selection: Sendable {
        /// - Parameters:
        ///   - rule: the host, or the pattern of hosts, whose rule for client certificates applies.
        ///   - isFallback: whether there is no certificate for the name.
        case context(NIOSSLContext, rule: String?, isFallback: Bool)
        /// The connection ends when the handshake is over (RFC 8737).
        case challenge(NIOSSLContext)
        case refused(TLSAlert)
    }

    /// A certificate in use, for operators.
    package struct Status: Sendable, Hashable {
        package var names: [String]
        package var origin: Origin
        package var keyKind: ServerCertificate.KeyKind
        /// Seconds since 1970.
        package var notAfter: Int64
        package var fingerprint: String

        package init(
            names: [String], origin: Origin, keyKind: ServerCertificate.KeyKind, notAfter: Int64, fingerprint: String
        ) {
            self.names = names
            self.origin = origin
            self.keyKind = keyKind
            self.notAfter = notAfter
            self.fingerprint = fingerprint
        }
    }

    /// Asked on an event loop when a client names a host without a certificate. Where it returns a future, the handshake waits for that
    /// and looks again; nil: there will be none.
    package typealias OnDemand = @Sendable (_ name: String, _ eventLoop: any EventLoop) -> EventLoopFuture<Void>?

    /// What authorities ask for in the handshake that shows that a name is ours (RFC 8737 section 6.2).
    package static let challengeProtocol = "acme-tls/1"

    private struct State {
        var options: Options
        var certificates: [Origin: [ServerCertificate]] = [:]
        var rules: [String: ClientCertificateRule] = [:]
        var challenges: [String: NIOSSLContext] = [:]
        /// Of the present tables, so that what does not change keeps its keys for session tickets.
        var contexts: [CertificateTable.ContextKey: HandshakeContexts] = [:]
    }

    /// Held while tables are made; handshakes do not wait for it.
    private let state: Mutex<State>
    private let current: Mutex<Current>
    private let onDemand = Mutex<OnDemand?>(nil)

    package init(options: Options = Options()) {
        state = Mutex(State(options: options))
        current = Mutex(Current(CertificateTable()))
    }

    // MARK: Changing

    /// Puts certificates in the place of those that came from the same origin; none takes them away.
    /// - Throws: ``CertificateError``; nothing has changed then.
    package func replace(_ certificates: [ServerCertificate], of origin: Origin) throws(CertificateError) {
        try change { state in state.certificates[origin] = certificates.isEmpty ? nil : certificates }
    }

    /// Sets which hosts take client certificates.
    /// - Parameter rules: by host or pattern, as in ``HostTable``.
    /// - Throws: ``CertificateError``; nothing has changed then.
    package func setClientRules(_ rules: [String: ClientCertificateRule]) throws(CertificateError) {
        try change { state in state.rules = rules }
    }

    /// Puts other options into effect for handshakes that begin afterwards.
    /// - Throws: ``CertificateError``; nothing has changed then.
    package func setOptions(_ options: Options) throws(CertificateError) {
        try change { state in
            if state.options != options { state.contexts = [:] }
            state.options = options
        }
    }

    /// Sets what a validation of `name` by TLS-ALPN-01 (RFC 8737) is shown; nil takes it away.
    /// - Throws: ``CertificateError``.
    package func setChallenge(_ certificate: ServerCertificate?, for name: String) throws(CertificateError) {
        var context: NIOSSLContext?
        if let certificate {
            var options = Options()
            options.applicationProtocols = [Self.challengeProtocol]
            context = try HandshakeContexts(certificate, rule: nil, options: options).all
        }
        try change { [context] state in state.challenges[name.lowercased()] = context }
    }

    /// Sets who is asked for certificates that are missing.
    package func setOnDemand(_ onDemand: OnDemand?) { self.onDemand.withLock { $0 = onDemand } }

    private func change(_ body: @Sendable (inout State) -> Void) throws(CertificateError) {
        let result = state.withLock { state in
            Result { () throws(CertificateError) in
                var changed = state
                body(&changed)
                let fresh = try CertificateTable(
                    certificates: changed.certificates, rules: changed.rules, challenges: changed.challenges,
                    options: changed.options, contexts: &changed.contexts)
                state = changed
                current.withLock { $0 = Current(fresh) }
            }
        }
        try result.get()
    }

    // MARK: Asking

    /// Handed out by one reference: a table has many parts, and all event loops would count each of them for every handshake.
    private final class Current: Sendable {
        let table: CertificateTable
        init(_ table: CertificateTable) { self.table = table }
    }

    private var latest: Current { current.withLock { $0 } }

    /// Chooses for a handshake.
    package func select(_ hello: ClientHello) -> Selection { latest.table.select(hello) }

    /// Asks for a certificate for a host that has none; see ``OnDemand``.
    package func demand(_ name: String, on eventLoop: any EventLoop) -> EventLoopFuture<Void>? {
        onDemand.withLock { $0 }?(name, eventLoop)
    }

    /// Whether there is a certificate for the host; the first one, which those get that ask for something else, does not count.
    package func hasCertificate(for name: String) -> Bool {
        latest.table.choices(for: name.lowercased()) != nil
    }

    /// Whether handshakes can succeed at all.
    package var isEmpty: Bool { latest.table.isEmpty }

    /// What is in use, files first.
    package var status: [Status] {
        state.withLock { state in
            state.certificates.sorted { $0.key < $1.key }.flatMap { origin, certificates in
                certificates.map {
                    Status(
                        names: $0.names, origin: origin, keyKind: $0.keyKind, notAfter: $0.notAfter,
                        fingerprint: $0.fingerprint)
                }
            }
        }
    }
}
