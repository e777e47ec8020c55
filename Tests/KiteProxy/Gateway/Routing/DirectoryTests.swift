import KiteHTTP
import KiteSupport
import NIOCore
import NIOEmbedded
import Testing

@testable import KiteGateway

@Suite("Where a request belongs")
struct DirectoryTests {
    private func describe(_ authority: String, _ target: String, domain: String? = "Gw.Example") -> String {
        let found = Directory(domain: domain).destination(
            authority: ByteBuffer(string: authority), target: ByteBuffer(string: target))
        switch found {
        case .route(let key, let dropped, let byHost): return "\(byHost ? "host" : "path") \(key) \(dropped)"
        case .door: return "door"
        case .kite: return "kite"
        case .kiteSession(let session): return "session \(session.kite) \(session.path)"
        case .kiteTunnel(let dropped): return "kite tunnel \(dropped)"
        case .browserModule(let module): return "module \(module.path)"
        case .nowhere: return "nowhere"
        }
    }

    @Test(arguments: [
        ("shop.gw.example", "/", "host shop 0"), ("SHOP.GW.EXAMPLE:3999", "/proxy/x/", "host shop 0"),
        ("shop.gw.example:80", "/kite", "host shop 0"), ("gw.example", "/proxy/Shop/a", "path Shop 11"),
        ("gw.example:1", "/proxy/shop", "path shop 11"), ("x", "/proxy/shop?q=/", "path shop 11"),
        ("127.0.0.1:3999", "/proxy/a%2Fb/c", "path a%2Fb 12"), ("x", "/proxy/", "nowhere"), ("x", "/proxy", "nowhere"),
        ("x", "/proxy//a", "nowhere"), ("x", "/proxy/?a", "nowhere"), ("x", "/kite", "kite"),
        ("x", "/kite/info?t=1", "kite"),
        ("x", "/kite?x", "kite"), ("x", "/kites", "nowhere"), ("x", "/-/tunnel", "door"), ("x", "/-/tunnel?x", "door"),
        ("x", "/-/kite.js", "module /-/kite.js"), ("x", "/-/kite.js?v=1", "module /-/kite.js"),
        ("x", "/-/kite.d.ts", "module /-/kite.d.ts"), ("x", "/-/kite.js/", "nowhere"), ("x", "/-/kite", "nowhere"),
        ("x", "/-/", "nowhere"), ("shop.gw.example", "/-/kite.js", "host shop 0"),
        ("x", "/-/tunnels", "nowhere"), ("x", "/tunnel/1/2/websocket?token=a", "kite tunnel 7"),
        ("x", "/tunnels", "nowhere"),
        (
            "x", "/proxy/1/2/xhr?kiteID=0e1d7b54-0000-4000-8000-00000000000f",
            "session 0e1d7b54-0000-4000-8000-00000000000f /1/2/xhr"
        ),
        ("shop.gw.example", "/proxy?kiteID=0e1d7b54-0000-4000-8000-00000000000f", "host shop 0"),
        ("shop.gw.example", "/tunnel/1/2/websocket", "host shop 0"), ("x", "/", "nowhere"), ("x", "*", "nowhere"),
        ("x", "", "nowhere"),
        (".gw.example", "/", "nowhere"), ("gw.example", "/", "nowhere"), ("shopgw.example", "/", "nowhere"),
        ("shop.gw.example.", "/", "nowhere"), ("", "/kite", "kite"), ("[::1]:3999", "/kite", "kite"),
    ])
    func destinations(authority: String, target: String, expected: String) {
        #expect(describe(authority, target) == expected)
    }

    @Test func withoutADomainHostsSayNothing() {
        #expect(describe("shop.gw.example", "/kite", domain: nil) == "kite")
    }

    @Test(arguments: [
        ("0e1d7b54-0000-4000-8000-00000000000f", true), ("0E1D7B54-0000-4000-8000-00000000000F", true),
        ("0e1d7b54-0000-4000-8000-00000000000g", false), ("0e1d7b540000-4000-8000-00000000000ff", false), ("", false),
        ("0e1d7b54-0000-4000-8000-00000000000", false),
    ])
    func kiteIDs(text: String, expected: Bool) { #expect(RouteKey(text).isKiteID == expected) }

    @Test(arguments: [
        ("x", "/proxy/0E1D7B54-0000-4000-8000-00000000000F", "path 0e1d7b54-0000-4000-8000-00000000000f 43")
    ])
    func kiteIDsHaveNoCase(authority: String, target: String, expected: String) {
        #expect(describe(authority, target) == expected)
    }

    @Test func whatAgentsBringIsFoundWhateverTheCaseAndKontrolsKitesAreToldApartByIt() {
        func written(_ name: String) -> RouteKey { RouteKey(asWritten: ByteBuffer(string: name)) }
        var table = RouteTable()
        for (name, kind) in [("shop", .tunnel), ("Math", .kontrol), ("math", .kontrol)] as [(String, RouteSpec.Kind)] {
            table.insert(Route(RouteSpec(key: written(name), kind: kind, owner: "a", path: "")))
        }
        for (name, found) in [
            ("shop", "shop"), ("SHOP", "shop"), ("Math", "Math"), ("math", "math"), ("MATH", nil), ("x", nil),
        ] {
            #expect(table.find(asWritten: written(name))?.key.description == found, "\(name)")
        }
    }

    @Test(arguments: [
        ("math", true), ("Math", true), ("math_2.x-y", true), ("", false), ("a%2fb", false), ("a b", false),
        (String(repeating: "a", count: 129), false),
        ("é", false),
    ])
    func names(text: String, expected: Bool) { #expect(RouteKey(text).isName == expected) }

    @Test func aDetachedKeyIsEqualAndKeepsNothingElse() throws {
        let received = ByteBuffer(string: "GET /proxy/shop/" + String(repeating: "x", count: 10_000))
        let key = RouteKey(try #require(received.getSlice(at: 11, length: 4)))
        #expect(key.detached == RouteKey("shop"))
        #expect(key.detached.bytes.capacity < 100)
    }
}

private final class NamedUpstream: Upstream {
    private let text: String
    override var name: String { text }
    init(_ name: String, pool: ConnectionPool) {
        text = name
        super.init(pool: pool)
    }
}

@Suite("Choosing an upstream")
struct UpstreamChoiceTests {
    private func makeRoute(_ count: Int) -> (Route, [Upstream], NIODeadline) {
        let loop = EmbeddedEventLoop()
        let route = Route(RouteSpec(key: RouteKey("r"), kind: .direct, owner: "a", path: ""))
        let upstreams = (0..<count).map { _ in Upstream(pool: ConnectionPool(wheel: TimerWheel(eventLoop: loop))) }
        for upstream in upstreams { route.add(upstream) }
        return (route, upstreams, .now())
    }

    @Test func theOneWithTheLeastToDoIsTaken() {
        let (route, upstreams, now) = makeRoute(3)
        for (upstream, outstanding) in zip(upstreams, [4, 1, 2]) { upstream.outstanding = outstanding }
        #expect(route.choose(at: now) === upstreams[1])
        #expect(route.choose(at: now, excluding: upstreams[1]) === upstreams[2])
    }

    @Test func thoseThatHaveAsMuchToDoTakeTurns() {
        let (route, upstreams, now) = makeRoute(3)
        var counts = [0, 0, 0]
        for _ in 0..<9 {
            let chosen = route.choose(at: now)
            if let place = upstreams.firstIndex(where: { $0 === chosen }) { counts[place] += 1 }
        }
        #expect(counts == [3, 3, 3])
    }

    @Test func aSessionComesToTheSameAgentFromAllLoops() async throws {
        let options = GatewayOptions()
        let board = RouteBoard(options: options, claims: MemoryClaimStore(), logger: testLogger)
        let reference = try await makeWorker(options: options, board: board)
        await reference.ask { worker in
            let key = RouteKey("r")
            func neighbour(_ session: String) -> NeighbourUpstream {
                NeighbourUpstream(
                    neighbour: reference, route: key, session: session, eventLoop: worker.eventLoop,
                    pool: worker.makePool())
            }
            func route(_ upstreams: [Upstream]) -> Route {
                let route = Route(RouteSpec(key: key, kind: .tunnel, owner: "a", path: ""))
                for upstream in upstreams { route.add(upstream) }
                return route
            }
            let here = NamedUpstream(LaneUpstream.name(of: "one"), pool: worker.makePool())
            let (one, two) = (neighbour("one"), neighbour("two"))
            let mixed = route([one, here, two])
            let elsewhere = route([neighbour("two"), neighbour("one")])
            let now = NIODeadline.now()
            var agents: [String: Int] = [:]
            for number in 0..<200 {
                let session = SockJSSession.number("session \(number)".utf8)
                let chosen = mixed.choose(at: now, session: session)
                #expect(chosen !== one, "the way that stays on this loop")
                #expect(chosen?.identityText == elsewhere.choose(at: now, session: session)?.identityText)
                agents[chosen?.identityText ?? "", default: 0] += 1
                #expect(!mixed.isOwnerAway(of: session))
            }
            #expect(agents.count == 2)
            #expect(mixed.choose(at: now) === here)
            // Its sessions wait for a moment; others are not touched.
            two.isLost(true)
            for number in 0..<200 {
                let session = SockJSSession.number("session \(number)".utf8)
                let isOfTwo = elsewhere.choose(at: now, session: session)?.identityText == two.identityText
                #expect(mixed.isOwnerAway(of: session) == isOfTwo)
                #expect(mixed.choose(at: now, session: session) === here)
            }
        }
    }

    @Test func aSessionStaysWithOneUpstreamAndTheOthersTakeTheSessionsOfOneThatFails() throws {
        let loop = EmbeddedEventLoop()
        let route = Route(RouteSpec(key: RouteKey("r"), kind: .direct, owner: "a", path: ""))
        let upstreams = (0..<3).map {
            NamedUpstream("kite \($0)", pool: ConnectionPool(wheel: TimerWheel(eventLoop: loop)))
        }
        for upstream in upstreams { route.add(upstream) }
        let now = NIODeadline.now()
        let sessions = (0..<300).map { SockJSSession.number("session \($0)".utf8) }
        func places() -> [Int?] {
            sessions.map { session in
                let chosen = route.choose(at: now, session: session)
                return upstreams.firstIndex { $0 === chosen }
            }
        }
        let before = places()
        for place in 0..<3 { #expect(before.count { $0 == place } > 50) }
        upstreams[0].outstanding = 9
        #expect(places() == before)
        for _ in 0..<3 { _ = upstreams[1].failed(at: now) }
        for (old, new) in zip(before, places()) { #expect(old == 1 ? new != 1 : new == old) }
        upstreams[1].succeeded()
        #expect(places() == before)
    }

    @Test(arguments: [
        ("/proxy/m/1/abc/xhr", "abc"), ("/proxy/m/2/abc/xhr_send?t=1/2/3/xhr", "abc"), ("/1/abc/websocket", "abc"),
        ("/proxy/m/1/abd/xhr", "abd"), ("/proxy/m/info", nil), ("/proxy/m/1/abc/xhrs", nil), ("/1//xhr", nil),
        ("//abc/xhr", nil), ("/abc/xhr", nil), ("xhr", nil), ("/xhr", nil), ("", nil), ("*", nil),
    ])
    func sessions(target: String, session: String?) {
        #expect(SockJSSession.hash(in: ByteBuffer(string: target)) == session.map { SockJSSession.number($0.utf8) })
    }

    @Test func failuresInARowEjectForAWhileAndSuccessForgivesThem() {
        let (route, upstreams, now) = makeRoute(2)
        upstreams[1].outstanding = 9
        #expect(!upstreams[0].failed(at: now) && !upstreams[0].failed(at: now))
        upstreams[0].succeeded()
        #expect(!upstreams[0].failed(at: now) && !upstreams[0].failed(at: now))
        #expect(route.choose(at: now) === upstreams[0])
        #expect(upstreams[0].failed(at: now))
        #expect(route.choose(at: now) === upstreams[1])
        #expect(route.choose(at: now + .minutes(1)) === upstreams[0])
    }

    @Test func oneThatIsEjectedIsBetterThanNone() {
        let (route, upstreams, now) = makeRoute(1)
        for _ in 0..<3 { _ = upstreams[0].failed(at: now) }
        #expect(route.choose(at: now) === upstreams[0])
        #expect(makeRoute(0).0.choose(at: now) == nil)
    }
}
