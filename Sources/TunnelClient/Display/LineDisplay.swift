/// Events where nobody watches: the public URL alone on standard output, everything else as log lines.
import KiteCommand
import Logging

struct LineDisplay: EventDisplay {
    /// Standard output.
    let write: @Sendable (String) -> Void
    let logger: Logger

    /// They are debug lines here.
    var showsRequests: Bool { logger.logLevel <= .debug }

    func show(_ event: AgentEvent) {
        switch event {
        case .connecting(let gateway, let attempt):
            logger.log(
                level: attempt == 1 ? .debug : .info, "Connecting to the gateway",
                metadata: ["gateway": "\(gateway)", "attempt": "\(attempt)"])
        case .serving(let name, let url, let kind, let target):
            write(url + "\n")
            logger.info(
                "Serving", metadata: ["tunnel": "\(name)", "url": "\(url)", "kind": "\(kind)", "target": "\(target)"])
        case .refused(let name, let status, let reason):
            logger.error(
                "The gateway refuses",
                metadata: ["tunnel": "\(name ?? "all")", "status": "\(status)", "reason": "\(reason)"])
        case .laneUp(let lane, let lanes, let wanted):
            logger.info("Lane up", metadata: ["lane": "\(lane)", "lanes": "\(lanes)", "wanted": "\(wanted)"])
        case .laneDown(let lane, let cause, let retry):
            logger.warning(
                "Lane down", metadata: ["lane": "\(lane)", "cause": "\(cause)", "retry": "\(retry) s"])
        case .laneRetry(let lane, let cause, let retry):
            logger.debug(
                "Lane not back yet", metadata: ["lane": "\(lane)", "cause": "\(cause)", "retry": "\(retry) s"])
        case .connectFailed(let cause, let retry):
            logger.warning("The gateway cannot be reached", metadata: ["cause": "\(cause)", "retry": "\(retry) s"])
        case .goingAway(let reason):
            logger.notice("The gateway is going away", metadata: ["reason": "\(reason)"])
        case .request(let name, let method, let path, let status, let milliseconds):
            logger.debug(
                "Request",
                metadata: [
                    "tunnel": "\(name)", "method": "\(method)", "path": "\(path)", "status": "\(status)",
                    "ms": "\(milliseconds)",
                ])
        case .targetFailed(let name, let target, let cause):
            logger.warning(
                "The target does not accept connections",
                metadata: ["tunnel": "\(name)", "target": "\(target)", "cause": "\(cause)"])
        case .stopped: logger.info("Stopped")
        }
    }
}
