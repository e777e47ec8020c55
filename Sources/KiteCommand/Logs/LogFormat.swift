/// Where and how log lines are written: to standard error, for a human or as JSON lines.
package import Logging
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// How log lines look.
package enum LogFormat: String, Sendable, CaseIterable {
    /// One line of text, coloured on a terminal.
    case human
    /// One JSON object a line.
    case json
}

/// The levels one can choose on the command line.
package enum LogLevel: String, Sendable, CaseIterable {
    case trace, debug, info, notice, warning, error

    package var level: Logger.Level {
        switch self {
        case .trace: .trace
        case .debug: .debug
        case .info: .info
        case .notice: .notice
        case .warning: .warning
        case .error: .error
        }
    }
}

/// Takes finished lines. Lines of several threads never mix.
package struct LogOutput: Sendable {
    package let write: @Sendable (String) -> Void
    /// Whether lines may be coloured.
    package let isTerminal: Bool

    package init(isTerminal: Bool = false, write: @escaping @Sendable (String) -> Void) {
        self.write = write
        self.isTerminal = isTerminal
    }

    /// Standard error. A line is one `write`, so that lines of other processes on the same pipe do not break it either.
    package static let standardError = LogOutput(
        isTerminal: isatty(STDERR_FILENO) == 1 && getenv("NO_COLOR") == nil
    ) { line in
        writeAll(line, to: STDERR_FILENO)
    }
}

private let outputLock = Mutex(())

/// Writes text completely, one caller at a time; gives up where the reader has gone.
package func writeAll(_ text: String, to descriptor: Int32) {
    var text = text
    outputLock.withLock { _ in
        text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while !rest.isEmpty {
                let written = write(descriptor, rest.baseAddress, rest.count)
                if written < 0, errno == EINTR { continue }
                guard written > 0 else { return }
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(written))
            }
        }
    }
}

/// The loggers of a program.
package enum Logs {
    /// A logger that writes in a format from a level upwards.
    package static func logger(
        _ label: String, format: LogFormat, level: Logger.Level, output: LogOutput = .standardError
    ) -> Logger {
        var logger = Logger(label: label) { label in
            switch format {
            case .human: HumanLogHandler(label: label, output: output)
            case .json: JSONLogHandler(label: label, output: output)
            }
        }
        logger.logLevel = level
        return logger
    }

    /// Makes loggers that libraries create for themselves write the same way. Once per process; later calls change nothing.
    package static func bootstrap(format: LogFormat, level: Logger.Level) {
        let isFirst = bootstrapped.withLock { done in
            defer { done = true }
            return !done
        }
        guard isFirst else { return }
        LoggingSystem.bootstrap { label in
            switch format {
            case .human:
                var handler = HumanLogHandler(label: label, output: .standardError)
                handler.logLevel = level
                return handler
            case .json:
                var handler = JSONLogHandler(label: label, output: .standardError)
                handler.logLevel = level
                return handler
            }
        }
    }

    private static let bootstrapped = Mutex(false)
}
