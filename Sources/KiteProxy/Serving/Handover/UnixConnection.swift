/// A connection over a UNIX socket that can pass descriptors, with calls that block up to a deadline: for a thread of its own.
import Foundation
import NIOCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Closes its descriptor at the end of its life.
final class UnixConnection: Sendable {
    private let descriptor: CInt

    /// Takes a connected descriptor over. No call on it blocks longer than `timeout` seconds.
    init(adopting descriptor: CInt, timeout: Int) {
        self.descriptor = descriptor
        var limit = timeval(tv_sec: timeout, tv_usec: 0)
        let length = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, length)
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, length)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }

    deinit { close(descriptor) }

    /// Connects to a path.
    /// - Throws: `IOError`; ENOENT or ECONNREFUSED when nobody listens there.
    static func connect(to path: String, timeout: Int) throws -> UnixConnection {
        let connection = UnixConnection(adopting: try UnixSocket.make(), timeout: timeout)
        try UnixSocket.withAddress(path) { address, length in
            guard Glibc.connect(connection.descriptor, address, length) == 0 else {
                throw UnixSocket.failure("connect")
            }
        }
        return connection
    }

    /// Ends calls that wait, on whatever thread.
    func end() { shutdown(descriptor, CInt(SHUT_RDWR)) }

    /// Sends bytes, the descriptors beside the first of them.
    /// - Throws: `IOError`.
    func send(_ bytes: [UInt8], descriptors: [CInt] = []) throws {
        var rest = bytes[...]
        var passing = descriptors
        while !rest.isEmpty {
            let count = try sendPart(rest, passing)
            passing = []
            rest = rest.dropFirst(count)
        }
    }

    private func sendPart(_ bytes: ArraySlice<UInt8>, _ descriptors: [CInt]) throws -> Int {
        try bytes.withUnsafeBytes { bytes in
            var vector = iovec(iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count)
            var control = ControlMessage(descriptors)
            let count = withUnsafeMutablePointer(to: &vector) { vector in
                control.withUnsafeMutableBytes { control in
                    var message = msghdr()
                    message.msg_iov = vector
                    message.msg_iovlen = 1
                    message.msg_control = control.baseAddress
                    message.msg_controllen = control.count
                    return sendmsg(descriptor, &message, CInt(MSG_NOSIGNAL))
                }
            }
            guard count > 0 else { throw UnixSocket.failure("sendmsg") }
            return count
        }
    }

    /// Waits for bytes.
    /// - Parameter descriptors: gets those that come along; they are the caller's to close.
    /// - Returns: what arrived; empty at the end of the stream.
    /// - Throws: `IOError`; EAGAIN when the time is over.
    func receive(descriptors: inout [CInt]) throws -> [UInt8] {
        var control = ControlMessage(capacity: HandoverOffer.maximumSockets)
        var bytes = [UInt8](repeating: 0, count: 4096)
        var received = 0
        let length = try bytes.withUnsafeMutableBytes { bytes in
            var vector = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
            let count = withUnsafeMutablePointer(to: &vector) { vector in
                control.withUnsafeMutableBytes { control in
                    var message = msghdr()
                    message.msg_iov = vector
                    message.msg_iovlen = 1
                    message.msg_control = control.baseAddress
                    message.msg_controllen = control.count
                    let count = recvmsg(descriptor, &message, CInt(MSG_CMSG_CLOEXEC))
                    received = Int(message.msg_controllen)
                    return count
                }
            }
            guard count >= 0 else { throw UnixSocket.failure("recvmsg") }
            return count
        }
        descriptors += control.descriptors(in: received)
        return Array(bytes.prefix(length))
    }

    /// Waits for a line.
    /// - Throws: `IOError`; EPROTO when what comes is longer than `limit` or the stream ends before.
    func receiveLine(limit: Int, descriptors: inout [CInt]) throws -> [UInt8] {
        var line: [UInt8] = []
        while line.last != UInt8(ascii: "\n") {
            let part = try receive(descriptors: &descriptors)
            line += part
            guard !part.isEmpty, line.count <= limit else { throw IOError(errnoCode: EPROTO, reason: "handover") }
        }
        return line
    }
}

/// One control message with descriptors (unix(7)), laid out as `struct cmsghdr` is on 64-bit Linux: the length in one word, level and type
/// in the next, then the descriptors.
private struct ControlMessage {
    private static let headerBytes = 16
    private static let descriptorBytes = MemoryLayout<CInt>.size
    private var words: [UInt64]
    /// In bytes.
    private let count: Int

    /// To be sent; nothing at all without descriptors.
    init(_ descriptors: [CInt]) {
        count = descriptors.isEmpty ? 0 : Self.headerBytes + Self.descriptorBytes * descriptors.count
        words = [UInt64](repeating: 0, count: (count + 7) / 8)
        guard !descriptors.isEmpty else { return }
        let count = count
        words.withUnsafeMutableBytes { bytes in
            bytes.storeBytes(of: UInt64(count), as: UInt64.self)
            bytes.storeBytes(of: SOL_SOCKET, toByteOffset: 8, as: CInt.self)
            bytes.storeBytes(of: CInt(SCM_RIGHTS), toByteOffset: 12, as: CInt.self)
            for (index, descriptor) in descriptors.enumerated() {
                bytes.storeBytes(
                    of: descriptor, toByteOffset: Self.headerBytes + index * Self.descriptorBytes, as: CInt.self)
            }
        }
    }

    /// To be received.
    init(capacity: Int) {
        words = [UInt64](repeating: 0, count: (Self.headerBytes + Self.descriptorBytes * capacity + 7) / 8)
        count = words.count * 8
    }

    mutating func withUnsafeMutableBytes<Result>(_ body: (UnsafeMutableRawBufferPointer) -> Result) -> Result {
        let count = count
        return words.withUnsafeMutableBytes { body(UnsafeMutableRawBufferPointer(rebasing: $0.prefix(count))) }
    }

    /// The descriptors in what was received.
    func descriptors(in length: Int) -> [CInt] {
        guard length > Self.headerBytes else { return [] }
        return words.withUnsafeBytes { bytes in
            let end = min(Int(clamping: bytes.loadUnaligned(as: UInt64.self)), length, bytes.count)
            guard bytes.loadUnaligned(fromByteOffset: 8, as: CInt.self) == SOL_SOCKET,
                bytes.loadUnaligned(fromByteOffset: 12, as: CInt.self) == CInt(SCM_RIGHTS)
            else { return [] }
            return stride(from: Self.headerBytes, to: end - Self.descriptorBytes + 1, by: Self.descriptorBytes).map {
                bytes.loadUnaligned(fromByteOffset: $0, as: CInt.self)
            }
        }
    }
}

/// What is needed to have UNIX sockets by path.
enum UnixSocket {
    /// A stream socket that programs this one starts do not get.
    static func make() throws -> CInt {
        let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw failure("socket") }
        return descriptor
    }

    static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) throws -> Void) throws {
        let address = try SocketAddress(unixDomainSocketPath: path)
        try address.withSockAddr { try body($0, socklen_t($1)) }
    }

    /// The error of the system call that has just failed.
    static func failure(_ call: String) -> IOError { IOError(errnoCode: errno, reason: call) }
}
