/// JSON in and out: what is read, what is refused, what is written.
import KiteDnode
import NIOCore
import Testing

@Suite struct DnodeJSONTests {
    @Test(
        arguments: [
            ("null", .null), ("true", .bool(true)), (" false\n", .bool(false)), ("0", .int(0)), ("-1", .int(-1)),
            ("9223372036854775807", .int(.max)), ("-9223372036854775808", .int(.min)),
            ("9223372036854775808", .double(9_223_372_036_854_775_808)), ("5.0", .double(5)), ("1e2", .double(100)),
            ("-0", .double(-0.0)), ("0.1", .double(0.1)), ("1E-2", .double(0.01)), ("1e-999", .double(0)),
            ("\"\"", ""), ("\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "a\"\\/\u{8}\u{C}\n\r\t"),
            ("\"\\u00e9\\ud83d\\ude00é😀\"", "é😀é😀"),
            ("\"\\ud800\"", "\u{FFFD}"), ("\"\\ud800\\u0041\"", "\u{FFFD}A"), ("\"\\udc00x\"", "\u{FFFD}x"),
            ("\"\\ud800\\n\"", "\u{FFFD}\n"), ("[]", []), ("[ 1 , [2] ]", [1, [2]]), ("{}", [:]),
            ("{ \"a\" : 1 , \"b\":{\"\":null}}", ["a": 1, "b": ["": .null]]),
        ] as [(String, DnodeValue)])
    func reads(_ text: String, _ value: DnodeValue) throws {
        #expect(try parse(text) == value)
    }

    @Test(arguments: [
        "", " ", "nul", "nulll", "True", "tru", "01", "-", "-a", "+1", ".5", "1.", "1.e2", "1e", "1e+", "0x10", "NaN",
        "Infinity", "1e999", "-1e999", "1 2", "\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\\u\"",
        "\"a\nb\"", "\"\u{0}\"", "'a'", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "]", "{", "{\"a\"", "{\"a\":",
        "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\" 1}", "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}", "\u{FEFF}1", "// x\n1", "[1]]", "00", "-01",
    ])
    func refuses(_ text: String) {
        #expect(throws: DnodeError.self) { try parse(text) }
    }

    @Test(
        arguments: [
            [0x22, 0xFF, 0x22], [0x22, 0xC3, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0x22, 0xC0, 0x80, 0x22],
            [0x22, 0x5C, 0x6E, 0xFF, 0x22], [0xEF, 0xBB, 0xBF, 0x31],
        ] as [[UInt8]])
    func refusesInvalidUTF8(_ bytes: [UInt8]) {
        #expect(throws: DnodeError.self) { try DnodeValue(parsing: ByteBuffer(bytes: bytes)) }
    }

    @Test func limitsBoundDepthNodesAndBytes() throws {
        var limits = DnodeLimits()
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        _ = try parse(nested(64), limits: limits)
        for text in [nested(65), String(repeating: "[", count: 100_000), String(repeating: "{\"a\":", count: 65)] {
            #expect { try parse(text, limits: limits) } throws: { ($0 as? DnodeError)?.code == .limitExceeded }
        }
        limits.maximumNodes = 4
        _ = try parse("[1,2,3]", limits: limits)
        _ = try parse("{\"a\":[1]}", limits: limits)
        for text in ["[1,2,3,4]", "{\"a\":[1,2]}"] {
            #expect { try parse(text, limits: limits) } throws: { ($0 as? DnodeError)?.code == .limitExceeded }
        }
        limits.maximumMessageSize = 4
        #expect { try parse("\"abc\"", limits: limits) } throws: { ($0 as? DnodeError)?.code == .limitExceeded }
        #expect { try parse(String(repeating: "1", count: 2000)) } throws: {
            ($0 as? DnodeError)?.code == .limitExceeded
        }
        #expect { try DnodeValue.string("abc").serialized(limits: limits) } throws: {
            ($0 as? DnodeError)?.code == .limitExceeded
        }
        limits.maximumDepth = 1
        #expect { try DnodeValue.array([[]]).serialized(limits: limits) } throws: {
            ($0 as? DnodeError)?.code == .limitExceeded
        }
    }

    /// As `encoding/json` writes them.
    @Test(
        arguments: [
            (.double(16), "16"), (.double(-2.5), "-2.5"), (.double(0.4), "0.4"),
            (.double(1e20), "100000000000000000000"),
            (.double(1e21), "1e+21"), (.double(1.5e300), "1.5e+300"), (.double(0.000001), "0.000001"),
            (.double(0.0000001), "1e-7"), (.double(1.25e-9), "1.25e-9"), (.double(-0.0), "-0"), (.double(0), "0"),
            (.double(123456789.125), "123456789.125"), (.double(9_007_199_254_740_992), "9007199254740992"),
            (.int(.min), "-9223372036854775808"),
            ("\u{1}\u{1f}\n\"\\/é\u{2028}\u{2029}", #""\u0001\u001f\n\"\\/é\u2028\u2029""#),
            (["b": 1, "a": [.null, true]], #"{"b":1,"a":[null,true]}"#),
        ] as [(DnodeValue, String)])
    func writes(_ value: DnodeValue, _ expected: String) throws {
        #expect(try text(value) == expected)
    }

    @Test(arguments: [Double.nan, .infinity, -.infinity])
    func refusesToWriteWhatJSONCannotSay(_ number: Double) {
        #expect { try DnodeValue.double(number).serialized() } throws: {
            ($0 as? DnodeError)?.code == .unrepresentable
        }
    }

    @Test func numbersSurviveTheWayThere() throws {
        var generator = SeededGenerator(seed: 7)
        for _ in 0..<5000 {
            let number = Double(bitPattern: UInt64.random(in: 0 ... .max, using: &generator))
            guard number.isFinite else { continue }
            #expect(try parse(text(.double(number))).double == number)
        }
    }

    @Test func objectsKeepOrderAndFindMembers() {
        var object = DnodeObject((0..<40).map { ("k\($0)", .int(Int64($0))) })
        #expect(object.map(\.key) == (0..<40).map { "k\($0)" })
        for key in (0..<40).filter({ $0 % 2 == 0 }) { object["k\(key)"] = nil }
        #expect(object.count == 20)
        for key in 0..<40 { #expect(object["k\(key)"] == (key % 2 == 0 ? nil : .int(Int64(key)))) }
        object["k1"] = "new"
        #expect(object.count == 20 && object["k1"] == "new")
        #expect(object == DnodeObject(object.reversed().map { ($0.key, $0.value) }))
        #expect(object.hashValue == DnodeObject(object.reversed().map { ($0.key, $0.value) }).hashValue)
        // Few members and many: names are compared in two ways.
        for others in [[], (0..<40).map { ("k\($0)", .null) }] as [[(String, DnodeValue)]] {
            var accents = DnodeObject(others + [("\u{e9}", 1), ("e\u{301}", 2)])
            #expect(accents.count == others.count + 2 && accents["\u{e9}"] == 1 && accents["e\u{301}"] == 2)
            accents["e\u{301}"] = nil
            #expect(accents["\u{e9}"] == 1 && accents["e\u{301}"] == nil)
        }
    }
}

/// A small generator (SplitMix64) so that a failure can be repeated.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
