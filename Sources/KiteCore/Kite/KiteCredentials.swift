/// What a client proves itself with, and where it gets something new when that has expired.
import Synchronization

/// Credentials that may be renewed. One value can serve several clients.
public final class KiteCredentials: Sendable {
    /// Gets new credentials; `expired` is what the other side did not accept, nil at first.
    public typealias Renewal = @Sendable (_ expired: Authentication?) async throws -> Authentication

    private let current: Mutex<Authentication?>
    private let renewal: Renewal?

    /// - Parameters:
    ///   - authentication: what to begin with; where nil, `renewal` is asked before the first call.
    ///   - renewal: asked when the other side says that the token is expired.
    public init(_ authentication: Authentication? = nil, renewal: Renewal? = nil) {
        current = Mutex(authentication)
        self.renewal = renewal
    }

    /// No credentials: for methods that demand none.
    public static var none: KiteCredentials { KiteCredentials() }
    /// A token that is not renewed.
    public static func token(_ token: String) -> KiteCredentials { KiteCredentials(.token(token)) }
    /// A kite key: for Kontrol and the gateway.
    public static func kiteKey(_ key: String) -> KiteCredentials { KiteCredentials(.kiteKey(key)) }

    var canRenew: Bool { renewal != nil }

    /// What to call with.
    func authentication() async throws -> Authentication? {
        if let authentication = current.withLock({ $0 }) { return authentication }
        return try await renew(nil)
    }

    /// Replaces what has expired, unless another call has done so meanwhile.
    func renew(_ expired: Authentication?) async throws -> Authentication? {
        if let newer = current.withLock({ $0 }), newer != expired { return newer }
        guard let renewal else { return nil }
        let new = try await renewal(expired)
        current.withLock { $0 = new }
        return new
    }

    /// Replaces the credentials.
    public func update(_ authentication: Authentication?) { current.withLock { $0 = authentication } }
}
