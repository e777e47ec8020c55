/// What two gateway processes say to each other when one takes the place of the other.
///
/// Over a UNIX socket in the data directory, one exchange a connection:
/// 1. The successor, when its configuration is read and checked, sends `take`.
/// 2. The one that serves answers with ``HandoverOffer``, the listening sockets beside it (SCM_RIGHTS), in the order of its list.
/// 3. The successor prepares everything but accepting, then sends `done`. Until then the other goes on as if nothing had happened.
/// 4. The other stops accepting, answers `stopped`, and lets what is under way come to its end. The successor accepts; who connected
///    meanwhile is in the sockets' queues.
/// The listening sockets of a gateway.
struct HandoverOffer: Codable, Sendable, Hashable {
    /// Increased when the meaning of what is sent changes.
    static let version = 1
    /// More sockets than this are not passed: the kernel's own limit is 253.
    static let maximumSockets = 250
    /// Longer messages are refused, in bytes.
    static let maximumBytes = 64 * 1024

    var version = Self.version
    /// The software's version, for the log.
    var software: String
    var process: Int32
    /// How many sockets each listener has.
    var groups: [Int]
}

/// Lines of the exchange.
enum HandoverLine {
    static let take = Array("take 1\n".utf8)
    static let done = Array("done\n".utf8)
    static let stopped = Array("stopped\n".utf8)
}
