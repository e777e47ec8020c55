/// A call as a method sees it.
public import KiteDnode
import Synchronization

/// One call of a method.
public struct KiteRequest: Sendable {
    /// The method's name.
    public let method: String
    /// Names this call in logs and errors: 16 hexadecimal digits.
    public let id: String
    /// Who the caller says it is. Its user name is proven where ``username`` is set, the rest is its word.
    public let caller: KiteIdentity
    /// The caller's user name; nil for an anonymous call.
    public let username: String?
    /// What the caller brought to prove that.
    public let authentication: Authentication?
    /// The arguments as they came.
    public let arguments: [DnodeValue]
    /// The connected kite, to call its methods.
    public let remote: RemoteKite

    private let afterAnswer = AfterAnswer()

    init(
        method: String, id: String, caller: KiteIdentity, username: String?, authentication: Authentication?,
        arguments: [DnodeValue], remote: RemoteKite
    ) {
        self.method = method
        self.id = id
        self.caller = caller
        self.username = username
        self.authentication = authentication
        self.arguments = arguments
        self.remote = remote
    }

    /// Decodes an argument; one that is not there counts as null.
    /// - Throws: ``KiteError`` of type `argumentError`.
    public func argument<Value: Decodable>(_ position: Int, as type: Value.Type = Value.self) throws(KiteError) -> Value
    {
        let value = arguments.indices.contains(position) ? arguments[position] : .null
        do { return try DnodeDecoder().decode(type, from: value) } catch {
            throw KiteError(.argument, "Argument \(position): \(describe(error))")
        }
    }

    /// Runs a job once the answer has been sent: a ticker, a subscription. It counts as a running call and is cancelled when
    /// the connection ends. Of several the last one counts.
    public func runAfterAnswer(_ job: @escaping @Sendable () async -> Void) { afterAnswer.set(job) }

    /// The job to run once the answer has been sent.
    func takeAfterAnswer() -> (@Sendable () async -> Void)? { afterAnswer.take() }

    private final class AfterAnswer: Sendable {
        private let job = Mutex<(@Sendable () async -> Void)?>(nil)
        func set(_ new: @escaping @Sendable () async -> Void) { job.withLock { $0 = new } }
        func take() -> (@Sendable () async -> Void)? {
            job.withLock { job in
                defer { job = nil }
                return job
            }
        }
    }
}
