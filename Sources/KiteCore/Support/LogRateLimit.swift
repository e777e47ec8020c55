/// Keeps a flood of equal events (refused connections, malformed heads) from becoming a flood of log lines.
public import NIOCore

/// Admits at most so many lines per cause and second, and counts those it held back. A value: keep one per event loop.
public struct LogRateLimit<Cause: Hashable & Sendable>: Sendable {
    private struct Window: Sendable {
        var start: NIODeadline
        var lines = 0
        var suppressed = 0
    }

    private let linesPerSecond: Int
    private let maximumCauses: Int
    private var windows: [Cause: Window] = [:]

    /// - Parameter maximumCauses: how many causes are told apart at a time; the bound on memory when causes come from outside.
    public init(linesPerSecond: Int = 5, maximumCauses: Int = 256) {
        self.linesPerSecond = max(linesPerSecond, 1)
        self.maximumCauses = max(maximumCauses, 1)
    }

    /// Asks for a line.
    /// - Returns: nil when the line is to be left out, otherwise how many lines of this cause were left out since the last one,
    ///   to be mentioned in it.
    public mutating func admit(_ cause: Cause, now: NIODeadline) -> Int? {
        guard var window = windows[cause] else {
            if windows.count >= maximumCauses { windows = windows.filter { now - $0.value.start < .seconds(1) } }
            guard windows.count < maximumCauses else { return nil }
            windows[cause] = Window(start: now, lines: 1)
            return 0
        }
        if now - window.start >= .seconds(1) {
            windows[cause] = Window(start: now, lines: 1)
            return window.suppressed
        }
        if window.lines < linesPerSecond {
            window.lines += 1
            let suppressed = window.suppressed
            window.suppressed = 0
            windows[cause] = window
            return suppressed
        }
        window.suppressed += 1
        windows[cause] = window
        return nil
    }
}
