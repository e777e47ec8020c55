/// Recognises requests of one SockJS session, which must all come to the same kite.
import NIOCore

/// The session in a path like `/<server>/<session>/<transport>`.
enum SockJSSession {
    /// A number for the session that a request belongs to; nil where it belongs to none.
    static func hash(in target: ByteBuffer) -> UInt64? {
        let bytes = target.readableBytesView
        let path = bytes[..<(bytes.firstIndex(of: UInt8(ascii: "?")) ?? bytes.endIndex)]
        guard let last = path.lastIndex(of: slash) else { return nil }
        let transport = path[(last + 1)...]
        guard transports.contains(where: { $0.elementsEqual(transport) }) else { return nil }
        guard let middle = path[..<last].lastIndex(of: slash), last - middle > 1 else { return nil }
        guard let first = path[..<middle].lastIndex(of: slash), middle - first > 1 else { return nil }
        return number(path[(middle + 1)..<last])
    }

    /// Where an upstream stands for a session: 0 to 2^40 - 1, the lowest first.
    static func rank(of identity: UInt64, for session: UInt64) -> Int {
        var mixed = identity ^ session
        mixed = (mixed ^ (mixed >> 33)) &* 0xFF51_AFD7_ED55_8CCD
        mixed = (mixed ^ (mixed >> 33)) &* 0xC4CE_B9FE_1A85_EC53
        return Int((mixed ^ (mixed >> 33)) >> 24)
    }

    /// FNV-1a.
    static func number(_ bytes: some Sequence<UInt8>) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return hash
    }

    private static let slash = UInt8(ascii: "/")
    private static let transports = [
        "websocket", "xhr", "xhr_send", "xhr_streaming", "eventsource", "htmlfile", "jsonp", "jsonp_send",
    ].map { Array($0.utf8) }
}
