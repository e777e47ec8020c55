/// IP addresses and ranges of them: visitors, proxies that are trusted, and targets that are not allowed.
package import NIOCore

/// A range of IP addresses in CIDR form. IPv4 addresses mapped into IPv6 count as IPv4.
package struct AddressRange: Sendable, Hashable, CustomStringConvertible {
    private let address: AddressBytes
    private let prefixLength: Int

    /// Reads `10.0.0.0/8`, `2001:db8::/32` or a single address. Nil when it is none of them; bits beyond the prefix are ignored.
    package init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = parts.first, let address = AddressBytes(String(first)) else { return nil }
        self.address = address
        // An IPv4 address written as an IPv6 one: the first 96 bits are not part of it.
        let mappedBits = address.bitCount == 32 && first.contains(":") ? 96 : 0
        if parts.count == 2 {
            guard parts[1].allSatisfy(\.isASCII), parts[1].allSatisfy(\.isNumber), let length = Int(parts[1]),
                (mappedBits...mappedBits + address.bitCount).contains(length)
            else { return nil }
            prefixLength = length - mappedBits
        } else {
            prefixLength = address.bitCount
        }
    }

    /// Whether a socket address lies in the range; false for UNIX sockets.
    package func contains(_ socketAddress: SocketAddress) -> Bool {
        AddressBytes(socketAddress).map(contains) ?? false
    }

    package func contains(_ other: AddressBytes) -> Bool {
        address.bitCount == other.bitCount && address.sharesPrefix(of: prefixLength, with: other)
    }

    package var description: String { "\(address)/\(prefixLength)" }
}

/// The 32 or 128 bits of an IP address. An IPv4 address is the same however it is written: a listener for both families sees it mapped
/// into IPv6 (RFC 4291 section 2.5.5.2).
package struct AddressBytes: Sendable, Hashable, CustomStringConvertible {
    /// 32 or 128.
    package let bitCount: Int
    /// The first 64 bits; those of IPv4 stand in its upper half.
    let high: UInt64
    let low: UInt64

    init(ipv4: UInt32) {
        bitCount = 32
        high = UInt64(ipv4) << 32
        low = 0
    }

    init(high: UInt64, low: UInt64) {
        if high == 0, low >> 32 == 0xFFFF {
            self.init(ipv4: UInt32(truncatingIfNeeded: low))
        } else {
            self.init(bitCount: 128, high: high, low: low)
        }
    }

    private init(bitCount: Int, high: UInt64, low: UInt64) {
        self.bitCount = bitCount
        self.high = high
        self.low = low
    }

    /// An IP literal, without brackets or zone.
    package init?(_ text: String) {
        guard let address = try? SocketAddress(ipAddress: text, port: 0) else { return nil }
        self.init(address)
    }

    /// An IP literal as it stands in a field; nothing is allocated for IPv4.
    init?(literal: ByteBufferView) {
        if let ipv4 = Self.ipv4(literal) {
            self.init(ipv4: ipv4)
        } else {
            // The longest: IPv6 that ends with IPv4 (`INET6_ADDRSTRLEN` without its zero).
            guard literal.count <= 45, literal.contains(UInt8(ascii: ":")) else { return nil }
            self.init(String(decoding: literal, as: UTF8.self))
        }
    }

    /// Four decimal numbers without leading zeros, as `inet_pton` reads them.
    private static func ipv4(_ literal: ByteBufferView) -> UInt32? {
        guard literal.count <= 15 else { return nil }
        var (address, number, digits, points): (UInt32, UInt32, Int, Int) = (0, 0, 0, 0)
        for byte in literal {
            switch byte {
            case 0x30...0x39:
                guard digits == 0 || number > 0 else { return nil }
                number = number * 10 + UInt32(byte - 0x30)
                digits += 1
                guard number <= 255 else { return nil }
            case UInt8(ascii: "."):
                guard digits > 0, points < 3 else { return nil }
                address = address << 8 | number
                (number, digits, points) = (0, 0, points + 1)
            default: return nil
            }
        }
        return digits > 0 && points == 3 ? address << 8 | number : nil
    }

    package init?(_ socketAddress: SocketAddress) {
        // The address's place in sockaddr_in and sockaddr_in6.
        switch socketAddress {
        case .v4:
            self.init(
                ipv4: socketAddress.withSockAddr { pointer, _ in
                    UInt32(bigEndian: UnsafeRawPointer(pointer).loadUnaligned(fromByteOffset: 4, as: UInt32.self))
                })
        case .v6:
            let words = socketAddress.withSockAddr { pointer, _ in
                (
                    UnsafeRawPointer(pointer).loadUnaligned(fromByteOffset: 8, as: UInt64.self),
                    UnsafeRawPointer(pointer).loadUnaligned(fromByteOffset: 16, as: UInt64.self)
                )
            }
            self.init(high: UInt64(bigEndian: words.0), low: UInt64(bigEndian: words.1))
        case .unixDomainSocket:
            return nil
        }
    }

    func sharesPrefix(of length: Int, with other: AddressBytes) -> Bool {
        func differs(_ mine: UInt64, _ theirs: UInt64, _ bits: Int) -> Bool {
            bits > 0 && (mine ^ theirs) >> UInt64(64 - min(bits, 64)) != 0
        }
        return !differs(high, other.high, length) && !differs(low, other.low, length - 64)
    }

    package var description: String {
        if bitCount == 32 {
            return (0..<4).map { String((high >> UInt64(56 - 8 * $0)) & 0xFF) }.joined(separator: ".")
        }
        return (0..<8).map { index in
            String(((index < 4 ? high : low) >> UInt64(48 - 16 * (index % 4))) & 0xFFFF, radix: 16)
        }.joined(separator: ":")
    }
}
