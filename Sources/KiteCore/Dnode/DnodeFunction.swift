/// Functions as arguments: the peer calls ours, we call the peer's, any number of times.

/// A function that can be handed over a dnode connection, or that the peer handed over.
///
/// It has no result; what it is to answer goes through another function among its arguments. Two values are equal when they
/// are copies of the same function; given to the same peer twice it is the same callback there.
///
/// A connection keeps a function of this side that it has handed over, since only the program knows how long the peer may call it. A
/// function that is made for one call should have the lifetime ``Lifetime/call``; one that serves longer is let go of with
/// `RemoteKite.release(_:)`. Otherwise it stays until the connection ends, and counts towards ``DnodeLimits/maximumFunctions``.
public struct DnodeFunction: Sendable, Hashable {
    /// What calling it does.
    public typealias Body = @Sendable ([DnodeValue]) async throws -> Void

    /// How long the peer can call a function of this side that it was given.
    public enum Lifetime: Sendable, Hashable {
        /// Until it is released or the connection ends.
        case connection
        /// Until the call among whose arguments it was given ends: with its answer, by its timeout, or cancelled. What the peer calls
        /// later is ignored. Given in another way (in a result, or to a function of the peer) it lives as with ``connection``.
        case call
    }

    private final class Identity: Sendable {
        let lifetime: Lifetime
        let body: Body
        init(_ lifetime: Lifetime, _ body: @escaping Body) {
            self.lifetime = lifetime
            self.body = body
        }
    }
    private let identity: Identity
    var lifetime: Lifetime { identity.lifetime }

    /// A function of this side. Calls of one peer reach it one after the other, in the order in which they were made.
    public init(lifetime: Lifetime = .connection, _ body: @escaping Body) { identity = Identity(lifetime, body) }

    /// A function of this side that takes one argument.
    public init<Argument: Decodable & Sendable>(
        taking type: Argument.Type, lifetime: Lifetime = .connection,
        _ body: @escaping @Sendable (Argument) async throws -> Void
    ) {
        self.init(lifetime: lifetime) { arguments in
            try await body(DnodeDecoder().decode(type, from: arguments.first ?? .null))
        }
    }

    /// Calls it. For a function of the peer this returns as soon as the call is queued.
    /// - Throws: for a function of the peer what sending throws; for one of this side what it throws.
    public func call(arguments: [DnodeValue]) async throws { try await identity.body(arguments) }

    /// Calls it.
    /// - Throws: `EncodingError` for arguments that dnode cannot carry, otherwise as ``call(arguments:)``.
    public func call(_ arguments: any Encodable & Sendable...) async throws {
        try await call(arguments: arguments.map { try DnodeEncoder().encode($0) })
    }

    public static func == (left: Self, right: Self) -> Bool { left.identity === right.identity }
    public func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(identity)) }
}

extension DnodeFunction: Codable {
    /// Works with ``DnodeDecoder`` only.
    public init(from decoder: any Decoder) throws {
        guard let decoder = decoder as? DnodeValueDecoder, case .function(let function) = decoder.value else {
            throw DecodingError.typeMismatch(
                DnodeFunction.self,
                DecodingError.Context(codingPath: decoder.codingPath, debugDescription: "expected a function"))
        }
        self = function
    }

    /// Works with ``DnodeEncoder`` only.
    public func encode(to encoder: any Encoder) throws {
        guard let encoder = encoder as? DnodeValueEncoder else {
            throw EncodingError.invalidValue(
                self,
                EncodingError.Context(
                    codingPath: encoder.codingPath, debugDescription: "functions travel over dnode only"))
        }
        encoder.node.content = .value(.function(self))
    }
}
