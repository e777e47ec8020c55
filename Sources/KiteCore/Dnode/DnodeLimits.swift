/// What a dnode message may cost, and the error for one that costs more or makes no sense.

/// Bounds on one message and on what a connection keeps. All are enforced before memory is spent on what exceeds them.
public struct DnodeLimits: Sendable, Hashable {
    /// Bytes of one message, in either direction.
    public var maximumMessageSize = 16 << 20
    /// How deep arrays and objects may nest in one message, in either direction. The message's own count, too: they are four around the
    /// arguments of a call and three around a result.
    public var maximumDepth = 64
    /// Values in one received message, counting every element and every object key; bounds what a small text can
    /// blow up to in memory.
    public var maximumNodes = 500_000
    /// Callbacks that one received message may bring.
    public var maximumCallbacksPerMessage = 256
    /// Calls of this side that wait for their answer, per connection.
    public var maximumPendingCalls = 4096
    /// Functions of this side that the peer knows, per connection. They count until they are released; see ``DnodeFunction/Lifetime``.
    public var maximumFunctions = 4096

    public init() {}
}

/// A message, or a value for one, that is refused.
public struct DnodeError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong, stable for programs.
    public enum Code: Sendable, Hashable {
        /// Not a JSON text.
        case malformed
        /// One of ``DnodeLimits`` was exceeded.
        case limitExceeded
        /// JSON, but no dnode message.
        case invalidMessage
        /// A value that JSON cannot carry (a number that is not finite), or a number beyond what a `Double` can hold.
        case unrepresentable
    }
    /// What kind of error it is.
    public let code: Code
    /// A sentence with the place; holds no part of the message but short names.
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}
