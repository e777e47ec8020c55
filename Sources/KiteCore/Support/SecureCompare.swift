/// Comparing secrets without telling by the time it takes how much of a guess was right.

/// Constant-time comparison.
public enum SecureCompare {
    /// Whether both have the same bytes. Takes time by the length of `presented` only; an early return tells no more than that the
    /// lengths differ.
    public static func equal(_ presented: some Collection<UInt8>, _ secret: some Collection<UInt8>) -> Bool {
        guard presented.count == secret.count else { return false }
        var difference: UInt8 = 0
        for (one, other) in zip(presented, secret) { difference |= one ^ other }
        return difference == 0
    }

    /// Whether both have the same UTF-8 bytes.
    public static func equal(_ presented: String, _ secret: String) -> Bool {
        equal(presented.utf8, secret.utf8)
    }
}
