/// Why a message was refused: one value that maps to a status, a stable code and a sentence for a person.

/// A message that breaks HTTP or a limit. Thrown by the scanners and decoders; on the server side it is answered with
/// ``status``, on the client side it becomes 502.
public struct HTTPError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What was wrong, stable for programs, logs and metrics.
    public enum Code: String, Sendable, CaseIterable {
        case malformedStartLine, malformedMethod, malformedTarget, malformedVersion, unsupportedVersion
        case malformedField, malformedHost, missingHost, repeatedHost, hostMismatch
        case malformedContentLength, repeatedContentLength, conflictingFraming, unsupportedTransferEncoding
        case unsupportedMethod, unsupportedExpectation
        case targetTooLong, headTooLarge, tooManyFields, bodyTooLarge
        case malformedChunk, truncatedBody, malformedStatus
        case slowHead, slowBody
    }
    /// The status to refuse a request with.
    public let status: UInt16
    /// What is wrong; decides the status.
    public let code: Code
    /// A sentence for a person; never repeats what was received.
    public let message: String

    package init(_ status: UInt16, _ code: Code, _ message: String) {
        self.status = status
        self.code = code
        self.message = message
    }
    public var description: String { "\(message) (\(code.rawValue))" }
}

extension HTTPError {
    static var startLine: HTTPError { HTTPError(400, .malformedStartLine, "The start line is malformed.") }
    static var method: HTTPError { HTTPError(400, .malformedMethod, "The request method is malformed.") }
    static var target: HTTPError { HTTPError(400, .malformedTarget, "The request target is malformed.") }
    static var version: HTTPError { HTTPError(400, .malformedVersion, "The protocol version is malformed.") }
    static var otherVersion: HTTPError {
        HTTPError(505, .unsupportedVersion, "This connection speaks HTTP/1.0 and HTTP/1.1 only.")
    }
    static var status: HTTPError { HTTPError(400, .malformedStatus, "The response's status is malformed.") }
    static var fieldName: HTTPError {
        HTTPError(400, .malformedField, "A header field name is empty or has a forbidden character.")
    }
    static var fieldValue: HTTPError {
        HTTPError(400, .malformedField, "A header field value has a control character.")
    }
    static var lineEnd: HTTPError { HTTPError(400, .malformedField, "A line does not end with CR LF.") }
    static var folding: HTTPError {
        HTTPError(400, .malformedField, "A header line begins with white space.")
    }
    static var host: HTTPError { HTTPError(400, .malformedHost, "The Host field is empty or malformed.") }
    static var noHost: HTTPError { HTTPError(400, .missingHost, "The request has no Host field.") }
    static var manyHosts: HTTPError { HTTPError(400, .repeatedHost, "The request has more than one Host field.") }
    static var otherHost: HTTPError {
        HTTPError(400, .hostMismatch, "The Host field does not agree with the request target.")
    }
    static var contentLength: HTTPError {
        HTTPError(400, .malformedContentLength, "The Content-Length is not a plain number, or is too large.")
    }
    static var manyLengths: HTTPError {
        HTTPError(400, .repeatedContentLength, "The message has more than one Content-Length.")
    }
    static var bothFramings: HTTPError {
        HTTPError(400, .conflictingFraming, "The message has both Content-Length and Transfer-Encoding.")
    }
    static var transferEncoding: HTTPError {
        HTTPError(400, .unsupportedTransferEncoding, "The only transfer encoding accepted is chunked, on HTTP/1.1.")
    }
    package static var connect: HTTPError {
        HTTPError(501, .unsupportedMethod, "This is a gateway, not a forward proxy: CONNECT is not supported.")
    }
    static var expectation: HTTPError {
        HTTPError(417, .unsupportedExpectation, "The only expectation that can be met is 100-continue.")
    }
    package static var longTarget: HTTPError { HTTPError(414, .targetTooLong, "The request target is too long.") }
    package static var largeHead: HTTPError { HTTPError(431, .headTooLarge, "The header section is too large.") }
    package static var manyFields: HTTPError { HTTPError(431, .tooManyFields, "There are too many header fields.") }
    package static var largeBody: HTTPError {
        HTTPError(413, .bodyTooLarge, "The request body is larger than this gateway accepts.")
    }
    static var chunk: HTTPError { HTTPError(400, .malformedChunk, "The chunked body is malformed.") }
    static var truncated: HTTPError { HTTPError(400, .truncatedBody, "The body ended before it was complete.") }
    static var headTimeout: HTTPError {
        HTTPError(408, .slowHead, "The request's head did not arrive in time; please try again.")
    }
    package static var bodyTimeout: HTTPError {
        HTTPError(408, .slowBody, "The request's body stopped arriving; please try again.")
    }

    /// The same fault found in a response: the visitor is told 502, whatever it was.
    var inResponse: HTTPError { HTTPError(502, code, message) }
}
