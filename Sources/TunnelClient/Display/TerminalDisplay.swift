/// Events for a person at a terminal: URLs first, requests as they pass, and one line at the bottom that says how things stand.
import KiteCommand
import Synchronization

final class TerminalDisplay: EventDisplay {
    private struct State {
        var lines = StatusLines()
        var isStatusShown = false
    }
    private let state = Mutex(State())
    private let write: @Sendable (String) -> Void

    init(write: @escaping @Sendable (String) -> Void) { self.write = write }

    var showsRequests: Bool { true }

    func show(_ event: AgentEvent) {
        state.withLock { state in
            let text = state.lines.text(for: event)
            var output = state.isStatusShown ? "\r\u{1B}[K" : ""
            output += text.map { $0 + "\n" }.joined()
            output += state.lines.status
            state.isStatusShown = !state.lines.status.isEmpty
            write(output)
        }
    }

    /// Writes lines of others (the log) without tearing the status line.
    func writeAround(_ line: String) {
        state.withLock { state in
            write((state.isStatusShown ? "\r\u{1B}[K" : "") + line + state.lines.status)
        }
    }
}

/// What the display says, without the terminal.
struct StatusLines: Sendable {
    private var lanes: [Int: String] = [:]
    private var wanted = 0
    private var requests = 0
    private var failures = 0
    private var note = ""
    /// Why connecting failed last: told once for as long as it stays the same.
    private var lastFailure = ""

    /// The lines to print for an event, for good.
    mutating func text(for event: AgentEvent) -> [String] {
        switch event {
        case .connecting(let gateway, let attempt):
            note = attempt == 1 ? "connecting to \(gateway)" : "connecting to \(gateway), attempt \(attempt)"
            return []
        case .serving(let name, let url, _, let target):
            note = ""
            lastFailure = ""
            return ["\(url)", dim("  \(name) leads to \(target)")]
        case .refused(let name, let status, let reason):
            return [red("\(name ?? "the gateway") refused: \(reason) (\(status))")]
        case .laneUp(let lane, _, let wanted):
            lanes[lane] = "up"
            self.wanted = wanted
            note = ""
            lastFailure = ""
            return []
        case .laneDown(let lane, let cause, let retry):
            lanes[lane] = "down"
            note = again(retry)
            return [yellow("lane \(lane) lost: \(HumanText.oneLine(cause))")]
        case .laneRetry(_, _, let retry):
            note = again(retry)
            return []
        case .connectFailed(let cause, let retry):
            note = again(retry)
            guard cause != lastFailure else { return [] }
            lastFailure = cause
            return [yellow("no connection to the gateway: \(HumanText.oneLine(cause))")]
        case .goingAway(let reason): return [yellow("the gateway is going away: \(HumanText.oneLine(reason))")]
        case .request(let name, let method, let path, let status, let milliseconds):
            requests += 1
            if status >= 500 { failures += 1 }
            let shown = "\(status)  \(milliseconds) ms  \(method) \(path)  \(name)"
            let line = HumanText.oneLine(shown)
            return [status >= 500 ? red(line) : status >= 400 ? yellow(line) : line]
        case .targetFailed(let name, let target, let cause):
            return [red("\(name): \(target) does not accept connections: \(HumanText.oneLine(cause))")]
        case .stopped:
            lanes = [:]
            note = ""
            wanted = 0
            return []
        }
    }

    /// The line at the bottom, without the line's end; empty when there is nothing to say.
    var status: String {
        guard wanted > 0 || !note.isEmpty else { return "" }
        var parts: [String] = []
        if wanted > 0 {
            let each = lanes.keys.sorted().map { lane in lanes[lane] == "up" ? "●" : "○" }.joined()
            parts.append("lanes \(each) \(lanes.values.count { $0 == "up" })/\(wanted)")
            parts.append("\(requests) requests" + (failures > 0 ? ", \(failures) failed" : ""))
        }
        if !note.isEmpty { parts.append(note) }
        return dim(parts.joined(separator: " · "))
    }

    private func again(_ retry: Double) -> String { retry > 0 ? "retry in \(seconds(retry))" : "reconnecting" }
    private func seconds(_ value: Double) -> String { "\((value * 10).rounded() / 10) s" }
    private func dim(_ text: String) -> String { "\u{1B}[2m\(text)\u{1B}[0m" }
    private func red(_ text: String) -> String { "\u{1B}[31m\(text)\u{1B}[0m" }
    private func yellow(_ text: String) -> String { "\u{1B}[33m\(text)\u{1B}[0m" }
}
