import Testing

@testable import KiteGateway

@Suite("Claims")
struct ClaimBookTests {
    private func take(
        _ book: inout ClaimBook, _ names: String..., term: ClaimBook.Term = .lasting, user: String = "a",
        served: Set<String> = []
    ) -> ClaimBook.Outcome {
        book.take(names.map { (RouteKey($0), term) }, for: user) { served.contains($0.description) }
    }

    @Test("A name is its first user's, whatever its case, and is recorded once")
    func ownership() {
        var book = ClaimBook(limit: 2)
        #expect(take(&book, "Shop") == .taken(unrecorded: [RouteKey("shop")], dropped: []))
        book.recorded(RouteKey("shop"), at: 1)
        #expect(take(&book, "shop") == .taken(unrecorded: [], dropped: []))
        #expect(take(&book, "SHOP", user: "b") == .heldByAnother(RouteKey("shop")))
        #expect(book.owner(of: RouteKey("shop")) == "a")
        book.release(RouteKey("shop"))
        #expect(take(&book, "shop", user: "b") == .taken(unrecorded: [RouteKey("shop")], dropped: []))
    }

    @Test("A name that could not be recorded is free again, unless another session got it meanwhile")
    func recording() {
        let shop = RouteKey("shop")
        for (outcomes, isKept) in [
            ([false], false), ([true], true), ([false, false], false), ([true, false], true), ([false, true], true),
            ([false, false, true], true),
        ] {
            var book = ClaimBook(limit: 2)
            for _ in outcomes { #expect(take(&book, "shop") == .taken(unrecorded: [shop], dropped: [])) }
            for isRecorded in outcomes { if isRecorded { book.recorded(shop, at: 1) } else { book.notRecorded(shop) } }
            #expect((book.owner(of: shop) == "a") == isKept, "\(outcomes)")
            if !isKept {
                #expect(
                    take(&book, "one", "two") == .taken(unrecorded: [RouteKey("one"), RouteKey("two")], dropped: []))
            }
        }
    }

    @Test("The use of a name is recorded once in a while, that of a passing claim never")
    func use() {
        let shop = RouteKey("shop")
        var book = ClaimBook(limit: 2)
        _ = take(&book, "shop")
        #expect(book.used(shop, at: 100) == nil)
        book.recorded(shop, at: 100)
        #expect(book.used(shop, at: 159) == nil)
        #expect(book.used(shop, at: 160) == Claim(name: "shop", username: "a", lastUsed: 160))
        #expect(book.used(shop, at: 161) == nil)
        book.restore(RouteKey("old"), username: "a", lastUsed: 100)
        #expect(book.used(RouteKey("old"), at: 159) == nil)
        #expect(book.used(RouteKey("old"), at: 160)?.lastUsed == 160)
        _ = take(&book, "passing", term: .passing)
        #expect(book.used(RouteKey("passing"), at: 1000) == nil)
        #expect(book.used(RouteKey("nobody's"), at: 1000) == nil)
    }

    @Test("Several names are taken together or not at all")
    func atomicity() {
        var book = ClaimBook(limit: 8)
        _ = take(&book, "x", user: "b")
        #expect(take(&book, "free", "x") == .heldByAnother(RouteKey("x")))
        #expect(book.owner(of: RouteKey("free")) == nil)
    }

    @Test("Lasting names are limited for each user, and restored ones count")
    func limit() {
        var book = ClaimBook(limit: 2)
        book.restore(RouteKey("one"), username: "a")
        #expect(take(&book, "two") == .taken(unrecorded: [RouteKey("two")], dropped: []))
        #expect(take(&book, "three") == .full)
        book.recorded(RouteKey("two"), at: 1)
        #expect(take(&book, "one", "two") == .taken(unrecorded: [], dropped: []))
        #expect(take(&book, "three", user: "b") == .taken(unrecorded: [RouteKey("three")], dropped: []))
        #expect(take(&book, "four", term: .passing) == .taken(unrecorded: [], dropped: []))
        book.release(RouteKey("one"))
        #expect(take(&book, "five") == .taken(unrecorded: [RouteKey("five")], dropped: []))
    }

    @Test("Of passing claims the one used longest ago makes room, but none that is served")
    func passing() {
        var book = ClaimBook(limit: 2)
        _ = take(&book, "one", term: .passing)
        _ = take(&book, "two", term: .passing)
        _ = take(&book, "one", term: .passing)
        #expect(take(&book, "three", term: .passing) == .taken(unrecorded: [], dropped: [RouteKey("two")]))
        #expect(book.owner(of: RouteKey("two")) == nil)
        #expect(
            take(&book, "four", term: .passing, served: ["one"])
                == .taken(unrecorded: [], dropped: [RouteKey("three")]))
        #expect(take(&book, "five", term: .passing, served: ["one", "four"]) == .full)
        #expect(book.owner(of: RouteKey("five")) == nil)
        #expect(take(&book, "two", term: .passing, user: "b") == .taken(unrecorded: [], dropped: []))
    }

    @Test("A program that starts again and again never runs out")
    func restarts() {
        var book = ClaimBook(limit: 4)
        for start in 0..<100 {
            guard case .taken = take(&book, "id\(start)", term: .passing) else {
                Issue.record("start \(start)")
                return
            }
        }
        #expect((0..<100).count { book.owner(of: RouteKey("id\($0)")) != nil } == 4)
    }
}
