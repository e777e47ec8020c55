/// What can go wrong between a kite and Kontrol.

/// Why Kontrol did not do what it was asked.
public struct KontrolError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What happened, stable for programs.
    public enum Code: String, Sendable, Hashable {
        /// The query is not one that Kontrol answers.
        case invalidQuery
        /// No kite matches.
        case notFound
        /// More than one kite matches where one was asked for.
        case ambiguous
        /// The registration is incomplete or malformed.
        case invalidRegistration
        /// The caller may not do this.
        case forbidden
        /// Kontrol would not, for a reason of its own.
        case refused
        /// Kontrol cannot be reached, or broke while it answered.
        case unavailable
        /// Kontrol answered something that is no answer.
        case invalidAnswer
    }
    /// What kind of error it is.
    public let code: Code
    /// A human sentence; never contains secrets.
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}
