/// Reads `Sec-WebSocket-Extensions` (RFC 6455 section 9.1) and answers offers of permessage-deflate (RFC 7692 section 7).
import KiteHTTP
import NIOCore

/// One extension that a client offers.
struct WebSocketExtensionOffer: Hashable {
    struct Parameter: Hashable {
        var name: String
        var value: String?
    }
    var name: String
    var parameters: [Parameter] = []

    /// The field does not follow the grammar.
    struct Malformed: Error {}

    /// The offers of all occurrences of the field, in the client's order of preference.
    static func offers(in fields: HeaderBlock) throws(Malformed) -> [WebSocketExtensionOffer] {
        guard fields.has(.secWebSocketExtensions) else { return [] }
        var offers: [WebSocketExtensionOffer] = []
        for position in 0..<fields.count where fields.field(at: position) == .secWebSocketExtensions {
            var reader = Reader(fields.value(at: position))
            repeat {
                reader.skipSpace()
                // Empty members of a list mean nothing (RFC 9110 section 5.6.1.2).
                if reader.isAtEnd || reader.isAt(UInt8(ascii: ",")) { continue }
                offers.append(try reader.offer())
            } while reader.take(UInt8(ascii: ","))
            guard reader.isAtEnd else { throw Malformed() }
        }
        return offers
    }

    private struct Reader {
        private var rest: ByteBufferView
        init(_ text: ByteBufferView) { rest = text }

        var isAtEnd: Bool { rest.isEmpty }
        func isAt(_ byte: UInt8) -> Bool { rest.first == byte }

        mutating func skipSpace() { rest = rest.drop { $0 == 0x20 || $0 == 0x09 } }

        mutating func take(_ byte: UInt8) -> Bool {
            skipSpace()
            guard rest.first == byte else { return false }
            rest = rest.dropFirst()
            return true
        }

        mutating func offer() throws(Malformed) -> WebSocketExtensionOffer {
            var offer = WebSocketExtensionOffer(name: try token())
            while take(UInt8(ascii: ";")) {
                skipSpace()
                var parameter = Parameter(name: try token())
                if take(UInt8(ascii: "=")) {
                    skipSpace()
                    parameter.value = isAt(UInt8(ascii: "\"")) ? try quoted() : try token()
                }
                offer.parameters.append(parameter)
            }
            return offer
        }

        private mutating func token() throws(Malformed) -> String {
            let token = rest.prefix { $0.isTokenByte }
            guard !token.isEmpty else { throw Malformed() }
            rest = rest.dropFirst(token.count)
            return String(decoding: token, as: UTF8.self).lowercased()
        }

        /// What stands between the quotes must be a token all the same.
        private mutating func quoted() throws(Malformed) -> String {
            rest = rest.dropFirst()
            var content: [UInt8] = []
            while let byte = rest.first {
                rest = rest.dropFirst()
                switch byte {
                case UInt8(ascii: "\""):
                    guard !content.isEmpty, content.allSatisfy(\.isTokenByte) else { throw Malformed() }
                    return String(decoding: content, as: UTF8.self).lowercased()
                case UInt8(ascii: "\\"):
                    guard let escaped = rest.first else { throw Malformed() }
                    rest = rest.dropFirst()
                    content.append(escaped)
                default: content.append(byte)
                }
            }
            throw Malformed()
        }
    }
}

extension UInt8 {
    /// RFC 9110 section 5.6.2.
    fileprivate var isTokenByte: Bool {
        switch self {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(self)
        }
    }
}

/// What both ends agreed on. Neither keeps anything from one message for the next, so that a WebSocket at rest costs nothing.
struct WebSocketDeflate: Sendable, Hashable {
    /// The base-2 logarithm of the window that we compress with: 9 to 15.
    var windowBits: Int32
    /// What answers the offer.
    var response: String

    /// Agrees to the first offer of permessage-deflate that can be met.
    init?(_ offers: [WebSocketExtensionOffer]) {
        for offer in offers where offer.name == "permessage-deflate" {
            if let agreement = Self(offer) {
                self = agreement
                return
            }
        }
        return nil
    }

    private init?(_ offer: WebSocketExtensionOffer) {
        windowBits = 15
        response = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        var seen: Set<String> = []
        for parameter in offer.parameters {
            guard seen.insert(parameter.name).inserted else { return nil }
            switch (parameter.name, parameter.value) {
            case ("server_no_context_takeover", nil), ("client_no_context_takeover", nil): break
            // A hint what the client is able to do; we can read whatever it sends.
            case ("client_max_window_bits", nil): break
            case ("client_max_window_bits", .some(let value)):
                guard Self.windowBits(value) != nil else { return nil }
            case ("server_max_window_bits", .some(let value)):
                // zlib can't compress with a window of 8 bits.
                guard let bits = Self.windowBits(value), bits > 8 else { return nil }
                windowBits = bits
                response += "; server_max_window_bits=\(bits)"
            default: return nil
            }
        }
    }

    /// 8 to 15, without leading zeros.
    private static func windowBits(_ text: String) -> Int32? {
        guard let bits = Int32(text), (8...15).contains(bits), text == String(bits) else { return nil }
        return bits
    }
}
