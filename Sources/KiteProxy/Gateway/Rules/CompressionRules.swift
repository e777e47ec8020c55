/// Which responses are compressed, and what their heads say then.
import KiteHTTP
import NIOCore

/// Decides about compression of responses; pure.
struct CompressionRules: Sendable {
    /// `text/html`, or `text/` for all of them; in lower case.
    private let types: [[UInt8]]
    private let leastBytes: Int64

    /// Text in its many forms. Never what is compressed in itself.
    static let defaultTypes = [
        "text/*", "application/json", "application/javascript", "application/xml", "application/xhtml+xml",
        "application/rss+xml", "application/atom+xml", "application/ld+json", "application/manifest+json",
        "application/problem+json", "application/wasm", "image/svg+xml",
    ]
    static let defaultLeastBytes = 1024

    init(types: [String]?, leastBytes: Int?) {
        self.types = (types ?? Self.defaultTypes).map { Array(($0.hasSuffix("/*") ? $0.dropLast() : $0[...]).utf8) }
        self.leastBytes = Int64(leastBytes ?? Self.defaultLeastBytes)
    }

    /// Changes the head of a response that is to be compressed.
    /// - Returns: whether its body is to be.
    func apply(to head: inout ResponseHead, of request: RequestHead) -> Bool {
        guard isCompressible(head) else { return false }
        // Whoever keeps the response has to know that it depends on this, compressed or not.
        if !head.fields.contains(.vary, token: "Accept-Encoding"), !head.fields.contains(.vary, token: "*") {
            head.fields = head.fields.copy(reserving: 64) { _ in true }
            head.fields.append("Vary", "Accept-Encoding")
        }
        guard Self.accepts(request.fields), !isShort(head, request) else { return false }
        var tag: ByteBuffer?
        if let strong = head.fields.first(.etag), !strong.starts(with: "W/".utf8) {
            var weak = ByteBuffer(staticString: "W/")
            weak.writeBytes(strong)
            tag = weak
        }
        let fields = head.fields
        head.fields = fields.copy(reserving: 128) { position in
            switch fields.field(at: position) {
            case .contentLength, .contentEncoding: false
            case .etag: tag == nil
            // Parts of what is compressed cannot be asked for.
            case .other: !fields.name(at: position).equalsIgnoringCase("Accept-Ranges")
            default: true
            }
        }
        head.fields.append("Content-Encoding", "gzip")
        if let tag {
            head.fields.append(name: ByteBuffer(staticString: "ETag").readableBytesView, value: tag.readableBytesView)
        }
        head.bodyLength = .unknown
        return request.method != .head
    }

    private func isCompressible(_ head: ResponseHead) -> Bool {
        switch head.status {
        case 204, 205, 206, 304: return false
        case 200...599: break
        default: return false
        }
        let fields = head.fields
        guard let type = fields.first(.contentType), isListed(type) else { return false }
        if let encoding = fields.first(.contentEncoding) {
            guard fields.occurrences(.contentEncoding) == 1, encoding.equalsIgnoringCase("identity") else {
                return false
            }
        }
        return !fields.contains(.cacheControl, token: "no-transform") && fields.text("Content-Range") == nil
    }

    private func isListed(_ value: ByteBufferView) -> Bool {
        let type = value.prefix { $0 != UInt8(ascii: ";") }.trimmingWhitespace()
        // An event stream is made of pauses; whatever the list says it leaves as it comes.
        guard !type.equalsIgnoringCase("text/event-stream") else { return false }
        return types.contains { other in
            let isPrefix = other.last == UInt8(ascii: "/")
            guard isPrefix ? type.count > other.count : type.count == other.count else { return false }
            return zip(type, other).allSatisfy { ($0 >= 0x41 && $0 <= 0x5A ? $0 | 0x20 : $0) == $1 }
        }
    }

    private func isShort(_ head: ResponseHead, _ request: RequestHead) -> Bool {
        switch head.bodyLength {
        case .known(let length): return length < leastBytes
        case .unknown: return false
        case .none:
            // To HEAD: what the response to GET would have.
            guard request.method == .head, let text = head.fields.text(.contentLength) else {
                return request.method != .head
            }
            return Int64(text).map { $0 < leastBytes } ?? true
        }
    }

    /// Whether gzip is accepted and not wanted less than the response as it is (RFC 9110 section 12.5.3).
    static func accepts(_ fields: HeaderBlock) -> Bool {
        guard fields.has(.acceptEncoding) else { return false }
        var gzip: Int?
        var any: Int?
        var identity: Int?
        for position in 0..<fields.count where fields.field(at: position) == .acceptEncoding {
            for member in WeightedList(fields.value(at: position)) {
                if member.value.equalsIgnoringCase("gzip") || member.value.equalsIgnoringCase("x-gzip") {
                    gzip = member.weight
                } else if member.value.equalsIgnoringCase("identity") {
                    identity = member.weight
                } else if member.value.count == 1, member.value.first == UInt8(ascii: "*") {
                    any = member.weight
                }
            }
        }
        guard let weight = gzip ?? any, weight > 0 else { return false }
        return weight >= identity ?? 0
    }
}
