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

    @Test("A name is its first user's, whatever its case, and taking it again brings nothing new")
    func ownership() {
        var book = ClaimBook(limit: 2)
        #expect(take(&book, "Shop") == .taken(new: [RouteKey("shop")], dropped: []))
        #expect(take(&book, "shop") == .taken(new: [], dropped: []))
        #expect(take(&book, "SHOP", user: "b") == .heldByAnother(RouteKey("shop")))
        #expect(book.owner(of: RouteKey("shop")) == "a")
        book.release(RouteKey("shop"))
        #expect(take(&book, "shop", user: "b") == .taken(new: [RouteKey("shop")], dropped: []))
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
        #expect(take(&book, "two") == .taken(new: [RouteKey("two")], dropped: []))
        #expect(take(&book, "three") == .full)
        #expect(take(&book, "one", "two") == .taken(new: [], dropped: []))
        #expect(take(&book, "three", user: "b") == .taken(new: [RouteKey("three")], dropped: []))
        #expect(take(&book, "four", term: .passing) == .taken(new: [RouteKey("four")], dropped: []))
        book.release(RouteKey("one"))
        #expect(take(&book, "five") == .taken(new: [RouteKey("five")], dropped: []))
    }

    @Test("Of passing claims the one used longest ago makes room, but none that is served")
    func passing() {
        var book = ClaimBook(limit: 2)
        _ = take(&book, "one", term: .passing)
        _ = take(&book, "two", term: .passing)
        _ = take(&book, "one", term: .passing)
        #expect(take(&book, "three", term: .passing) == .taken(new: [RouteKey("three")], dropped: [RouteKey("two")]))
        #expect(book.owner(of: RouteKey("two")) == nil)
        #expect(
            take(&book, "four", term: .passing, served: ["one"])
                == .taken(new: [RouteKey("four")], dropped: [RouteKey("three")]))
        #expect(take(&book, "five", term: .passing, served: ["one", "four"]) == .full)
        #expect(book.owner(of: RouteKey("five")) == nil)
        #expect(take(&book, "two", term: .passing, user: "b") == .taken(new: [RouteKey("two")], dropped: []))
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
