/// How methods of another kite are called: the same for a kite that we dialled and for one that is connected to us.
public import KiteDnode

/// Something whose methods can be called.
public protocol KiteCaller: Sendable {
    /// Calls a method.
    /// - Parameters:
    ///   - arguments: may hold functions for the other side to call back.
    ///   - timeout: how long to wait for the answer; nil for as long as the connection lives.
    /// - Returns: the result; null for a method without one.
    /// - Throws: ``KiteError`` as the other side answered it, or of type `timeout`, `sendError`, `disconnect` or `invalidResponse`;
    ///   `CancellationError` when the task was cancelled.
    func call(_ method: String, arguments: [DnodeValue], timeout: Duration?) async throws -> DnodeValue
    /// How long a call waits for its answer unless told otherwise; see ``KiteConfiguration/timeout``.
    var callTimeout: Duration { get }
}

extension KiteCaller {
    /// Calls a method and hands out its result as it came, waiting for it no longer than ``callTimeout``.
    /// - Throws: as ``call(_:arguments:timeout:)``; also a ``KiteError`` of type `argumentError` for arguments that cannot be sent.
    @discardableResult
    public func tell(_ method: String, _ arguments: any Encodable & Sendable...) async throws -> DnodeValue {
        try await call(method, arguments: encode(arguments), timeout: callTimeout)
    }

    /// The same with a timeout for this call; nil waits for as long as the connection lives.
    @discardableResult
    public func tell(
        _ method: String, _ arguments: any Encodable & Sendable..., timeout: Duration?
    ) async throws -> DnodeValue {
        try await call(method, arguments: encode(arguments), timeout: timeout)
    }

    /// Calls a method and decodes its result, waiting for it no longer than ``callTimeout``.
    /// - Throws: as ``tell(_:_:)``; also a ``KiteError`` of type `invalidResponse` when the result is of another type.
    public func tell<Result: Decodable>(
        _ method: String, _ arguments: any Encodable & Sendable...
    ) async throws -> Result {
        try decode(try await call(method, arguments: encode(arguments), timeout: callTimeout), of: method)
    }

    /// The same with a timeout for this call; nil waits for as long as the connection lives.
    public func tell<Result: Decodable>(
        _ method: String, _ arguments: any Encodable & Sendable..., timeout: Duration?
    ) async throws -> Result {
        try decode(try await call(method, arguments: encode(arguments), timeout: timeout), of: method)
    }

    private func decode<Result: Decodable>(_ result: DnodeValue, of method: String) throws(KiteError) -> Result {
        do { return try DnodeDecoder().decode(Result.self, from: result) } catch {
            throw KiteError(.invalidResponse, "The result of \(method): \(describe(error))")
        }
    }

    private func encode(_ arguments: [any Encodable & Sendable]) throws(KiteError) -> [DnodeValue] {
        do { return try arguments.map { try DnodeEncoder().encode($0) } } catch {
            throw KiteError(.argument, describe(error))
        }
    }
}

/// An error in one sentence; for those of `Codable` with the place.
func describe(_ error: any Error) -> String {
    let context: DecodingError.Context
    switch error {
    case let error as KiteError: return error.message
    case EncodingError.invalidValue(_, let found):
        return place(found.codingPath) + found.debugDescription
    case DecodingError.typeMismatch(_, let found), DecodingError.valueNotFound(_, let found),
        DecodingError.keyNotFound(_, let found), DecodingError.dataCorrupted(let found):
        context = found
    default: return String(describing: error)
    }
    return place(context.codingPath) + context.debugDescription
}

private func place(_ path: [any CodingKey]) -> String {
    guard !path.isEmpty else { return "" }
    return path.map { String($0.stringValue.prefix(64)) }.joined(separator: ".") + ": "
}

/// Runs `body`, for at most `timeout`.
/// - Parameter discard: gets what `body` returned although it was too late.
func withTimeout<Outcome: Sendable>(
    _ timeout: Duration?, _ error: @autoclosure @escaping @Sendable () -> KiteError,
    discard: (Outcome) -> Void = { _ in },
    _ body: @escaping @Sendable () async throws -> Outcome
) async throws -> Outcome {
    guard let timeout else { return try await body() }
    return try await withThrowingTaskGroup(of: Outcome.self) { group in
        group.addTask { try await body() }
        group.addTask {
            try await Task.sleep(for: timeout)
            throw error()
        }
        let first = await group.nextResult()
        group.cancelAll()
        if case .success(let outcome)? = first { return outcome }
        while let other = await group.nextResult() {
            if case .success(let late) = other { discard(late) }
        }
        if case .failure(let cause)? = first { throw cause }
        throw error()
    }
}
