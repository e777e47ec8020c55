/// Makes sure that nobody listens on a port yet. Our listeners share theirs among event loops (SO_REUSEPORT), so that a second process of
/// the same user would take a part of the connections instead of failing.
import Foundation
import KiteCommand
import NIOCore

enum PortCheck {
    /// Whether an address can be had for oneself alone at this moment.
    /// - Returns: nil, or the error number.
    static func problem(with address: SocketAddress) -> Int32? {
        let family = address.protocol.rawValue
        let handle = socket(family, Int32(SOCK_STREAM.rawValue), 0)
        guard handle >= 0 else { return errno }
        defer { close(handle) }
        var on: Int32 = 1
        // As our listeners: what a process before us left in TIME_WAIT does not matter; another listener does.
        setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        return address.withSockAddr { pointer, length in
            bind(handle, pointer, socklen_t(length)) == 0 && listen(handle, 1) == 0 ? nil : errno
        }
    }

    /// - Throws: ``CommandFailure`` naming the address, the setting and the cure.
    static func require(_ address: ListenAddress, key: String) async throws {
        let socketAddress = try await address.resolved(key: key)
        guard address.port != 0, let number = problem(with: socketAddress) else { return }
        throw CommandFailure.listening(on: address, key: key, IOError(errnoCode: number, reason: "bind"))
    }
}

extension ListenAddress {
    /// The socket address of the host.
    /// - Throws: ``CommandFailure`` naming the address and the setting.
    func resolved(key: String) async throws -> SocketAddress {
        do {
            return try await resolve()
        } catch {
            throw CommandFailure(
                .failed, "cannot listen on \(self) (\(key)): this machine knows no host `\(host)`")
        }
    }
}
