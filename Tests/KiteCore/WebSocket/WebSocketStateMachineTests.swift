// Fragmentation, text validation and the closing handshake, as tables of what is received and what is to be done.
import NIOCore
import Testing

@testable import KiteWebSocket

@Suite struct WebSocketStateMachineTests {
    typealias Action = WebSocketStateMachine.Action

    static func server(_ limits: WebSocketLimits = WebSocketLimits(messageBytes: 100, fragments: 5))
        -> WebSocketStateMachine
    {
        WebSocketStateMachine(role: .server, limits: limits)
    }

    static func frame(_ first: UInt8, _ payload: [UInt8]) -> [UInt8] {
        rawFrame(first, payload, key: WebSocketFrameTests.key)
    }
    static func frame(_ first: UInt8, _ text: String) -> [UInt8] { frame(first, Array(text.utf8)) }

    static func actions(_ machine: inout WebSocketStateMachine, _ bytes: [UInt8]) -> [Action] {
        machine.receive(ByteBuffer(bytes: bytes))
        var all: [Action] = []
        while true {
            let action = machine.next()
            if action == .none { return all }
            all.append(action)
        }
    }

    static func failure(_ action: Action?) -> UInt16? {
        if case .fail(let error, let frame) = action {
            var frame = frame
            // The close frame says the same.
            guard frame.readInteger(as: UInt16.self).map({ $0 & 0xFF00 }) == 0x8800 else { return nil }
            #expect(frame.readInteger(as: UInt16.self) == error.code.rawValue)
            return error.code.rawValue
        }
        return nil
    }

    @Test func fragmentsAreJoinedAroundControlFrames() {
        var machine = Self.server()
        let bytes =
            Self.frame(0x01, "He") + Self.frame(0x89, "p") + Self.frame(0x00, "l") + Self.frame(0x8A, "")
            + Self.frame(0x80, "lo") + Self.frame(0x82, [0xFF])
        #expect(
            Self.actions(&machine, bytes) == [
                .answerPing(ByteBuffer(string: "p")), .receivedPong, .deliver(.text(ByteBuffer(string: "Hello"))),
                .deliver(.binary(ByteBuffer(bytes: [0xFF]))),
            ])
    }

    @Test func charactersMayBeCutByFragments() {
        let euro = Array("€".utf8)
        var machine = Self.server()
        #expect(
            Self.actions(
                &machine, Self.frame(0x01, [euro[0]]) + Self.frame(0x00, []) + Self.frame(0x80, Array(euro[1...])))
                == [.deliver(.text(ByteBuffer(string: "€")))])
    }

    @Test(arguments: [
        ("continuation of nothing", frame(0x80, "x"), 1002),
        ("text within a message", frame(0x01, "x") + frame(0x81, "y"), 1002),
        ("binary within a message", frame(0x02, "x") + frame(0x02, "y"), 1002),
        ("invalid UTF-8", frame(0x81, [0xC0, 0x80]), 1007),
        ("surrogate", frame(0x81, [0xED, 0xA0, 0x80]), 1007),
        ("cut character at the end", frame(0x81, [0xE2, 0x82]), 1007),
        ("invalid in an unfinished message", frame(0x01, [0xFF]), 1007),
        ("cut character at the end of the last fragment", frame(0x01, [0xE2]) + frame(0x80, [0x82]), 1007),
        ("frame over the limit", frame(0x82, [UInt8](repeating: 0, count: 101)), 1009),
        (
            "fragments over the limit",
            frame(0x02, [UInt8](repeating: 0, count: 60)) + frame(0x80, [UInt8](repeating: 0, count: 41)), 1009
        ),
        ("too many fragments", frame(0x02, "") + (0..<5).flatMap { _ in frame(0x00, "") }, 1008),
        ("close with half a code", frame(0x88, [3]), 1002),
        ("close 1005", frame(0x88, [0x03, 0xED]), 1002),
        ("close 1006", frame(0x88, [0x03, 0xEE]), 1002),
        ("close 1015", frame(0x88, [0x03, 0xF7]), 1002),
        ("close 999", frame(0x88, [0x03, 0xE7]), 1002),
        ("close 2999", frame(0x88, [0x0B, 0xB7]), 1002),
        ("close 5000", frame(0x88, [0x13, 0x88]), 1002),
        ("close with invalid reason", frame(0x88, [0x03, 0xE8, 0xFF]), 1007),
        ("close with cut reason", frame(0x88, [0x03, 0xE8, 0xC3]), 1007),
    ])
    func failures(_ name: String, _ bytes: [UInt8], _ code: Int) {
        var machine = Self.server()
        let actions = Self.actions(&machine, bytes)
        #expect(Self.failure(actions.last) == UInt16(code))
        #expect(machine.isClosed)
        #expect(Self.actions(&machine, Self.frame(0x81, "later")).isEmpty)
    }

    @Test func limitsAreInclusive() {
        var machine = Self.server()
        let five = Self.frame(0x02, "a") + (0..<3).flatMap { _ in Self.frame(0x00, "b") } + Self.frame(0x80, "c")
        #expect(Self.actions(&machine, five) == [.deliver(.binary(ByteBuffer(string: "abbbc")))])
        let hundred = [UInt8](repeating: 1, count: 100)
        #expect(Self.actions(&machine, Self.frame(0x82, hundred)) == [.deliver(.binary(ByteBuffer(bytes: hundred)))])
    }

    @Test(arguments: [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999]) func closeIsEchoed(_ code: UInt16) {
        var machine = Self.server()
        let payload = [UInt8(code >> 8), UInt8(code & 0xFF)] + Array("why".utf8)
        #expect(
            Self.actions(&machine, Self.frame(0x88, payload) + Self.frame(0x81, "late")) == [
                .answerClose(
                    WebSocketClosure(code: WebSocketCloseCode(rawValue: code), reason: "why", isClean: true),
                    frame: ByteBuffer(bytes: [0x88, 2, UInt8(code >> 8), UInt8(code & 0xFF)]))
            ])
        #expect(machine.close(.normal, reason: "") == nil)
        #expect(machine.inputClosed() == nil)
    }

    @Test func closeWithoutACodeIsEchoedWithoutOne() {
        var machine = Self.server()
        #expect(
            Self.actions(&machine, Self.frame(0x88, "")) == [
                .answerClose(
                    WebSocketClosure(code: .none, reason: "", isClean: true), frame: ByteBuffer(bytes: [0x88, 0]))
            ])
    }

    @Test func ourCloseIsAnsweredAndWhatComesBeforeIsDropped() {
        var machine = Self.server()
        #expect(
            machine.close(WebSocketCloseCode(rawValue: 3000), reason: "Go away!")
                == ByteBuffer(bytes: [0x88, 10, 0x0B, 0xB8] + Array("Go away!".utf8)))
        #expect(machine.close(.normal, reason: "again") == nil)
        var output = ByteBuffer()
        machine.encode(.text, payload: ByteBuffer(string: "late"), into: &output)
        #expect(output.readableBytes == 0)
        #expect(
            Self.actions(&machine, Self.frame(0x81, "x") + Self.frame(0x89, "") + Self.frame(0x88, [0x0B, 0xB8])) == [
                .finish(WebSocketClosure(code: WebSocketCloseCode(rawValue: 3000), reason: "", isClean: true))
            ])
        #expect(machine.isClosed)
    }

    @Test func aFailureAfterOurCloseSendsNothing() {
        var machine = Self.server()
        _ = machine.close(.normal, reason: "")
        guard case .fail(_, let frame) = Self.actions(&machine, [0xFF, 0xFF]).first else {
            Issue.record("must fail")
            return
        }
        #expect(frame.readableBytes == 0)
    }

    @Test func endOfInputWithoutACloseFrameIsAbnormal() {
        var machine = Self.server()
        #expect(machine.inputClosed() == .lost)
        #expect(machine.inputClosed() == nil)
    }

    @Test(arguments: [
        (1005, 0), (1006, 1000), (1015, 1000), (2010, 1000), (0, 1000), (65535, 1000), (1001, 1001), (4001, 4001),
    ])
    func codesThatMayNotBeSentAreReplaced(_ code: UInt16, _ sent: UInt16) {
        var machine = Self.server()
        var frame = machine.close(WebSocketCloseCode(rawValue: code), reason: "") ?? ByteBuffer()
        #expect(frame.readInteger(as: UInt8.self) == 0x88)
        #expect(frame.readInteger(as: UInt8.self) == (sent == 0 ? 0 : 2))
        #expect(frame.readInteger(as: UInt16.self) ?? 0 == sent)
    }

    @Test func aLongReasonIsCutAtACharacter() {
        var machine = Self.server()
        var frame = machine.close(.normal, reason: String(repeating: "€", count: 100)) ?? ByteBuffer()
        frame.moveReaderIndex(forwardBy: 4)
        #expect(String(validating: frame.readableBytesView, as: UTF8.self) == String(repeating: "€", count: 41))
    }
}

/// What is refused before all of it has arrived.
@Suite struct WebSocketEarlyRefusalTests {
    static let limits = WebSocketLimits(messageBytes: 100, fragments: 5)

    /// How many bytes of a frame were taken before the machine had enough; nil when it took all of them.
    static func refusedAfter(_ bytes: [UInt8], _ role: WebSocketRole, before: [UInt8] = []) -> (
        count: Int, code: UInt16
    )? {
        var machine = WebSocketStateMachine(role: role, limits: limits)
        machine.receive(ByteBuffer(bytes: before))
        while case let action = machine.next(), action != .none {
            if case .fail = action { return (0, 0) }
        }
        for (position, byte) in bytes.enumerated() {
            machine.receive(ByteBuffer(bytes: [byte]))
            if case .fail(let error, _) = machine.next() { return (position + 1, error.code.rawValue) }
        }
        return nil
    }

    static func frame(_ role: WebSocketRole, _ first: UInt8, _ payload: [UInt8]) -> [UInt8] {
        rawFrame(first, payload, key: role == .server ? WebSocketFrameTests.key : nil)
    }

    @Test(arguments: [WebSocketRole.server, .client]) func textAtItsFirstWrongByte(_ role: WebSocketRole) {
        let header = role == .server ? 6 : 2
        for (payload, wrong) in [
            ([0x61, 0x62, 0xFF, 0x63, 0x64], 3), ([0xE2, 0x82, 0xAC, 0xE2, 0x28, 0xA1, 0x61], 5),
            ([0xF4, 0x90, 0x80, 0x80], 2), ([0xC0, 0xAF], 1), ([0xED, 0xA0, 0x80], 2),
        ] as [([UInt8], Int)] {
            let whole = Self.refusedAfter(Self.frame(role, 0x81, payload), role)
            #expect(whole?.count == header + wrong)
            #expect(whole?.code == 1007)
            // The same in a continuation, also when the character had begun in the fragment before.
            let start = Self.frame(role, 0x01, Array("x".utf8))
            #expect(Self.refusedAfter(Self.frame(role, 0x80, payload), role, before: start)?.count == header + wrong)
            if wrong > 1 {
                let cut = Self.refusedAfter(
                    Self.frame(role, 0x00, Array(payload[1...])), role, before: Self.frame(role, 0x01, [payload[0]]))
                #expect(cut?.count == header + wrong - 1)
            }
        }
    }

    @Test(arguments: [WebSocketRole.server, .client]) func soundTextInAnyPieces(_ role: WebSocketRole) {
        let text = "kites: 風箏 🪁 – драко́н"
        let bytes = Array(text.utf8)
        for cut in 0...bytes.count {
            var machine = WebSocketStateMachine(role: role, limits: Self.limits)
            var delivered: [WebSocketStateMachine.Action] = []
            let frames =
                Self.frame(role, 0x01, Array(bytes[..<cut])) + Self.frame(role, 0x80, Array(bytes[cut...]))
                + Self.frame(role, 0x81, bytes)
            for byte in frames {
                machine.receive(ByteBuffer(bytes: [byte]))
                while case let action = machine.next(), action != .none { delivered.append(action) }
            }
            let message = WebSocketStateMachine.Action.deliver(.text(ByteBuffer(string: text)))
            #expect(delivered == [message, message])
        }
    }

    /// A frame that will be too long is not waited for.
    @Test(arguments: [WebSocketRole.server, .client]) func lengthsAtTheHeader(_ role: WebSocketRole) {
        let payload = [UInt8](repeating: 0x61, count: 90)
        let first = Self.frame(role, 0x01, payload)
        let header = role == .server ? 6 : 2
        let refused = Self.refusedAfter(
            Self.frame(role, 0x80, [UInt8](repeating: 0x61, count: 11)), role, before: first)
        #expect(refused?.count == header)
        #expect(refused?.code == 1009)
        #expect(
            Self.refusedAfter(Self.frame(role, 0x80, [UInt8](repeating: 0x61, count: 10)), role, before: first) == nil)
    }

    /// A message may be as long as it likes after a long one in the same read: what is left for the one does not count for the other.
    @Test func roomIsCountedPerMessage() {
        let payload = [UInt8](repeating: 0x61, count: 90)
        var machine = WebSocketStateMachine(role: .server, limits: Self.limits)
        let bytes =
            Self.frame(.server, 0x01, payload) + Self.frame(.server, 0x80, []) + Self.frame(.server, 0x81, payload)
            + Self.frame(.server, 0x01, payload)
        let message = WebSocketStateMachine.Action.deliver(.text(ByteBuffer(bytes: payload)))
        #expect(WebSocketStateMachineTests.actions(&machine, bytes) == [message, message])
        #expect(
            WebSocketStateMachineTests.actions(
                &machine, Self.frame(.server, 0x80, []) + Self.frame(.server, 0x81, payload)) == [message, message])
    }
}
