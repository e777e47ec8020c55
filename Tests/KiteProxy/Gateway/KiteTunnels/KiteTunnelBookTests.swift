import KiteCore
import KiteDnode
import NIOCore
import Testing

@testable import KiteGateway

/// Answers nothing.
struct SilentCaller: KiteCaller {
    var callTimeout: Duration { .seconds(1) }
    func call(_ method: String, arguments: [DnodeValue], timeout: Duration?) async throws -> DnodeValue { .null }
}

@Suite("Kites that dial back", .timeLimit(.minutes(1)))
struct KiteTunnelBookTests {
    private let book = KiteTunnelBook()
    private let key = RouteKey("0e1d7b54-0000-4000-8000-00000000000f")
    private func kite(_ version: String = "1.0.0") -> TunnelledKite {
        TunnelledKite(
            identity: KiteIdentity(name: "k", username: "u", id: key.description, version: version), isPublic: false,
            caller: SilentCaller())
    }

    @Test func theEndOfAnOldConnectionLeavesTheNewerRegistrationAlone() {
        let first = book.enter(kite("1.0.0"), as: key)
        let second = book.enter(kite("2.0.0"), as: key)
        #expect(!book.remove(key, registration: first))
        #expect(book.find(key)?.identity.version == "2.0.0")
        #expect(book.remove(key, registration: second))
        #expect(book.find(key) == nil)
        #expect(!book.remove(key, registration: second))
    }

    @Test func aKiteThatHasLeftIsMissedForAWhile() {
        let now = NIODeadline.now()
        #expect(book.presence(of: key) == .unknown)
        let number = book.enter(kite(), as: key)
        #expect(book.presence(of: key) == .serving)
        #expect(book.remove(key, registration: number, now: now))
        #expect(book.presence(of: key, now: now + .seconds(60)) == .away)
        #expect(book.presence(of: key, now: now + .minutes(11)) == .unknown)
    }

    @Test func visitorsWaitForItsReturn() async throws {
        async let first = book.await(key)
        async let second = book.await(key)
        for _ in 0..<10 { await Task.yield() }
        _ = book.enter(kite(), as: key)
        let names = await [first?.identity.name, second?.identity.name]
        #expect(names == ["k", "k"])
        #expect(await book.await(key)?.identity.name == "k")
    }

    @Test func whoGivesUpGetsNothing() async {
        let waiting = Task { await book.await(key) }
        waiting.cancel()
        #expect(await waiting.value == nil)
    }

    @Test func aKiteHasSoManySessionsAndNoMore() {
        #expect(book.reserveSession(key, limit: 2))
        #expect(book.reserveSession(key, limit: 2))
        #expect(!book.reserveSession(key, limit: 2))
        #expect(book.reserveSession(RouteKey("other"), limit: 2))
        book.releaseSession(key)
        #expect(book.reserveSession(key, limit: 2))
        #expect(book.sessionCount == 3)
        for _ in 0..<5 { book.releaseSession(key) }
        #expect(book.sessionCount == 1)
    }

    @Test func namesAreTheGatewaysUsersAlone() {
        let book = KiteTunnelBook(naming: .init(username: "u", environment: "dev"))
        func enter(_ digit: Int, _ name: String, user: String = "u", environment: String = "dev") -> UInt64 {
            let id = "0e1d7b54-0000-4000-8000-00000000000\(digit)"
            return book.enter(
                TunnelledKite(
                    identity: KiteIdentity(name: name, username: user, id: id, environment: environment),
                    isPublic: false, caller: SilentCaller()), as: RouteKey(id))
        }
        func key(_ name: String) -> RouteKey { RouteKey(asWritten: ByteBuffer(string: name)) }
        func id(_ digit: Int) -> RouteKey { RouteKey("0e1d7b54-0000-4000-8000-00000000000\(digit)") }
        _ = enter(1, "math", user: "other")
        _ = enter(2, "math", environment: "production")
        _ = enter(3, id(1).description)
        #expect(book.presence(of: key("math")) == .unknown)
        let first = enter(4, "Math")
        _ = enter(5, "Math")
        #expect(book.presence(of: key("math")) == .unknown)
        #expect(book.presence(of: key("Math")) == .serving)
        #expect(book.id(of: id(1)) == id(1))
        // In turn, then to the one with fewer sessions.
        #expect(Set([book.id(of: key("Math")), book.id(of: key("Math"))]) == [id(4), id(5)])
        #expect(book.reserveSession(id(4), limit: 9))
        for _ in 0..<4 { #expect(book.id(of: key("Math")) == id(5)) }
        #expect(book.remove(id(4), registration: first))
        #expect(book.presence(of: key("Math")) == .serving)
        // One that has another name now is not found by the old one, and is missed.
        let renamed = enter(5, "geometry")
        #expect(book.id(of: key("Math")) == nil)
        #expect(book.id(of: key("geometry")) == id(5))
        #expect(book.remove(id(5), registration: renamed))
        #expect(book.presence(of: key("geometry")) == .away)
        #expect(book.presence(of: id(5)) == .away)
    }
}
