/// Listening sockets that outlive their listener: so that a successor of this process can be given them, queue and all.
public import NIOCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// A bound TCP or UNIX socket and the descriptor that keeps it. Listeners work on duplicates, so that closing a listener refuses nobody
/// as long as the socket is held here or in another process.
public final class ListeningSocket: Sendable {
    /// To be passed to another process; stays this object's.
    public let descriptor: CInt
    /// Where it is bound.
    public let address: SocketAddress

    /// Takes over a descriptor: closes it in the end, also when this throws.
    /// - Throws: `IOError` when it is no socket that is bound to an address.
    public init(adopting descriptor: CInt) throws {
        do {
            address = try Self.address(of: descriptor)
            // Accepted sockets inherit it, which saves them a system call each.
            if address.port != nil { try Self.set(CInt(TCP_NODELAY), at: CInt(IPPROTO_TCP), on: descriptor) }
        } catch {
            closeDescriptor(descriptor)
            throw error
        }
        self.descriptor = descriptor
    }

    deinit { closeDescriptor(descriptor) }

    /// Binds a TCP socket that other sockets may share its port with (SO_REUSEPORT), as those of several event loops do.
    /// - Parameter isShared: whether other sockets of this user may be bound to the same port.
    /// - Throws: `IOError`.
    public static func bind(to address: SocketAddress, isShared: Bool) throws -> ListeningSocket {
        let descriptor = socket(address.protocol.rawValue, streamType, 0)
        guard descriptor >= 0 else { throw Self.failure("socket") }
        do {
            // Not into programs that this one starts.
            guard fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0 else { throw Self.failure("fcntl") }
            try set(SO_REUSEADDR, on: descriptor)
            if isShared { try set(SO_REUSEPORT, on: descriptor) }
            let isBound = address.withSockAddr { pointer, length in
                systemBind(descriptor, pointer, socklen_t(length)) == 0
            }
            guard isBound else { throw Self.failure("bind") }
        } catch {
            closeDescriptor(descriptor)
            throw error
        }
        return try ListeningSocket(adopting: descriptor)
    }

    /// A descriptor of its own for a listener, which closes it.
    /// - Throws: `IOError`.
    func duplicate() throws -> CInt {
        let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
        guard copy >= 0 else { throw Self.failure("fcntl") }
        return copy
    }

    /// The error of the system call that has just failed.
    private static func failure(_ call: String) -> IOError { IOError(errnoCode: errno, reason: call) }

    private static func set(_ option: CInt, at level: CInt = SOL_SOCKET, on descriptor: CInt) throws {
        var on: CInt = 1
        guard setsockopt(descriptor, level, option, &on, socklen_t(MemoryLayout<CInt>.size)) == 0 else {
            throw Self.failure("setsockopt")
        }
    }

    private static func address(of descriptor: CInt) throws -> SocketAddress {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let isKnown = withUnsafeMutableBytes(of: &storage) { bytes in
            bytes.baseAddress.map { getsockname(descriptor, $0.assumingMemoryBound(to: sockaddr.self), &length) == 0 }
                ?? false
        }
        guard isKnown else { throw Self.failure("getsockname") }
        let family = CInt(storage.ss_family)
        return try withUnsafeBytes(of: &storage) { bytes in
            switch family {
            case AF_INET: SocketAddress(bytes.loadUnaligned(as: sockaddr_in.self))
            case AF_INET6: SocketAddress(bytes.loadUnaligned(as: sockaddr_in6.self))
            default: throw Self.failure("getsockname")
            }
        }
    }
}

#if canImport(Glibc)
private let streamType = CInt(SOCK_STREAM.rawValue)
#else
private let streamType = SOCK_STREAM
#endif

private func closeDescriptor(_ descriptor: CInt) { _ = close(descriptor) }

private func systemBind(_ descriptor: CInt, _ address: UnsafePointer<sockaddr>, _ length: socklen_t) -> CInt {
    bind(descriptor, address, length)
}
