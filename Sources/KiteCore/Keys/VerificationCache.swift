/// Remembers which tokens were verified, so that a caller that shows the same one with every call costs no RSA operation.
internal import Crypto

/// A bounded map from the SHA-256 of a credential's text to what it proved. When full, the entry that has been there longest goes.
struct VerificationCache {
    /// A token is no kite key: each was checked by its own rules.
    enum Kind: Hashable {
        case token, kiteKey
    }

    struct Key: Hashable {
        let kind: Kind
        private let digest: SHA256.Digest

        init(kind: Kind, text: String) {
            self.kind = kind
            digest = SHA256.hash(data: Array(text.utf8))
        }
    }

    private struct Entry {
        let credential: VerifiedCredential
        /// Seconds since 1970 from when on the entry is as good as absent.
        let until: Int64
    }

    private var entries: [Key: Entry] = [:]
    /// The keys in the order of their insertion, as a ring once `capacity` is reached.
    private var order: [Key] = []
    private var oldest = 0
    private let capacity: Int
    /// After so many seconds a credential is verified again.
    private let longest: Int64

    init(capacity: Int, lifetime: Duration = .seconds(3600)) {
        longest = min(max(.zero, lifetime), .seconds(86400)).components.seconds
        self.capacity = max(0, capacity)
    }

    var count: Int { entries.count }

    subscript(key: Key, now: Int64) -> VerifiedCredential? {
        guard let entry = entries[key], now < entry.until else { return nil }
        return entry.credential
    }

    mutating func insert(_ credential: VerifiedCredential, for key: Key, now: Int64) {
        guard capacity > 0, longest > 0 else { return }
        let until = min(credential.expiresAt ?? .max, now.addingClamped(longest))
        let isNew = entries.updateValue(Entry(credential: credential, until: until), forKey: key) == nil
        guard isNew else { return }
        if order.count < capacity {
            order.append(key)
        } else {
            entries[order[oldest]] = nil
            order[oldest] = key
            oldest = (oldest + 1) % capacity
        }
    }

    mutating func removeAll() {
        entries.removeAll()
        order.removeAll()
        oldest = 0
    }
}
