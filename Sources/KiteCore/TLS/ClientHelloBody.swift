/// The fields and extensions of a ClientHello, read strictly: what this finds and what the TLS library finds must not differ.

/// Collects while it goes through the message.
struct ClientHelloBody {
    private var hello = ClientHello()
    private var suites = ClientHello.Suites()
    private var hasTLS13Suite = false
    private var groups: ClientHello.Keys?
    private var schemes: [UInt16]?
    private var versions: ClientHello.Versions?
    private var seen = Seen()

    /// Extensions that are read here, so that none is read twice.
    private struct Seen: OptionSet {
        let rawValue: UInt8
        static let serverName = Seen(rawValue: 1 << 0)
        static let groups = Seen(rawValue: 1 << 1)
        static let schemes = Seen(rawValue: 1 << 2)
        static let protocols = Seen(rawValue: 1 << 3)
        static let versions = Seen(rawValue: 1 << 4)
    }

    /// - Parameter message: without the header of the handshake message.
    static func read(_ message: WireReader) throws(ClientHelloError) -> ClientHello {
        var body = ClientHelloBody()
        try body.readAll(message)
        return body.hello
    }

    private mutating func readAll(_ message: WireReader) throws(ClientHelloError) {
        var message = message
        guard let version = message.uint16(), message.part(32) != nil else { throw Self.short("version and random") }
        guard let session = message.vector8(), session.remaining.count <= 32 else { throw Self.short("session id") }
        guard let suites = message.vector16(), !suites.isAtEnd, suites.remaining.count % 2 == 0 else {
            throw Self.short("cipher suites")
        }
        readSuites(suites)
        guard let compressions = message.vector8(), compressions.remaining.contains(0) else {
            throw Self.short("compression methods")
        }
        if !message.isAtEnd {
            guard var extensions = message.vector16(), message.isAtEnd else { throw Self.short("extensions") }
            while !extensions.isAtEnd {
                guard let type = extensions.uint16(), let content = extensions.vector16() else {
                    throw Self.short("extensions")
                }
                try readExtension(type, content)
            }
        }
        hello.versions = versions ?? (version >= 0x0303 ? .tls12 : [])
        hello.keys = verifiable
        hello.suites = speaksTLS13 ? [] : self.suites
    }

    private static func short(_ what: String) -> ClientHelloError { .malformed(.decodeError, what) }

    private mutating func readSuites(_ list: WireReader) {
        var list = list
        while let suite = list.uint16() {
            switch suite {
            case 0x1301, 0x1302, 0x1303: hasTLS13Suite = true
            case 0xC02B: suites.insert(.ecdsaAES128)
            case 0xC02C: suites.insert(.ecdsaAES256)
            case 0xCCA9: suites.formUnion(suites.isEmpty ? [.ecdsaChaCha, .prefersChaCha] : .ecdsaChaCha)
            case 0xC02F: suites.insert(.rsaAES128)
            case 0xC030: suites.insert(.rsaAES256)
            case 0xCCA8: suites.formUnion(suites.isEmpty ? [.rsaChaCha, .prefersChaCha] : .rsaChaCha)
            default: break
            }
        }
    }

    private mutating func readExtension(_ type: UInt16, _ content: WireReader) throws(ClientHelloError) {
        switch type {
        case 0: try once(.serverName, "server_name"); try readServerName(content)
        case 10: try once(.groups, "supported_groups"); try readGroups(content)
        case 13: try once(.schemes, "signature_algorithms"); try readSchemes(content)
        case 16: try once(.protocols, "ALPN"); try readProtocols(content)
        case 43: try once(.versions, "supported_versions"); try readVersions(content)
        default: break
        }
    }

    private mutating func once(_ mark: Seen, _ name: String) throws(ClientHelloError) {
        guard seen.insert(mark).inserted else { throw .malformed(.illegalParameter, "\(name) twice") }
    }

    private mutating func readServerName(_ content: WireReader) throws(ClientHelloError) {
        var content = content
        guard var list = content.vector16(), content.isAtEnd, let type = list.uint8(), let name = list.vector16(),
            list.isAtEnd, type == 0, (1...255).contains(name.remaining.count)
        else { throw Self.short("server_name") }
        var isValid = true
        let bytes = name.remaining
        // A dot at the end is not sent by those who keep to the RFC, and means nothing.
        let count = bytes.last == UInt8(ascii: ".") ? bytes.count - 1 : bytes.count
        guard count > 0 else { throw .malformed(.illegalParameter, "server_name") }
        let text = String(unsafeUninitializedCapacity: count) { output in
            for index in 0..<count {
                let byte = bytes[index]
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"),
                    UInt8(ascii: "."), UInt8(ascii: "_"):
                    output[index] = byte
                case UInt8(ascii: "A")...UInt8(ascii: "Z"): output[index] = byte | 0x20
                default:
                    isValid = false
                    output[index] = UInt8(ascii: "_")
                }
            }
            return count
        }
        guard isValid else { throw .malformed(.illegalParameter, "a server_name that is no host name") }
        hello.serverName = text
    }

    private mutating func readGroups(_ content: WireReader) throws(ClientHelloError) {
        var list = try Self.list(content, "supported_groups")
        var found: ClientHello.Keys = []
        while let group = list.uint16() {
            switch group {
            case 23: found.insert(.p256)
            case 24: found.insert(.p384)
            case 25: found.insert(.p521)
            default: break
            }
        }
        groups = found
    }

    private mutating func readSchemes(_ content: WireReader) throws(ClientHelloError) {
        var list = try Self.list(content, "signature_algorithms")
        var found: [UInt16] = []
        while let scheme = list.uint16() { found.append(scheme) }
        schemes = found
    }

    private static func list(_ content: WireReader, _ name: String) throws(ClientHelloError) -> WireReader {
        var content = content
        guard let list = content.vector16(), content.isAtEnd, !list.isAtEnd, list.remaining.count % 2 == 0 else {
            throw short(name)
        }
        return list
    }

    private mutating func readProtocols(_ content: WireReader) throws(ClientHelloError) {
        var content = content
        guard var list = content.vector16(), content.isAtEnd, !list.isAtEnd else { throw Self.short("ALPN") }
        while !list.isAtEnd {
            guard let name = list.vector8(), !name.isAtEnd else { throw Self.short("ALPN") }
            guard let text = String(validating: name.remaining, as: UTF8.self) else { continue }
            hello.applicationProtocols.append(text)
        }
    }

    private mutating func readVersions(_ content: WireReader) throws(ClientHelloError) {
        var content = content
        guard var list = content.vector8(), content.isAtEnd, !list.isAtEnd, list.remaining.count % 2 == 0 else {
            throw Self.short("supported_versions")
        }
        var found: ClientHello.Versions = []
        while let version = list.uint16() {
            switch version {
            case 0x0303: found.insert(.tls12)
            case 0x0304: found.insert(.tls13)
            default: break
            }
        }
        versions = found
    }

    /// A client that speaks 1.3 is answered in 1.3.
    private var speaksTLS13: Bool { hello.versions.contains(.tls13) && hasTLS13Suite }

    /// In TLS 1.3 a scheme names the curve (RFC 8446 section 4.2.3); in 1.2 curves are those of supported_groups and the cipher suite
    /// names the kind of key (RFC 8422).
    private var verifiable: ClientHello.Keys {
        guard let schemes else { return [] }
        var keys: ClientHello.Keys = []
        var (hasECDSA, hasRSA) = (false, false)
        for scheme in schemes {
            switch scheme {
            case 0x0403:
                hasECDSA = true
                if speaksTLS13 { keys.insert(.p256) }
            case 0x0503:
                hasECDSA = true
                if speaksTLS13 { keys.insert(.p384) }
            case 0x0603:
                hasECDSA = true
                if speaksTLS13 { keys.insert(.p521) }
            case 0x0804, 0x0805, 0x0806:
                hasRSA = true
                if speaksTLS13 { keys.insert(.rsa) }
            case 0x0401, 0x0501, 0x0601: hasRSA = true
            case 0x0807: if speaksTLS13 { keys.insert(.ed25519) }
            default: break
            }
        }
        guard !speaksTLS13, hello.versions.contains(.tls12) else { return keys }
        if hasRSA && !suites.isDisjoint(with: [.rsaAES128, .rsaAES256, .rsaChaCha]) { keys.insert(.rsa) }
        if hasECDSA && !suites.isDisjoint(with: [.ecdsaAES128, .ecdsaAES256, .ecdsaChaCha]) {
            keys.formUnion(groups ?? [.p256, .p384, .p521])
        }
        return keys
    }
}
