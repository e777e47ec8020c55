/// From a response's head to the fields of HTTP/2.
import KiteHTTP
import NIOCore
import NIOHPACK

/// Translates responses (RFC 9113 section 8.3.2) and their trailers. What concerns the connection of the response's source is left out.
enum ResponseTranslator {
    /// - Parameters:
    ///   - method: the request's; a response to HEAD says what the one to GET would.
    ///   - date: written when the head has none; nil for none.
    static func translate(_ head: ResponseHead, method: RequestMethod, date: String?) -> HPACKHeaders {
        var headers = HPACKHeaders()
        headers.reserveCapacity(head.fields.count + 3)
        headers.add(name: ":status", value: status(head.status))
        var length: Int64?
        var keepsLength = false
        if head.status >= 200, head.status != 204 {
            switch head.bodyLength {
            case .known(let known): length = max(known, 0)
            case .none where head.status != 304 && method != .head: length = 0
            case .none, .unknown: keepsLength = head.status == 304 || method == .head
            }
        }
        append(head.fields, to: &headers) { field in
            switch field {
            case .connection, .keepAlive, .proxyConnection, .te, .transferEncoding, .upgrade: false
            case .contentLength: keepsLength
            default: true
            }
        }
        if let length { headers.add(name: "content-length", value: String(length), indexing: .nonIndexable) }
        if let date, head.status >= 200, !head.fields.has(.date) { headers.add(name: "date", value: date) }
        return headers
    }

    /// The answer to an extended CONNECT (RFC 8441 section 5.1), made of the 101 that answers a WebSocket's request.
    static func translateUpgrade(_ head: ResponseHead, date: String?) -> HPACKHeaders {
        var headers = HPACKHeaders()
        headers.add(name: ":status", value: "200")
        append(head.fields, to: &headers) { field in
            switch field {
            case .connection, .keepAlive, .proxyConnection, .te, .transferEncoding, .upgrade, .contentLength,
                .secWebSocketAccept:
                false
            default: true
            }
        }
        if let date, !head.fields.has(.date) { headers.add(name: "date", value: date) }
        return headers
    }

    /// - Returns: nil when nothing is left of them.
    static func trailers(_ block: HeaderBlock) -> HPACKHeaders? {
        var headers = HPACKHeaders()
        append(block, to: &headers) { $0.isAllowedInTrailers }
        return headers.isEmpty ? nil : headers
    }

    /// What `Connection` cannot take out of a response.
    private static func isProtected(_ field: KnownField) -> Bool {
        switch field {
        case .setCookie, .date, .cacheControl, .contentType, .contentEncoding, .contentLength, .via: true
        default: false
        }
    }

    private static func append(
        _ fields: HeaderBlock, to headers: inout HPACKHeaders, where isKept: (KnownField) -> Bool
    ) {
        let hasOptions = fields.has(.connection)
        for position in 0..<fields.count {
            let field = fields.field(at: position)
            guard isKept(field) else { continue }
            let name = lowercased(fields.name(at: position))
            if hasOptions, !isProtected(field), fields.contains(.connection, token: name) { continue }
            headers.add(
                name: name, value: String(decoding: fields.value(at: position), as: UTF8.self),
                indexing: indexing(field))
        }
    }

    /// What differs from response to response only fills the table; secrets stay out of it (RFC 7541 section 7.1.3).
    private static func indexing(_ field: KnownField) -> HPACKIndexing {
        switch field {
        case .setCookie: .neverIndexed
        case .etag, .location, .contentLength: .nonIndexable
        default: .indexable
        }
    }

    /// The same fields, none of which enters the table.
    static func unindexed(_ headers: HPACKHeaders) -> HPACKHeaders {
        var result = HPACKHeaders()
        result.reserveCapacity(headers.count)
        for (name, value, indexing) in headers {
            result.add(name: name, value: value, indexing: indexing == .neverIndexed ? .neverIndexed : .nonIndexable)
        }
        return result
    }

    private static func lowercased(_ name: ByteBufferView) -> String {
        String(unsafeUninitializedCapacity: name.count) { target in
            for (index, byte) in name.enumerated() where index < target.count { target[index] = byte.lowercasedASCII }
            return min(name.count, target.count)
        }
    }

    private static func status(_ status: UInt16) -> String {
        switch status {
        case 200: "200"
        case 204: "204"
        case 304: "304"
        case 404: "404"
        default: String(status >= 100 && status <= 999 ? status : 500)
        }
    }
}
