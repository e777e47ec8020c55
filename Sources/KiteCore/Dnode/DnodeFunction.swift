/// Functions as arguments: the peer calls ours, we call the peer's, any number of times.

/// A function that can be handed over a dnode connection, or that the peer handed over.
///
/// It has no result; what it is to answer goes through another function among its arguments. Two values are equal when they
/// are copies of the same function; given to the same peer twice it is the same callback there.
public struct DnodeFunction: Sendable, Hashable {
    /// What calling it does.
    public typealias Body = @Sendable ([DnodeValue]) async throws -> Void

    private final class Identity: Sendable {
        let body: Body
        init(_ body: @escaping Body) { self.body = body }
    }
    private let identity: Identity

    /// A function of this side. Calls of one peer reach it one after the other, in the order in which they were made.
    public init(_ body: @escaping Body) { identity = Identity(body) }

    /// A function of this side that takes one argument.
    public init<Argument: Decodable & Sendable>(
        taking type: Argument.Type, _ body: @escaping @Sendable (Argument) async throws -> Void
    ) {
        self.init { arguments in try await body(DnodeDecoder().decode(type, from: arguments.first ?? .null)) }
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
