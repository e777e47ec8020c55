/// A program run by a test: its standard output line by line, its end, its memory, and no way to outlive the test.
import Foundation
import Synchronization

struct HarnessError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// A child process with piped output. Killed when the object goes away.
final class ChildProcess: Sendable {
    private let process: Process
    /// Standard error, kept for the message of a failing test (its last 64 KiB).
    private let errors = Mutex(Data())
    let lines: AsyncStream<String>
    private let output = Mutex<[String]>([])
    private let ended: AsyncStream<Int32>

    var pid: Int32 { process.processIdentifier }
    var standardError: String { errors.withLock { String(decoding: $0, as: UTF8.self) } }
    var standardOutput: [String] { output.withLock { $0 } }

    init(_ executable: String, _ arguments: [String], environment: [String: String] = [:]) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: executable)
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardInput = FileHandle.nullDevice
        let (outputPipe, errorPipe) = (Pipe(), Pipe())
        process.standardOutput = outputPipe
        process.standardError = errorPipe
        let (lines, lineSink) = AsyncStream.makeStream(of: String.self)
        let (ended, endSink) = AsyncStream.makeStream(of: Int32.self)
        self.process = process
        self.lines = lines
        self.ended = ended
        let rest = LineBuffer()
        outputPipe.fileHandleForReading.readabilityHandler = { [weak self] handle in
            let data = handle.availableData
            if data.isEmpty {
                handle.readabilityHandler = nil
                lineSink.finish()
                return
            }
            for line in rest.append(data) {
                self?.output.withLock { $0.append(line) }
                lineSink.yield(line)
            }
        }
        errorPipe.fileHandleForReading.readabilityHandler = { [weak self] handle in
            let data = handle.availableData
            if data.isEmpty { handle.readabilityHandler = nil }
            self?.errors.withLock { $0 = ($0 + data).suffix(64 << 10) }
        }
        process.terminationHandler = { process in
            endSink.yield(process.terminationStatus)
            endSink.finish()
        }
        try process.run()
    }

    deinit { kill(SIGKILL) }

    /// Sends a signal; nothing happens once the process has ended.
    func kill(_ signal: Int32) {
        if process.isRunning { Foundation.kill(process.processIdentifier, signal) }
    }

    /// The exit status, once it has ended by itself or by a signal (then the signal's number).
    func waitForEnd() async throws -> Int32 {
        for await status in ended { return status }
        return process.terminationStatus
    }

    /// Ends it as an operator would and waits for it.
    @discardableResult
    func terminate() async throws -> Int32 {
        kill(SIGTERM)
        return try await waitForEnd()
    }

    /// The first line of output that satisfies a condition. Lines before it are consumed.
    func line(within seconds: Double = 20, where matches: @escaping @Sendable (String) -> Bool = { _ in true })
        async throws
        -> String
    {
        try await deadline(seconds, "a line of output from \(process.executableURL?.lastPathComponent ?? "")", self) {
            for await line in self.lines where matches(line) { return line }
            throw HarnessError("the output ended; standard error: \(self.standardError)")
        }
    }

    /// Resident memory in bytes.
    var residentBytes: Int {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)) ?? ""
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") }) else { return 0 }
        return (Int(line.split(whereSeparator: { !$0.isNumber }).first ?? "") ?? 0) * 1024
    }

    /// The largest resident memory it ever had, in bytes.
    var peakResidentBytes: Int {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)) ?? ""
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("VmHWM:") }) else { return 0 }
        return (Int(line.split(whereSeparator: { !$0.isNumber }).first ?? "") ?? 0) * 1024
    }

    /// Runs a program to its end and returns its standard output.
    /// - Throws: ``HarnessError`` with its standard error when it fails.
    static func run(
        _ executable: String, _ arguments: [String], environment: [String: String] = [:], within seconds: Double = 60
    ) async throws -> String {
        let child = try ChildProcess(executable, arguments, environment: environment)
        return try await deadline(seconds, "\(executable) \(arguments.joined(separator: " "))", child) {
            var output: [String] = []
            for await line in child.lines { output.append(line) }
            let status = try await child.waitForEnd()
            guard status == 0 else { throw HarnessError("\(executable) exited \(status): \(child.standardError)") }
            return output.joined(separator: "\n")
        }
    }
}

/// Fails an operation that takes longer than it may.
func deadline<Result: Sendable>(
    _ seconds: Double, _ what: String, _ child: ChildProcess? = nil,
    _ operation: @escaping @Sendable () async throws -> Result
) async throws -> Result {
    try await withThrowingTaskGroup(of: Result?.self) { group in
        group.addTask { try await operation() }
        group.addTask {
            try await Task.sleep(for: .seconds(seconds))
            return nil
        }
        defer { group.cancelAll() }
        guard let first = try await group.next(), let result = first else {
            throw HarnessError("not within \(seconds) s: \(what)\n\(child?.standardError ?? "")")
        }
        return result
    }
}

/// Cuts bytes into lines; what is left over waits for more.
private final class LineBuffer: Sendable {
    private let rest = Mutex(Data())

    func append(_ data: Data) -> [String] {
        rest.withLock { rest in
            rest.append(data)
            var lines: [String] = []
            while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                lines.append(String(decoding: rest[rest.startIndex..<end], as: UTF8.self))
                rest.removeSubrange(rest.startIndex...end)
            }
            return lines
        }
    }
}
