/// Who a request comes from, by its connection and by what proxies in front of the gateway say.
import NIOCore

/// The visitor's address, read in one way for limits, rules, passwords and what services are told.
enum VisitorAddress {
    /// That of the connection, where it has one.
    case connection
    /// What a proxy that is believed says.
    /// - Parameter text: the address as it is written, without brackets and port.
    case said(AddressBytes, text: ByteBufferView)
    /// What a proxy says is no address.
    case unknown

    /// An address as proxies write it: also in brackets, and with a port.
    fileprivate init(_ member: ByteBufferView) {
        guard let text = Self.literal(member), let address = AddressBytes(literal: text) else {
            self = .unknown
            return
        }
        self = .said(address, text: text)
    }

    private static func literal(_ member: ByteBufferView) -> ByteBufferView? {
        let colon = UInt8(ascii: ":")
        var literal = member
        var port: ByteBufferView?
        if member.first == UInt8(ascii: "[") {
            guard let end = member.firstIndex(of: UInt8(ascii: "]")) else { return nil }
            let rest = member[(end + 1)...]
            guard rest.isEmpty || rest.first == colon else { return nil }
            if !rest.isEmpty { port = rest.dropFirst() }
            literal = member[member.startIndex..<end].dropFirst()
        } else if member.contains(UInt8(ascii: ".")), let first = member.firstIndex(of: colon),
            first == member.lastIndex(of: colon)
        {
            port = member[(first + 1)...]
            literal = member[..<first]
        }
        if let port { guard port.count <= 5, port.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil } }
        return literal
    }
}

extension ExchangePeer {
    /// The address a request comes from: that of the connection; behind trusted proxies the last address in `X-Forwarded-For` that is none
    /// of theirs (what stands before it anybody can have written), else `X-Real-IP`, which many proxies pass on from anybody, else that of
    /// the connection. Nil where what the fields say is no address, and where the connection has none.
    package func visitorAddress(of request: RequestHead) -> AddressBytes? {
        switch visitor(in: request.fields) {
        case .connection: address.flatMap(AddressBytes.init)
        case .said(let address, _): address
        case .unknown: nil
        }
    }

    /// By what the visitor who sent a request is counted; nil where the address is not known.
    package func visitorKey(of request: RequestHead) -> AddressKey? { visitorAddress(of: request).map(AddressKey.init) }

    /// The same as ``visitorAddress(of:)``, as it is written.
    func visitor(in fields: HeaderBlock) -> VisitorAddress {
        guard isTrustedProxy else { return .connection }
        let isSaid = fields.has(.xForwardedFor)
        guard isSaid, !(isGateway && fields.has(.xRealIP)) else {
            return fields.first(.xRealIP).map(VisitorAddress.init) ?? .connection
        }
        var last = VisitorAddress.unknown
        for position in (0..<fields.count).reversed() where fields.field(at: position) == .xForwardedFor {
            var rest = fields.value(at: position)
            while true {
                let comma = rest.lastIndex(of: UInt8(ascii: ","))
                let member = (comma.map { rest[($0 + 1)...] } ?? rest).trimmingWhitespace()
                // A list may have empty members, which mean nothing (RFC 9110 section 5.6.1).
                if !member.isEmpty {
                    last = VisitorAddress(member)
                    // What is no address came through somebody unknown, and so did whatever stands further left.
                    guard case .said(let address, _) = last,
                        trustedProxies.contains(where: { $0.contains(address) })
                    else { return last }
                }
                guard let comma else { break }
                rest = rest[..<comma]
            }
        }
        return last
    }
}
