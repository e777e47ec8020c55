/// How many connections may be open, in all and from one address, whichever listeners and event loops they come to.
public import NIOCore
import Synchronization

/// Counts open connections for all listeners that share it. May be used on any thread; one short lock for each connection that opens or
/// closes, none for what happens on it.
public final class ConnectionLimiter: Sendable {
    /// Why a connection may not be opened.
    public enum Refusal: Sendable, Hashable {
        case tooManyInAll
        case tooManyFromAddress
    }

    /// A connection that is counted; to be given back once with ``ConnectionLimiter/leave(_:)``.
    struct Admission: Sendable {
        fileprivate let key: AddressKey?
    }

    private let connections: Int
    private let connectionsPerAddress: Int
    private let isExempt: @Sendable (SocketAddress) -> Bool
    private let open = Atomic<Int>(0)
    /// By address, so that event loops seldom wait for each other.
    private let shards = (0..<16).map { _ in Shard() }

    private final class Shard: Sendable {
        let counts = Mutex<[AddressKey: Int]>([:])
    }

    /// - Parameters:
    ///   - connections: open at a time.
    ///   - connectionsPerAddress: open at a time from one IP address (IPv6: from one /64, which one visitor has to himself).
    ///   - isExempt: addresses whose connections count only in all.
    public init(
        connections: Int, connectionsPerAddress: Int,
        isExempt: @escaping @Sendable (SocketAddress) -> Bool = { _ in false }
    ) {
        self.connections = connections
        self.connectionsPerAddress = connectionsPerAddress
        self.isExempt = isExempt
    }

    /// Connections that are open.
    public var count: Int { open.load(ordering: .relaxed) }

    /// Counts a connection, if there is room for it.
    func enter(_ address: SocketAddress?) throws(Refusal) -> Admission {
        guard open.add(1, ordering: .relaxed).newValue <= connections else {
            open.subtract(1, ordering: .relaxed)
            throw .tooManyInAll
        }
        guard let address, !isExempt(address), let key = AddressKey(address) else { return Admission(key: nil) }
        let limit = connectionsPerAddress
        let isAdmitted = shard(of: key).counts.withLock { counts in
            let count = counts[key, default: 0]
            guard count < limit else { return false }
            counts[key] = count + 1
            return true
        }
        guard isAdmitted else {
            open.subtract(1, ordering: .relaxed)
            throw .tooManyFromAddress
        }
        return Admission(key: key)
    }

    /// A connection has closed.
    func leave(_ admission: Admission) {
        open.subtract(1, ordering: .relaxed)
        guard let key = admission.key else { return }
        shard(of: key).counts.withLock { counts in
            guard let count = counts[key] else { return }
            counts[key] = count > 1 ? count - 1 : nil
        }
    }

    private func shard(of key: AddressKey) -> Shard {
        shards[Int(UInt(bitPattern: key.hashValue) % UInt(shards.count))]
    }
}

extension ConnectionLimiter.Refusal: Error {}

/// By what visitors are counted: an IP address; of IPv6 its /64, which one visitor has to himself.
package struct AddressKey: Hashable, Sendable {
    private let high: UInt64
    private let isIPv4: Bool

    package init(_ address: AddressBytes) {
        high = address.high
        isIPv4 = address.bitCount == 32
    }

    package init?(_ address: SocketAddress) {
        guard let address = AddressBytes(address) else { return nil }
        self.init(address)
    }
}
