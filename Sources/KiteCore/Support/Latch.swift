/// A value that comes once and is waited for by any number of tasks.
import Synchronization

/// Completed once, with a value or an error; later completions are ignored.
public final class Latch<Value: Sendable>: Sendable {
    private enum State {
        case waiting([UInt64: CheckedContinuation<Value, any Error>])
        case done(Result<Value, any Error>)
    }
    private struct Storage {
        var state = State.waiting([:])
        var nextID: UInt64 = 0
    }
    private let storage = Mutex(Storage())

    public init() {}

    /// Gives the value to all who wait, now and later. Only the first outcome counts.
    public func succeed(_ value: Value) { complete(.success(value)) }
    /// Gives an error to all who wait, now and later. Only the first outcome counts.
    public func fail(_ error: any Error) { complete(.failure(error)) }

    /// The value, if it has come.
    public var current: Value? {
        storage.withLock { if case .done(.success(let value)) = $0.state { value } else { nil } }
    }

    /// Waits for the value.
    /// - Throws: the error it was completed with, or `CancellationError`.
    public func value() async throws -> Value {
        let id = storage.withLock { storage in
            storage.nextID += 1
            return storage.nextID
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let result: Result<Value, any Error>? = storage.withLock { storage in
                    switch storage.state {
                    case .done(let result): return result
                    case .waiting(var waiters):
                        if Task.isCancelled { return .failure(CancellationError()) }
                        waiters[id] = continuation
                        storage.state = .waiting(waiters)
                        return nil
                    }
                }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            let continuation: CheckedContinuation<Value, any Error>? = storage.withLock { storage in
                guard case .waiting(var waiters) = storage.state else { return nil }
                let waiter = waiters.removeValue(forKey: id)
                storage.state = .waiting(waiters)
                return waiter
            }
            continuation?.resume(throwing: CancellationError())
        }
    }

    private func complete(_ result: Result<Value, any Error>) {
        let waiters: [CheckedContinuation<Value, any Error>] = storage.withLock { storage in
            guard case .waiting(let waiters) = storage.state else { return [] }
            storage.state = .done(result)
            return Array(waiters.values)
        }
        for waiter in waiters { waiter.resume(with: result) }
    }
}
