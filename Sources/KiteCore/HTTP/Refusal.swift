/// A request that is not served: a status, and one line that tells a person what to do.
public import NIOCore

/// Why an exchange is refused. The reason is shown to the visitor: it says what to do and holds no secrets and nothing of the request.
public struct Refusal: Error, Sendable, Hashable {
    /// 400 to 599.
    public var status: UInt16
    /// One line for a person.
    public var reason: String
    /// Seconds after which trying again makes sense.
    public var retryAfter: Int?
    /// Whether the connection ends with it: where connections themselves are what there is too little of.
    public var endsConnection = false

    public init(_ status: UInt16, _ reason: String, retryAfter: Int? = nil, endsConnection: Bool = false) {
        self.endsConnection = endsConnection
        self.status = status
        self.reason = reason
        self.retryAfter = retryAfter
    }
}

extension Refusal {
    /// The response's head and body: a line of plain text, or JSON (`{"error":…,"status":…}`) where the visitor accepts that.
    /// - Parameter request: the request refused; nil when its head could not be read.
    public func response(to request: RequestHead?) -> (head: ResponseHead, body: ByteBuffer) {
        let isJSON = request.map { Self.wantsJSON($0.fields) } ?? false
        var fields = HeaderBlock()
        fields.append("Content-Type", isJSON ? "application/json" : "text/plain; charset=utf-8")
        fields.append("Cache-Control", "no-store")
        if let retryAfter { fields.append("Retry-After", String(retryAfter)) }
        let body =
            isJSON ? "{\"error\":\(Self.quoted(reason)),\"status\":\(status)}\n" : reason + "\n"
        let bytes = ByteBuffer(string: body)
        var head = ResponseHead(status: status, fields: fields, bodyLength: .known(Int64(bytes.readableBytes)))
        head.endsConnection = endsConnection
        return (head, bytes)
    }

    /// Whether JSON is named in Accept with a quality other than zero, and HTML is not.
    private static func wantsJSON(_ fields: HeaderBlock) -> Bool {
        guard fields.has(.accept) else { return false }
        var json = false
        for position in 0..<fields.count where fields.field(at: position) == .accept {
            var rest = fields.value(at: position)
            while let member = rest.nextListMember() {
                let parts = member.split(separator: UInt8(ascii: ";"))
                guard let type = parts.first?.trimmingWhitespace() else { continue }
                let isRefused = parts.dropFirst().contains {
                    let text = $0.trimmingWhitespace()
                    return text.equalsIgnoringCase("q=0") || text.equalsIgnoringCase("q=0.0")
                }
                if type.equalsIgnoringCase("text/html"), !isRefused { return false }
                if type.equalsIgnoringCase("application/json") { json = !isRefused }
            }
        }
        return json
    }

    /// A JSON string.
    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            default:
                if scalar.value < 0x20 {
                    let digits = String(scalar.value, radix: 16)
                    result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
                } else {
                    result.unicodeScalars.append(scalar)
                }
            }
        }
        return result + "\""
    }
}

extension Exchange {
    /// Answers with a refusal, completely.
    public func refuse(_ refusal: Refusal) {
        let (head, body) = refusal.response(to: request)
        respond(head, body: body)
    }

    /// Answers with a refusal, completely.
    /// - Parameters:
    ///   - status: 400 to 599.
    ///   - reason: a sentence that tells the visitor what to do.
    ///   - retryAfter: seconds after which trying again makes sense.
    ///   - fields: more fields for the response, such as `WWW-Authenticate` or `Allow`.
    public func refuse(
        status: UInt16, reason: String, retryAfter: Int? = nil, fields: KeyValuePairs<String, String> = [:]
    ) {
        refuse(Refusal(status, reason, retryAfter: retryAfter), fields: fields)
    }

    /// Answers with a refusal, completely, with more fields.
    public func refuse(_ refusal: Refusal, fields: KeyValuePairs<String, String>) {
        let refusal = refusal.response(to: request)
        var head = refusal.head
        for (name, value) in fields { head.fields.append(name, value) }
        respond(head, body: refusal.body)
    }
}
