/// The bridge to `Codable`.
import KiteDnode
import NIOCore
import Testing

@Suite struct DnodeCodingTests {
    struct Subscription: Codable {
        var n: Int
        var ratio: Double?
        var tags: [String]
        var nested: [[Int8]]
        var byName: [String: Bool]
        var mode: Mode
        var raw: DnodeValue
        var onEvent: DnodeFunction
    }
    enum Mode: String, Codable { case fast, slow }

    @Test func valuesGoThereAndBack() throws {
        let function = DnodeFunction { _ in }
        let value = Subscription(
            n: 3, ratio: nil, tags: ["a"], nested: [[1], []], byName: ["x": true], mode: .slow,
            raw: ["k": [1, .null, .function(function)]], onEvent: function)
        let encoded = try DnodeEncoder().encode(value)
        #expect(
            encoded == [
                "n": 3, "tags": ["a"], "nested": [[1], []], "byName": ["x": true], "mode": "slow",
                "raw": ["k": [1, .null, .function(function)]], "onEvent": .function(function),
            ])
        let decoded = try DnodeDecoder().decode(Subscription.self, from: encoded)
        #expect(decoded.onEvent == function && decoded.raw == value.raw && decoded.ratio == nil)
        #expect(decoded.nested == value.nested && decoded.mode == .slow && decoded.byName == ["x": true])
        #expect(try DnodeEncoder().encode([Int?.none, 2]) == [.null, 2])
        #expect(try DnodeDecoder().decode([Int?].self, from: [.null, 2]) == [nil, 2])
        #expect(try DnodeEncoder().encode(Float(0.1)) == .double(0.1))
    }

    @Test func numbersConvertWhereNothingIsLost() throws {
        #expect(try DnodeDecoder().decode(Double.self, from: .int(4)) == 4)
        #expect(try DnodeDecoder().decode(Int.self, from: .double(4)) == 4)
        for value in [DnodeValue.double(4.5), .double(1e300), "4", .null, true, .int(300)] {
            #expect(throws: DecodingError.self) { try DnodeDecoder().decode(UInt8.self, from: value) }
        }
        #expect(throws: EncodingError.self) { try DnodeEncoder().encode(UInt64.max) }
        #expect(throws: EncodingError.self) { try DnodeEncoder().encode(Double.nan) }
        #expect(throws: DecodingError.self) { try DnodeDecoder().decode(Float.self, from: .double(1e300)) }
    }

    @Test(
        arguments: [
            (["n": "x"], "n"), ([:], ""), (["n": 1, "tags": ["a", 5]], "tags.1"), (5, ""), (.null, ""),
        ] as [(DnodeValue, String)])
    func errorsNameThePlace(_ value: DnodeValue, _ place: String) {
        struct Fields: Decodable {
            var n: Int
            var tags: [String]
        }
        #expect { try DnodeDecoder().decode(Fields.self, from: value) } throws: { error in
            guard let error = error as? DecodingError else { return false }
            let context: DecodingError.Context
            switch error {
            case .typeMismatch(_, let found), .valueNotFound(_, let found), .keyNotFound(_, let found),
                .dataCorrupted(let found):
                context = found
            @unknown default: return false
            }
            return context.codingPath.map(\.stringValue).joined(separator: ".") == place
        }
    }

    @Test func functionsTakeTypedArguments() async throws {
        await confirmation { called in
            let function = DnodeFunction(taking: [Int].self) { values in
                if values == [1, 2] { called() }
            }
            try? await function.call([1, 2])
        }
        let function = DnodeFunction(taking: Int.self) { _ in }
        await #expect(throws: DecodingError.self) { try await function.call("x") }
    }
}
