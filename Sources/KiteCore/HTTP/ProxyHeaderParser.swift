/// The PROXY protocol, versions 1 and 2: a load balancer that passes bytes on says in front of them for whom it does so.
/// (The specification is HAProxy's `proxy-protocol.txt`.)
package import NIOCore

/// What a header says.
package struct ProxyHeader: Sendable, Hashable {
    /// Who connected to the load balancer; nil where it speaks for itself (LOCAL) or does not know an IP address.
    package var source: SocketAddress?
    /// What was connected to.
    package var destination: SocketAddress?

    package init(source: SocketAddress? = nil, destination: SocketAddress? = nil) {
        self.source = source
        self.destination = destination
    }
}

/// Why a connection does not begin as it must.
package struct ProxyHeaderError: Error, Sendable, Hashable, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}

/// Sans-I/O. Reads the header at the beginning of a connection; what follows it is left alone.
package struct ProxyHeaderParser {
    package enum Outcome: Sendable, Hashable {
        case incomplete
        /// - Parameter length: bytes of the header, which are no part of the connection's content.
        case header(ProxyHeader, length: Int)
        case failed(ProxyHeaderError)
    }

    /// Bytes of a header of version 2, its additions (TLVs) included; they are skipped.
    package static let maximumBytes = 4096
    /// A line of version 1 with its end.
    private static let maximumLine = 107
    private static let signature: [UInt8] = [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10]
    private static let word: [UInt8] = Array("PROXY ".utf8)

    /// Looks at all bytes received so far.
    package static func parse(_ bytes: ByteBuffer) -> Outcome {
        bytes.withUnsafeReadableBytes { bytes in
            do throws(ProxyHeaderError) {
                if begins(bytes, with: signature) {
                    return bytes.count < signature.count ? .incomplete : try parseBinary(bytes)
                }
                if begins(bytes, with: word) { return bytes.count < word.count ? .incomplete : try parseLine(bytes) }
                throw ProxyHeaderError("there is no header")
            } catch {
                return .failed(error)
            }
        }
    }

    private static func begins(_ bytes: UnsafeRawBufferPointer, with prefix: [UInt8]) -> Bool {
        bytes.prefix(prefix.count).elementsEqual(prefix.prefix(bytes.count))
    }

    // MARK: Version 1

    private static func parseLine(_ bytes: UnsafeRawBufferPointer) throws(ProxyHeaderError) -> Outcome {
        guard let end = bytes.prefix(maximumLine).firstIndex(of: 10) else {
            guard bytes.count < maximumLine else { throw ProxyHeaderError("a line that is too long") }
            return .incomplete
        }
        guard end > 0, bytes[end - 1] == 13, !bytes[..<(end - 1)].contains(where: { $0 < 0x20 || $0 > 0x7E }) else {
            throw ProxyHeaderError("a line that does not end in CR LF, or has other control characters in it")
        }
        let line = String(decoding: bytes[word.count..<(end - 1)], as: UTF8.self)
        let parts = line.split(separator: " ", omittingEmptySubsequences: false)
        let length = end + 1
        switch parts.first {
        case "UNKNOWN": return .header(ProxyHeader(), length: length)
        case "TCP4", "TCP6":
            guard parts.count == 5 else { throw ProxyHeaderError("a line with other than five parts") }
            let isVersion6 = parts[0] == "TCP6"
            return .header(
                ProxyHeader(
                    source: try address(parts[1], port: parts[3], isVersion6: isVersion6),
                    destination: try address(parts[2], port: parts[4], isVersion6: isVersion6)), length: length)
        default: throw ProxyHeaderError("an unknown protocol")
        }
    }

    private static func address(_ text: Substring, port: Substring, isVersion6: Bool) throws(ProxyHeaderError)
        -> SocketAddress
    {
        // As inet_pton reads it, which knows no octal numbers and no interfaces; decimal ports without sign or leading zero.
        guard text.utf8.count <= 39, !text.contains("%"),
            (1...5).contains(port.utf8.count), port.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            port == "0" || port.first != "0", let number = Int(port), number <= 65535,
            let address = try? SocketAddress(ipAddress: String(text), port: number)
        else { throw ProxyHeaderError("an address or port that is none") }
        switch address {
        case .v4 where !isVersion6, .v6 where isVersion6: return address
        default: throw ProxyHeaderError("an address of another family")
        }
    }

    // MARK: Version 2

    private static func parseBinary(_ bytes: UnsafeRawBufferPointer) throws(ProxyHeaderError) -> Outcome {
        guard bytes.count >= 13 else { return .incomplete }
        guard bytes[12] >> 4 == 2 else { throw ProxyHeaderError("an unknown version") }
        let command = bytes[12] & 15
        guard command <= 1 else { throw ProxyHeaderError("an unknown command") }
        guard bytes.count >= 16 else { return .incomplete }
        let size = Int(bytes[14]) << 8 | Int(bytes[15])
        let length = 16 + size
        guard length <= maximumBytes else { throw ProxyHeaderError("a header that is too long") }
        guard bytes.count >= length else { return .incomplete }
        // A health check of the load balancer itself; whatever else stands there is to be ignored.
        guard command == 1 else { return .header(ProxyHeader(), length: length) }
        switch bytes[13] {
        case 0x00: return .header(ProxyHeader(), length: length)
        case 0x11: return .header(try addresses(bytes, size: size, width: 4), length: length)
        case 0x21: return .header(try addresses(bytes, size: size, width: 16), length: length)
        case 0x31:
            guard size >= 216 else { throw ProxyHeaderError("addresses that are cut off") }
            return .header(ProxyHeader(), length: length)
        default: throw ProxyHeaderError("an unknown address family or protocol")
        }
    }

    private static func addresses(_ bytes: UnsafeRawBufferPointer, size: Int, width: Int) throws(ProxyHeaderError)
        -> ProxyHeader
    {
        guard size >= 2 * width + 4 else { throw ProxyHeaderError("addresses that are cut off") }
        let ports = 16 + 2 * width
        func address(_ start: Int, _ port: Int) -> SocketAddress? {
            try? SocketAddress(
                packedIPAddress: ByteBuffer(bytes: bytes[start..<start + width]),
                port: Int(bytes[port]) << 8 | Int(bytes[port + 1]))
        }
        guard let source = address(16, ports), let destination = address(16 + width, ports + 2) else {
            throw ProxyHeaderError("an address that is none")
        }
        return ProxyHeader(source: source, destination: destination)
    }
}
