/// What an agent's user sees.
import Foundation
import KiteCommand
import KiteTunnel
import Logging
import Synchronization
import Testing

@testable import TunnelClient

private final class Written: Sendable {
    private let text = Mutex("")
    var all: String { text.withLock { $0 } }
    var write: @Sendable (String) -> Void { { part in self.text.withLock { $0 += part } } }
}

@Suite("Display")
struct DisplayTests {
    private static let events: [(AgentEvent, [String: String])] = [
        (.connecting(gateway: "http://g", attempt: 2), ["event": "connecting", "gateway": "http://g", "attempt": "2"]),
        (
            .serving(name: "shop", url: "http://shop.g/", kind: .http, target: "http://localhost:1"),
            [
                "event": "serving", "name": "shop", "url": "http://shop.g/", "kind": "http",
                "target": "http://localhost:1",
            ]
        ),
        (
            .refused(name: "shop", status: 409, reason: "taken"),
            ["event": "refused", "name": "shop", "status": "409", "reason": "taken"]
        ),
        (.laneUp(lane: 0, lanes: 1, wanted: 2), ["event": "lane_up", "lane": "0", "lanes": "1", "wanted": "2"]),
        (
            .laneDown(lane: 1, cause: "re\"set", retry: 1.5),
            ["event": "lane_down", "lane": "1", "cause": "re\"set", "retrySeconds": "1.5"]
        ),
        (
            .laneRetry(lane: 1, cause: "refused", retry: 0.25),
            ["event": "lane_retry", "lane": "1", "cause": "refused", "retrySeconds": "0.25"]
        ),
        (
            .connectFailed(cause: "refused", retry: 0.5),
            ["event": "connect_failed", "cause": "refused", "retrySeconds": "0.5"]
        ),
        (.goingAway(reason: "restart"), ["event": "going_away", "reason": "restart"]),
        (
            .request(name: "shop", method: "GET", path: "/", status: 200, milliseconds: 1.25),
            ["event": "request", "name": "shop", "method": "GET", "path": "/", "status": "200", "milliseconds": "1.25"]
        ),
        (
            .targetFailed(name: "shop", target: "t", cause: "refused"),
            ["event": "target_failed", "name": "shop", "target": "t", "cause": "refused"]
        ),
        (.stopped, ["event": "stopped"]),
    ]

    @Test("Each event is one JSON object on a line of its own", arguments: events.map(\.0))
    func json(event: AgentEvent) throws {
        let written = Written()
        JSONDisplay(write: written.write, now: { "T" }).show(event)
        #expect(written.all.hasSuffix("}\n"))
        #expect(written.all.filter { $0 == "\n" }.count == 1)
        let object = try #require(try JSONSerialization.jsonObject(with: Data(written.all.utf8)) as? [String: Any])
        let expected = try #require(Self.events.first { $0.0 == event }?.1)
        #expect(object["time"] as? String == "T")
        for (name, value) in expected { #expect(object[name].map { "\($0)" } == value, "\(name)") }
        #expect(object.count == expected.count + 1)
    }

    @Test("Without a terminal standard output has the public URLs and nothing else")
    func lines() {
        let written = Written()
        let display = LineDisplay(
            write: written.write, logger: Logs.logger("x", format: .human, level: .error, output: LogOutput { _ in }))
        for (event, _) in Self.events { display.show(event) }
        #expect(written.all == "http://shop.g/\n")
    }

    @Test(
        "Requests are asked for only where they are shown",
        arguments: [(Logger.Level.info, false), (.debug, true), (.trace, true)])
    func requestsWanted(_ level: Logger.Level, _ isWanted: Bool) {
        let logger = Logs.logger("x", format: .human, level: level, output: LogOutput { _ in })
        #expect(LineDisplay(write: { _ in }, logger: logger).showsRequests == isWanted)
        #expect(JSONDisplay(write: { _ in }).showsRequests)
        #expect(TerminalDisplay(write: { _ in }).showsRequests)
    }

    @Test("On a terminal the URL comes first, then requests; the status line follows the lanes")
    func terminal() {
        var lines = StatusLines()
        #expect(lines.text(for: .connecting(gateway: "g", attempt: 1)).isEmpty)
        #expect(lines.status.contains("connecting to g"))
        #expect(lines.text(for: .serving(name: "a", url: "http://u/", kind: .http, target: "t")).first == "http://u/")
        _ = lines.text(for: .laneUp(lane: 0, lanes: 1, wanted: 2))
        #expect(lines.status.contains("lanes ● 1/2"))
        _ = lines.text(for: .laneUp(lane: 1, lanes: 2, wanted: 2))
        _ = lines.text(for: .laneDown(lane: 0, cause: "x\u{1B}[2J", retry: 1))
        #expect(lines.status.contains("lanes ○● 1/2"))
        #expect(lines.status.contains("retry in 1.0 s"))
        #expect(lines.text(for: .laneRetry(lane: 0, cause: "y", retry: 2)).isEmpty)
        #expect(lines.status.contains("retry in 2.0 s"))
        let request = lines.text(
            for: .request(name: "a", method: "GET", path: "/\u{1B}]0;x", status: 502, milliseconds: 3))
        #expect(request.first?.contains("/\u{1B}]") == false)
        #expect(lines.status.contains("1 requests, 1 failed"))
    }

    @Test("A gateway that is not there is told of once on a terminal, and is no lane")
    func notConnected() {
        var lines = StatusLines()
        _ = lines.text(for: .connecting(gateway: "g", attempt: 1))
        #expect(lines.text(for: .connectFailed(cause: "refused", retry: 0.1)).first?.contains("refused") == true)
        _ = lines.text(for: .connecting(gateway: "g", attempt: 2))
        #expect(lines.text(for: .connectFailed(cause: "refused", retry: 1.5)).isEmpty)
        #expect(lines.status.contains("retry in 1.5 s"))
        #expect(!lines.status.contains("lanes"))
        #expect(!lines.text(for: .connectFailed(cause: "no route", retry: 1.5)).isEmpty)
    }

    @Test("A tunnel that was refused and is served later is told with its name")
    func granted() throws {
        let tunnels = try ["a", "b"].map { TunnelDefinition(name: $0, target: try TunnelTarget("1", kind: .http)) }
        var translator = EventTranslator(gateway: "g", tunnels: tunnels)
        let busy = TunnelRefusal(status: 429, reason: "busy")
        let grants = [TunnelGrant(name: "a", url: "http://a/"), TunnelGrant(name: "b", refusal: busy)]
        #expect(translator.translate(.connected(grants)).count == 2)
        #expect(translator.translate(.refused(busy)).isEmpty)
        let other = TunnelRefusal(status: 503, reason: "still busy")
        #expect(
            translator.translate(.granted(tunnel: 1, TunnelGrant(name: "b", refusal: other)))
                == [.refused(name: "b", status: 503, reason: "still busy")])
        #expect(
            translator.translate(.granted(tunnel: 1, TunnelGrant(name: "b", url: "http://b/")))
                == [.serving(name: "b", url: "http://b/", kind: .http, target: "http://localhost:1")])
        #expect(translator.translate(.granted(tunnel: 2, TunnelGrant(name: "c"))).isEmpty)
        #expect(
            translator.translate(.refused(busy)) == [.refused(name: nil, status: 429, reason: "busy")],
            "the agent as a whole")
    }

    @Test("The status line is cleared before other lines are written")
    func statusLine() {
        let written = Written()
        let display = TerminalDisplay(write: written.write)
        display.show(.laneUp(lane: 0, lanes: 1, wanted: 1))
        display.writeAround("log line\n")
        #expect(written.all.contains("\r\u{1B}[Klog line\n"))
    }
}
