// Which offers of permessage-deflate are agreed to, and how (RFC 7692 section 7.1).
import KiteHTTP
import NIOCore
import Testing

@testable import KiteWebSocket

@Suite struct WebSocketExtensionTests {
    static let bare = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

    static func fields(_ values: [String]) -> HeaderBlock {
        var fields = HeaderBlock()
        for value in values { fields.append("Sec-WebSocket-Extensions", value) }
        return fields
    }

    @Test(
        arguments: [
            ([], nil),
            ([""], nil),
            ([" , ,"], nil),
            (["permessage-deflate"], bare),
            // As Chromium, Firefox and Safari offer it.
            (["permessage-deflate; client_max_window_bits"], bare),
            (["permessage-deflate"], bare),
            (["x-webkit-deflate-frame, permessage-deflate"], bare),
            (["PerMessage-Deflate ; Client_Max_Window_Bits = 15"], bare),
            (["permessage-deflate; client_max_window_bits=\"8\""], bare),
            (["permessage-deflate; client_max_window_bits=\"1\\0\""], bare),
            (["permessage-deflate; server_no_context_takeover; client_no_context_takeover"], bare),
            (["permessage-deflate; server_max_window_bits=9"], bare + "; server_max_window_bits=9"),
            (["permessage-deflate;server_max_window_bits=15"], bare + "; server_max_window_bits=15"),
            // What can't be met is passed over for the next.
            (["permessage-deflate; server_max_window_bits=8"], nil),
            (["permessage-deflate; server_max_window_bits=8, permessage-deflate"], bare),
            (
                ["foo", "permessage-deflate; server_max_window_bits=10, permessage-deflate"],
                bare + "; server_max_window_bits=10"
            ),
            (["permessage-deflate; server_max_window_bits"], nil),
            (["permessage-deflate; server_max_window_bits=16"], nil),
            (["permessage-deflate; server_max_window_bits=7"], nil),
            (["permessage-deflate; server_max_window_bits=09"], nil),
            (["permessage-deflate; server_max_window_bits=+9"], nil),
            (["permessage-deflate; server_max_window_bits=99999999999999999999"], nil),
            (["permessage-deflate; server_max_window_bits=10; server_max_window_bits=10"], nil),
            (["permessage-deflate; client_max_window_bits=16"], nil),
            (["permessage-deflate; client_max_window_bits=08"], nil),
            (["permessage-deflate; client_no_context_takeover=1"], nil),
            (["permessage-deflate; server_no_context_takeover=true"], nil),
            (["permessage-deflate; something"], nil),
            (["permessage-deflate-x"], nil),
        ] as [([String], String?)])
    func agreements(_ offers: [String], _ answer: String?) throws {
        let agreement = WebSocketDeflate(try WebSocketExtensionOffer.offers(in: Self.fields(offers)))
        #expect(agreement?.response == answer)
        #expect(agreement == nil || (9...15).contains(agreement?.windowBits ?? 0))
    }

    @Test(arguments: [
        "=", ";", "a b", "a;", "a; =1", "a; b=", "a; b=\"", "a; b=\"\"", "a; b=\"x y\"", "a; b=\"x\\", "a; b=\"x\"y",
        "\"a\"", "a; b=1=2", "a/b", "permessage-deflate; client_max_window_bits, ;", "ä",
    ]) func malformed(_ value: String) {
        #expect(throws: WebSocketExtensionOffer.Malformed.self) {
            try WebSocketExtensionOffer.offers(in: Self.fields([value]))
        }
    }

    @Test func thousandsOfOffersAreReadOnce() throws {
        let many = Array(repeating: "permessage-deflate; server_max_window_bits=8", count: 1000).joined(separator: ",")
        let offers = try WebSocketExtensionOffer.offers(in: Self.fields([many]))
        #expect(offers.count == 1000)
        #expect(WebSocketDeflate(offers) == nil)
    }
}
