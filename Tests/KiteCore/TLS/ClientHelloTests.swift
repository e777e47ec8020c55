import KiteTLS
import NIOCore
import Testing

/// Writes ClientHellos, right and wrong ones.
struct HelloWriter {
    var version: UInt16 = 0x0303
    var sessionID: [UInt8] = []
    var suites: [UInt16] = [0x1301, 0xC02B, 0xC02F]
    var compressions: [UInt8] = [0]
    var extensions: [(UInt16, [UInt8])] = []

    static func number(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }
    static func vector8(_ bytes: [UInt8]) -> [UInt8] { [UInt8(bytes.count & 255)] + bytes }
    static func vector16(_ bytes: [UInt8]) -> [UInt8] { number(bytes.count) + bytes }
    static func serverName(_ name: String) -> (UInt16, [UInt8]) {
        (0, vector16([0] + vector16(Array(name.utf8))))
    }
    static func protocols(_ names: String...) -> (UInt16, [UInt8]) {
        (16, vector16(names.flatMap { vector8(Array($0.utf8)) }))
    }
    static func numbers(_ type: UInt16, _ values: [Int]) -> (UInt16, [UInt8]) {
        (type, vector16(values.flatMap(number)))
    }
    static func versions(_ values: Int...) -> (UInt16, [UInt8]) { (43, vector8(values.flatMap(number))) }

    /// What a browser of today sends, in short.
    static var modern: HelloWriter {
        var writer = HelloWriter()
        writer.sessionID = Array(repeating: 7, count: 32)
        writer.extensions = [
            serverName("Gate.Example.com"), numbers(10, [0x11EC, 29, 23, 24]),
            numbers(13, [0x0403, 0x0804, 0x0401, 0x0503]), protocols("h2", "http/1.1"),
            versions(0x0A0A, 0x0304, 0x0303),
        ]
        return writer
    }

    var body: [UInt8] {
        var body = Self.number(Int(version)) + Array(repeating: 9, count: 32) + Self.vector8(sessionID)
        body += Self.vector16(suites.flatMap { Self.number(Int($0)) }) + Self.vector8(compressions)
        if !extensions.isEmpty {
            body += Self.vector16(extensions.flatMap { Self.number(Int($0.0)) + Self.vector16($0.1) })
        }
        return body
    }

    static func message(_ body: [UInt8]) -> [UInt8] {
        [1, UInt8(body.count >> 16)] + number(body.count & 0xFFFF) + body
    }
    static func record(_ fragment: [UInt8], type: UInt8 = 22) -> [UInt8] { [type, 3, 1] + vector16(fragment) }
    var bytes: [UInt8] { Self.record(Self.message(body)) }
}

func parse(_ bytes: [UInt8]) -> ClientHelloParser.Outcome {
    var parser = ClientHelloParser()
    return parser.receive(ByteBuffer(bytes: bytes))
}

struct ClientHelloTests {
    @Test func readsWhatBrowsersSend() {
        guard case .hello(let hello) = parse(HelloWriter.modern.bytes) else { return #expect(Bool(false)) }
        #expect(hello.serverName == "gate.example.com")
        #expect(hello.applicationProtocols == ["h2", "http/1.1"])
        #expect(hello.versions == [.tls12, .tls13])
        #expect(hello.keys == [.p256, .p384, .rsa])
    }

    @Test func sameOutcomeHoweverItIsCut() {
        let bytes = HelloWriter.modern.bytes
        let whole = parse(bytes)
        for cut in 1..<bytes.count {
            var parser = ClientHelloParser()
            #expect(parser.receive(ByteBuffer(bytes: bytes[..<cut])) == .incomplete, "cut at \(cut)")
            #expect(parser.receive(ByteBuffer(bytes: bytes[cut...])) == whole, "cut at \(cut)")
            #expect(Array(parser.takeBytes().readableBytesView) == bytes)
        }
        var parser = ClientHelloParser()
        for byte in bytes.dropLast() { #expect(parser.receive(ByteBuffer(bytes: [byte])) == .incomplete) }
        #expect(parser.receive(ByteBuffer(bytes: bytes.suffix(1))) == whole)
    }

    @Test func sameOutcomeInSeveralRecords() {
        let message = HelloWriter.message(HelloWriter.modern.body)
        let whole = parse(HelloWriter.record(message))
        for cut in 1..<message.count {
            let bytes = HelloWriter.record(Array(message[..<cut])) + HelloWriter.record(Array(message[cut...]))
            #expect(parse(bytes) == whole, "cut at \(cut)")
        }
        #expect(parse(message.flatMap { HelloWriter.record([$0]) }) == whole)
    }

    @Test func recordsBehindTheHelloAreNotItsBusiness() {
        let bytes = HelloWriter.modern.bytes + HelloWriter.record([1], type: 20)
        #expect(parse(bytes) == parse(HelloWriter.modern.bytes))
    }

    @Test func truncatedBodiesAreMalformed() {
        // The header's lengths are right, what is in it ends too early.
        let body = HelloWriter.modern.body
        for count in 0..<body.count {
            let outcome = parse(HelloWriter.record(HelloWriter.message(Array(body[..<count]))))
            let withoutExtensions = 2 + 32 + 33 + 2 + 6 + 2
            if count == withoutExtensions {
                guard case .hello = outcome else {
                    Issue.record("extensions may be missing")
                    continue
                }
            } else if case .failed(.malformed(.decodeError, _)) = outcome {
            } else {
                Issue.record("\(count): \(outcome)")
            }
        }
    }

    @Test func anyByteChangedIsReadOrRefused() {
        let bytes = HelloWriter.modern.bytes
        for index in bytes.indices {
            for value in [0, 1, 3, 16, 22, 127, 128, 255] as [UInt8] {
                var changed = bytes
                changed[index] = value
                var parser = ClientHelloParser()
                // It must not trap, and must come to an end when there is no end to the input.
                var outcome = parser.receive(ByteBuffer(bytes: changed))
                while outcome == .incomplete {
                    outcome = parser.receive(ByteBuffer(repeating: 0, count: 512))
                }
            }
        }
    }

    @Test(arguments: [
        (Array("GET / HTTP/1.1\r\n".utf8), ClientHelloError.notTLS(isHTTP: true)),
        (Array("PRI * HTTP/2.0\r\n".utf8), .notTLS(isHTTP: true)),
        (Array("SSH-2.0-x\r\n".utf8), .notTLS(isHTTP: false)),
        ([0x80, 0x2E, 1, 3, 1], .notTLS(isHTTP: false)),
        ([22, 2, 0], .notTLS(isHTTP: false)),
        ([22, 3, 1, 0, 0], .malformed(.decodeError, "an empty record")),
        ([22, 3, 1, 0x40, 1], .malformed(.decodeError, "a record that is too long")),
        ([22, 3, 1, 0, 10, 2], .malformed(.unexpectedMessage, "another message")),
        ([22, 3, 1, 0, 10, 1, 0, 0x40, 1], .tooLong),
        ([22, 3, 1, 0, 10, 1, 1, 0, 0], .tooLong),
        ([22, 3, 1, 0, 1, 1, 23, 3, 3], .malformed(.unexpectedMessage, "another record within the message")),
    ]) func refusesWhatIsNoClientHello(bytes: [UInt8], error: ClientHelloError) {
        #expect(parse(bytes) == .failed(error))
    }

    @Test func refusesBytesBehindTheMessage() {
        let message = HelloWriter.message(HelloWriter.modern.body)
        #expect(
            parse(HelloWriter.record(message + [0]))
                == .failed(.malformed(.unexpectedMessage, "bytes behind the message")))
    }

    @Test func endlessHellosAreRefused() {
        var writer = HelloWriter.modern
        writer.extensions.append((21, Array(repeating: 0, count: 15_000)))
        guard case .hello = parse(writer.bytes) else { return #expect(Bool(false), "long ones are fine") }
        var parser = ClientHelloParser()
        let tiny = HelloWriter.message(writer.body).flatMap { HelloWriter.record([$0]) }
        var outcome = ClientHelloParser.Outcome.incomplete
        var sent = 0
        while outcome == .incomplete, sent < tiny.count {
            outcome = parser.receive(ByteBuffer(bytes: tiny[sent..<min(sent + 1000, tiny.count)]))
            sent += 1000
        }
        #expect(outcome == .failed(.tooLong))
        #expect(sent <= ClientHelloParser.maximumBytes + 1000)
    }

    @Test func malformedFields() {
        func change(_ what: String, _ body: (inout HelloWriter) -> Void) {
            var writer = HelloWriter.modern
            body(&writer)
            guard case .failed(.malformed) = parse(writer.bytes) else {
                Issue.record("\(what): \(parse(writer.bytes))")
                return
            }
        }
        change("session id too long") { $0.sessionID = Array(repeating: 0, count: 33) }
        change("no suites") { $0.suites = [] }
        change("no null compression") { $0.compressions = [1] }
        change("no compression at all") { $0.compressions = [] }
        for index in 0..<5 { change("extension \(index) twice") { $0.extensions.append($0.extensions[index]) } }
        for type in [0, 10, 13, 16, 43] as [UInt16] {
            for content in [[], [0], [0, 0], [0, 1], [0, 3, 1], [255, 255, 0], [0, 2, 0, 23, 0]] as [[UInt8]] {
                change("extension \(type): \(content)") {
                    $0.extensions.removeAll { $0.0 == type }
                    $0.extensions.append((type, content))
                }
            }
        }
        for name in ["", ".", "a b", "a\0b", "ä.example", "[::1]", String(repeating: "a", count: 256)] {
            change("name \(name)") { $0.extensions[0] = HelloWriter.serverName(name) }
        }
        change("two names") {
            let one: [UInt8] = [0] + HelloWriter.vector16(Array("a.example".utf8))
            $0.extensions[0] = (0, HelloWriter.vector16(one + one))
        }
        change("a name of another type") {
            $0.extensions[0] = (0, HelloWriter.vector16([1] + HelloWriter.vector16(Array("a".utf8))))
        }
        change("an empty protocol") { $0.extensions[3] = HelloWriter.protocols("h2", "") }
    }

    @Test func namesAreLowerCaseWithoutTheLastDot() {
        var writer = HelloWriter.modern
        writer.extensions[0] = HelloWriter.serverName("A_b.EXAMPLE.com.")
        guard case .hello(let hello) = parse(writer.bytes) else { return #expect(Bool(false)) }
        #expect(hello.serverName == "a_b.example.com")
    }

    @Test(
        arguments: [
            ([0x0304, 0x0303], [0x1301], [0x0403], [23], [.p256]),
            ([0x0304], [0x1301], [0x0804, 0x0807], [29], [.rsa, .ed25519]),
            // In TLS 1.3 PKCS#1 signatures are for certificates only.
            ([0x0304], [0x1301], [0x0401], [29], []),
            ([0x0303], [0xC02B], [0x0403], [23, 24], [.p256, .p384]),
            ([0x0303], [0xC02B], [0x0403, 0x0401], [29], []),
            ([0x0303], [0xC02F], [0x0403, 0x0401], [23], [.rsa]),
            ([0x0303], [0xC02B, 0xC02F], [0x0201, 0x0203], [23], []),
            ([0x0302], [0xC02B, 0xC02F], [0x0403, 0x0401], [23], []),
        ] as [([Int], [UInt16], [Int], [Int], ClientHello.Keys)])
    func knowsWhichSignaturesAreUnderstood(
        versions: [Int], suites: [UInt16], schemes: [Int], groups: [Int], keys: ClientHello.Keys
    ) {
        var writer = HelloWriter()
        writer.suites = suites
        writer.extensions = [
            (43, HelloWriter.vector8(versions.flatMap(HelloWriter.number))), HelloWriter.numbers(13, schemes),
            HelloWriter.numbers(10, groups),
        ]
        guard case .hello(let hello) = parse(writer.bytes) else { return #expect(Bool(false)) }
        #expect(hello.keys == keys)
    }

    @Test func oldClientsHaveNoExtensions() {
        guard case .hello(let hello) = parse(HelloWriter().bytes) else { return #expect(Bool(false)) }
        #expect(
            hello
                == {
                    var hello = ClientHello(); hello.versions = .tls12
                    hello.suites = [.ecdsaAES128, .rsaAES128]; return hello
                }())
    }

    @Test(
        arguments: [
            ([0xC02B, 0xC02C, 0xCCA9], [.ecdsaAES128, .ecdsaAES256, .ecdsaChaCha]),
            ([0xCCA9, 0xC02C, 0xC02B], [.ecdsaAES128, .ecdsaAES256, .ecdsaChaCha, .prefersChaCha]),
            ([0x009C, 0xCCA8, 0xC02F, 0xC030], [.rsaAES128, .rsaAES256, .rsaChaCha, .prefersChaCha]), ([0x009C], []),
            ([0xC02B, 0x1301], []),
        ] as [([UInt16], ClientHello.Suites)])
    func notesTheSuitesOfOldClients(suites: [UInt16], expected: ClientHello.Suites) {
        var writer = HelloWriter.modern
        writer.suites = suites
        guard case .hello(let hello) = parse(writer.bytes) else { return #expect(Bool(false)) }
        #expect(hello.suites == expected)
    }
}
