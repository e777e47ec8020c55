import KiteTLS
import NIOCore
import NIOSSL
import Testing

@Suite(.timeLimit(.minutes(1))) struct CertificateStoreTests {
    let files: TestCertificates

    init() throws {
        files = try TestCertificates()
        try files.make("a", for: ["a.example", "*.wild.example"])
        try files.make("b", for: ["b.example", "x.wild.example"], key: ["rsa:2048"])
        try files.make("a-rsa", for: ["a.example", "*.wild.example"], key: ["rsa:2048"])
        try files.make("ca", for: [], subject: "/CN=Test CA", isAuthority: true)
    }

    func hello(_ name: String?, keys: ClientHello.Keys = [.p256, .rsa], protocols: [String] = []) -> ClientHello {
        var hello = ClientHello()
        hello.serverName = name
        hello.keys = keys
        hello.versions = .tls13
        hello.applicationProtocols = protocols
        return hello
    }

    /// What a selection is about: the certificate's first name and kind of key, or the alert.
    func shown(_ selection: CertificateStore.Selection) -> String {
        switch selection {
        case .context(let context, let rule, let isFallback):
            guard case .certificate(let leaf) = context.configuration.certificateChain.first,
                let names = try? leaf.extractPublicKey().toSPKIBytes().count
            else { return "?" }
            let kind = names > 200 ? "rsa" : "ec"
            return (leaf.subjectName.first?.value ?? "?") + " " + kind + (rule.map { " for " + $0 } ?? "")
                + (isFallback ? " as fallback" : "")
        case .challenge: return "challenge"
        case .refused(let alert): return "\(alert)"
        }
    }

    @Test func choosesByNameThenWildcardThenTheFirst() throws {
        let store = CertificateStore()
        #expect(shown(store.select(hello("a.example"))) == "unrecognizedName")
        try store.replace([files.load("a"), files.load("b")], of: .files)
        #expect(shown(store.select(hello("a.example"))) == "a.example ec")
        #expect(shown(store.select(hello("b.example"))) == "b.example rsa")
        #expect(shown(store.select(hello("y.wild.example"))) == "a.example ec")
        #expect(shown(store.select(hello("x.wild.example"))) == "b.example rsa")
        for name in ["wild.example", "z.y.wild.example", ".wild.example", "c.example", nil] {
            #expect(shown(store.select(hello(name))) == "a.example ec as fallback", "\(name ?? "-")")
        }
        #expect(store.hasCertificate(for: "Y.wild.example"))
        #expect(!store.hasCertificate(for: "c.example"))
    }

    @Test func refusesUnknownNamesWhereToldTo() throws {
        var options = CertificateStore.Options()
        options.refusesUnknownNames = true
        let store = CertificateStore(options: options)
        try store.replace([files.load("a")], of: .files)
        #expect(shown(store.select(hello("a.example"))) == "a.example ec")
        #expect(shown(store.select(hello("c.example"))) == "unrecognizedName")
        #expect(shown(store.select(hello(nil))) == "unrecognizedName")
    }

    @Test func choosesTheKindOfKeyThatTheClientUnderstands() throws {
        let store = CertificateStore()
        // Whatever the order: signing on elliptic curves is cheaper.
        try store.replace([files.load("a-rsa"), files.load("a")], of: .files)
        for name in ["a.example", "q.wild.example"] {
            #expect(shown(store.select(hello(name))) == "a.example ec")
            #expect(shown(store.select(hello(name, keys: .rsa))) == "a.example rsa")
            #expect(shown(store.select(hello(name, keys: .p384))) == "a.example ec")
        }
        #expect(shown(store.select(hello(nil, keys: .rsa))) == "a.example rsa as fallback")
    }

    @Test func filesGoBeforeWhatWasIssued() throws {
        let store = CertificateStore()
        try store.replace([files.load("b", names: ["a.example"])], of: .automatic("a.example"))
        #expect(shown(store.select(hello("a.example"))) == "b.example rsa")
        try store.replace([files.load("a-rsa")], of: .files)
        #expect(shown(store.select(hello("a.example"))) == "a.example rsa")
        #expect(store.status.map(\.origin) == [.files, .automatic("a.example")])
        try store.replace([], of: .files)
        #expect(shown(store.select(hello("a.example"))) == "b.example rsa")
    }

    @Test func contextsOfUnchangedCertificatesStay() throws {
        let store = CertificateStore()
        func context(_ name: String) -> ObjectIdentifier? {
            guard case .context(let context, _, _) = store.select(hello(name)) else { return nil }
            return ObjectIdentifier(context)
        }
        try store.replace([files.load("a"), files.load("b")], of: .files)
        let (a, b) = (context("a.example"), context("b.example"))
        try files.make("b", for: ["b.example"])
        try store.replace([files.load("a"), files.load("b")], of: .files)
        #expect(context("a.example") == a && a != nil)
        #expect(context("b.example") != b)
    }

    @Test func protocolsMustOverlap() throws {
        let store = CertificateStore()
        try store.replace([files.load("a")], of: .files)
        #expect(shown(store.select(hello("a.example", protocols: ["h2", "http/1.1"]))) == "a.example ec")
        #expect(shown(store.select(hello("a.example", protocols: ["h2", "ftp"]))) == "noApplicationProtocol")
    }

    @Test func challengesAreForTheirNameAndProtocolAlone() throws {
        let store = CertificateStore()
        try store.replace([files.load("a")], of: .files)
        let acme = [CertificateStore.challengeProtocol]
        #expect(shown(store.select(hello("a.example", protocols: acme))) == "noApplicationProtocol")
        try store.setChallenge(files.load("b"), for: "A.example")
        #expect(shown(store.select(hello("a.example", protocols: acme))) == "challenge")
        #expect(shown(store.select(hello("b.example", protocols: acme))) == "noApplicationProtocol")
        #expect(shown(store.select(hello("a.example"))) == "a.example ec")
        try store.setChallenge(nil, for: "a.example")
        #expect(shown(store.select(hello("a.example", protocols: acme))) == "noApplicationProtocol")
    }

    @Test func hostsWithRulesHaveContextsOfTheirOwn() throws {
        let store = CertificateStore()
        try store.replace([files.load("a"), files.load("b")], of: .files)
        let rule = try ClientCertificateRule(authoritiesPEM: files.bytes("ca.crt"), isRequired: true)
        try store.setClientRules(["b.example": rule, "*.wild.example": rule, "c.example": rule])
        #expect(shown(store.select(hello("a.example"))) == "a.example ec")
        #expect(shown(store.select(hello("b.example"))) == "b.example rsa for b.example")
        // Its own certificate, by the rule of the pattern.
        #expect(shown(store.select(hello("x.wild.example"))) == "b.example rsa for *.wild.example")
        #expect(shown(store.select(hello("y.wild.example"))) == "a.example ec for *.wild.example")
        #expect(shown(store.select(hello("c.example"))) == "a.example ec for c.example as fallback")
        #expect(shown(store.select(hello(nil))) == "a.example ec as fallback")
        #expect(shown(store.select(hello("deep.y.wild.example"))) == "a.example ec for *.wild.example as fallback")
        try store.setClientRules(["*": rule, "x.wild.example": rule])
        #expect(shown(store.select(hello("b.example"))) == "b.example rsa for *")
        #expect(shown(store.select(hello("x.wild.example"))) == "b.example rsa for x.wild.example")
        #expect(shown(store.select(hello("y.wild.example"))) == "a.example ec for *")
        #expect(shown(store.select(hello(nil))) == "a.example ec for * as fallback")
        try store.setClientRules([:])
        #expect(shown(store.select(hello("b.example"))) == "b.example rsa")
    }

    @Test func unusableCertificatesAreErrors() throws {
        #expect(throws: CertificateError.self) {
            try ServerCertificate(chainPEM: files.bytes("a.crt"), keyPEM: files.bytes("b.key"))
        }
        #expect(throws: CertificateError.self) {
            try ServerCertificate(chainPEM: files.bytes("a.key"), keyPEM: files.bytes("a.key"))
        }
        #expect(throws: CertificateError.self) {
            try ServerCertificate(chainPEM: files.bytes("a.crt"), keyPEM: files.bytes("a.crt"))
        }
        #expect(throws: CertificateError.self) { try ServerCertificate(chainPEM: [], keyPEM: []) }
        #expect(throws: CertificateError.self) { try ClientCertificateRule(authoritiesPEM: [], isRequired: true) }
    }

    @Test func knowsNamesKindAndExpiry() throws {
        let certificate = try files.load("a")
        #expect(certificate.names == ["a.example", "*.wild.example"])
        #expect(certificate.keyKind == .p256)
        #expect(try files.load("b").keyKind == .rsa)
        #expect(certificate.notAfter - certificate.notBefore == 30 * 86400)
        try files.make("ed", for: ["ed.example"], key: ["ed25519"])
        try files.make(
            "p384", for: [], key: ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"], subject: "/CN=named.example")
        #expect(try files.load("ed").keyKind == .ed25519)
        #expect(try files.load("p384").keyKind == .p384)
        #expect(try files.load("p384").names == ["named.example"])
    }
}
