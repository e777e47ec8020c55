/// Remembers the tokens that Kontrol has issued, so that the same caller asking again costs no signature.
import KiteCore

/// A bounded map from caller, audience and key pair to a token that is good for a while yet.
struct TokenCache {
    struct Key: Hashable {
        var username: String
        var audience: Audience
        var keyID: String
    }

    private var tokens: [Key: (token: String, until: Int64)] = [:]
    private let capacity: Int

    init(capacity: Int = 10_000) { self.capacity = capacity }

    var count: Int { tokens.count }

    subscript(key: Key, now: Int64) -> String? {
        guard let (token, until) = tokens[key], now < until else { return nil }
        return token
    }

    /// - Parameter until: seconds since 1970 up to which the token is given out again.
    mutating func insert(_ token: String, for key: Key, until: Int64, now: Int64) {
        if tokens.count >= capacity {
            tokens = tokens.filter { now < $0.value.until }
            // Full of good ones: starting anew is cheap against keeping order, and happens once per `capacity` tokens.
            if tokens.count >= capacity { tokens.removeAll(keepingCapacity: true) }
        }
        tokens[key] = (token, until)
    }
}
