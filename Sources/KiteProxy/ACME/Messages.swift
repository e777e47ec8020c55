/// The JSON objects of ACME (RFC 8555 section 7.1) as far as the client reads them.
package import Foundation

/// What a directory URL answers (section 7.1.1).
struct DirectoryObject: Decodable, Sendable {
    struct Meta: Decodable, Sendable {
        var termsOfService: String?
        var externalAccountRequired: Bool?
    }
    var newNonce: String
    var newAccount: String
    var newOrder: String
    var meta: Meta?
}

/// An account (section 7.1.2).
struct AccountObject: Decodable, Sendable {
    var status: String
}

/// What a certificate is wanted for (section 7.1.3).
struct Identifier: Codable, Sendable, Hashable {
    var type: String
    var value: String
}

/// An order (section 7.1.3).
struct OrderObject: Decodable, Sendable {
    var status: String
    var identifiers: [Identifier]?
    var authorizations: [String]?
    var finalize: String?
    var certificate: String?
    var error: ProblemObject?
}

/// An authorization (section 7.1.4).
struct AuthorizationObject: Decodable, Sendable {
    var identifier: Identifier
    var status: String
    var challenges: [ChallengeObject]
}

/// A challenge (section 8).
struct ChallengeObject: Decodable, Sendable {
    var type: String
    var url: String
    var token: String?
    var status: String?
    var error: ProblemObject?
}

/// A problem document (RFC 7807, RFC 8555 section 6.7).
struct ProblemObject: Decodable, Sendable {
    struct Subproblem: Decodable, Sendable {
        var type: String?
        var detail: String?
        var identifier: Identifier?
    }
    var type: String?
    var title: String?
    var detail: String?
    var instance: String?
    var subproblems: [Subproblem]?

    /// The last part of an ACME error's URN, such as `badNonce`; empty for other types.
    var kind: Substring {
        let prefix = "urn:ietf:params:acme:error:"
        guard let type, type.hasPrefix(prefix) else { return "" }
        return type.dropFirst(prefix.count)
    }

    /// A sentence for a log: bounded, and without control characters.
    var summary: String {
        var text = detail ?? title ?? type ?? "no reason given"
        if !kind.isEmpty { text = "\(kind): \(text)" }
        for part in (subproblems ?? []).prefix(4) {
            text += "; \(part.identifier?.value ?? "-"): \(part.detail ?? part.type ?? "-")"
        }
        return Self.plain(text)
    }

    /// Text of a server as it may stand in a log.
    static func plain(_ text: String) -> String {
        let scalars = text.unicodeScalars.prefix(400).map { $0.value < 0x20 || $0.value == 0x7F ? " " : $0 }
        return String(String.UnicodeScalarView(scalars))
    }
}

/// How a name is shown to be ours (RFC 8555 section 8.3, RFC 8737).
package enum ChallengeKind: String, Sendable, CaseIterable, Hashable {
    case http01 = "http-01"
    case tlsALPN01 = "tls-alpn-01"
}

/// Why there is no certificate.
package struct ACMEFailure: Error, Sendable, Hashable, CustomStringConvertible {
    /// What kind of failure it is; stable, for metrics and tests.
    package enum Code: String, Sendable, CaseIterable {
        /// The server could not be reached, or its connection broke.
        case transport
        /// The server did not answer as RFC 8555 says.
        case malformed
        /// The server has a fault of its own (5xx).
        case server
        /// Too many requests or certificates.
        case rateLimited
        /// The server's terms are not agreed to.
        case termsNotAgreed
        /// The server wants an account that is bound to one outside of ACME.
        case accountBindingNeeded
        /// The server refused account, order or request.
        case rejected
        /// The server offers no challenge that may be used.
        case noUsableChallenge
        /// The server did not find what it looked for at the name.
        case validationFailed
        /// It took too long.
        case timeout
        /// The certificate is not the one that was asked for.
        case badCertificate
        /// The data directory could not be read or written.
        case storage
    }
    package let code: Code
    /// A sentence for an operator.
    package let message: String
    /// Before when the server does not want to be asked again.
    package let retryAfter: Date?

    package init(_ code: Code, _ message: String, retryAfter: Date? = nil) {
        self.code = code
        self.message = message
        self.retryAfter = retryAfter
    }

    package var description: String { message }
}
