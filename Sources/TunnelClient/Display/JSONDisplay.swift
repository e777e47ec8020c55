/// Events for scripts: one JSON object a line on standard output.
import KiteCommand

struct JSONDisplay: EventDisplay {
    let write: @Sendable (String) -> Void
    var now: @Sendable () -> String = { Timestamp.now() }

    var showsRequests: Bool { true }

    func show(_ event: AgentEvent) { write(event.json(time: now()) + "\n") }
}
