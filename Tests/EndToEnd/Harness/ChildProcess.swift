/// A program run by a test: its standard output line by line, its end, its memory, and no way to outlive the test.
import Foundation
import Synchronization

struct HarnessError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// A child process with piped output. Killed when the object goes away.
///
/// Three threads of its own read both pipes and wait for the end, so that no event can be missed.
final class ChildProcess: Sendable {
    let pid: Int32
    let lines: AsyncStream<String>
    private let name: String
    private static let spawning = Mutex(())
    private let record = Record()
    private let ending = Ending()

    /// What the process has written so far.
    private final class Record: Sendable {
        let output = Mutex<[String]>([])
        /// Standard error, kept for the message of a failing test (its last 64 KiB).
        let errors = Mutex(Data())
    }

    var standardError: String { record.errors.withLock { String(decoding: $0, as: UTF8.self) } }
    var standardOutput: [String] { record.output.withLock { $0 } }

    init(_ executable: String, _ arguments: [String], environment: [String: String] = [:]) throws {
        name = URL(fileURLWithPath: executable).lastPathComponent
        let variables = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let argv = ([executable] + arguments).map { strdup($0) } + [nil]
        let envp = variables.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        // One at a time, so that no child inherits the pipes of another.
        let (failure, child, output, errors) = try Self.spawning.withLock { _ in
            var output: [Int32] = [-1, -1]
            var errors: [Int32] = [-1, -1]
            guard pipe(&output) == 0, pipe(&errors) == 0 else { throw HarnessError("no pipes") }
            for descriptor in output + errors { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
            var actions = posix_spawn_file_actions_t()
            posix_spawn_file_actions_init(&actions)
            defer { posix_spawn_file_actions_destroy(&actions) }
            posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
            posix_spawn_file_actions_adddup2(&actions, output[1], 1)
            posix_spawn_file_actions_adddup2(&actions, errors[1], 2)
            var child: pid_t = 0
            let failure = posix_spawn(&child, executable, &actions, nil, argv, envp)
            close(output[1])
            close(errors[1])
            return (failure, child, output, errors)
        }
        guard failure == 0 else {
            close(output[0])
            close(errors[0])
            throw HarnessError("\(executable) cannot be started: \(String(cString: strerror(failure)))")
        }
        pid = child
        let (lines, sink) = AsyncStream.makeStream(of: String.self)
        self.lines = lines
        let (record, ending) = (record, ending)
        let (outputEnd, errorEnd) = (output[0], errors[0])
        Thread.detachNewThread {
            var rest = Data()
            readAll(outputEnd) { data in
                rest.append(data)
                while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                    let line = String(decoding: rest[rest.startIndex..<end], as: UTF8.self)
                    rest.removeSubrange(rest.startIndex...end)
                    record.output.withLock { $0.append(line) }
                    sink.yield(line)
                }
            }
            sink.finish()
        }
        Thread.detachNewThread {
            readAll(errorEnd) { data in record.errors.withLock { $0 = ($0 + data).suffix(64 << 10) } }
        }
        Thread.detachNewThread {
            var status: Int32 = 0
            while waitpid(child, &status, 0) < 0, errno == EINTR {}
            // Exited: the exit code; killed: the signal's number.
            ending.come(status & 0x7F == 0 ? (status >> 8) & 0xFF : status & 0x7F)
        }
    }

    deinit { kill(SIGKILL) }

    /// Sends a signal; nothing happens once the process has ended.
    func kill(_ signal: Int32) {
        ending.ifRunning { _ = Foundation.kill(pid, signal) }
    }

    /// The exit status, once it has ended by itself or by a signal (then the signal's number).
    func waitForEnd() async throws -> Int32 { try await ending.status() }

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
        try await deadline(seconds, "a line of output from \(name)", self) {
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

/// Reads a descriptor to its end, blocking, and closes it.
private func readAll(_ descriptor: Int32, _ consume: (Data) -> Void) {
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while true {
        let count = read(descriptor, &buffer, buffer.count)
        if count > 0 {
            consume(Data(buffer[..<count]))
        } else if count == 0 || errno != EINTR {
            break
        }
    }
    close(descriptor)
}

/// The end of a process, waited for by any number of tasks.
private final class Ending: Sendable {
    private struct State {
        var status: Int32?
        var waiters: [AsyncStream<Int32>.Continuation] = []
    }
    private let state = Mutex(State())

    func come(_ status: Int32) {
        let waiters = state.withLock { state in
            state.status = status
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.yield(status) }
    }

    /// Runs something unless the process has ended and its number may be another's by now.
    func ifRunning(_ body: () -> Void) {
        state.withLock { state in
            if state.status == nil { body() }
        }
    }

    func status() async throws -> Int32 {
        let (stream, continuation) = AsyncStream.makeStream(of: Int32.self)
        let status = state.withLock { state in
            if state.status == nil { state.waiters.append(continuation) }
            return state.status
        }
        if let status { return status }
        for await status in stream { return status }
        throw CancellationError()
    }
}
