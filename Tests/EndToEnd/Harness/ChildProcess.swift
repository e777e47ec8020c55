/// A program run by a test: its standard output line by line, its end, its memory, and no way to outlive the test.
import Foundation
import Synchronization

struct HarnessError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// A child process with piped output, the first of a process group. The group is killed when the object goes away, when the process ends,
/// and when the test run does.
///
/// Three threads of its own read both pipes and wait for the end, so that no event can be missed.
final class ChildProcess: Sendable {
    let pid: Int32
    let lines: AsyncStream<String>
    private let name: String
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

    /// - Parameter environment: added to what ``inherited(_:)`` leaves of the test's own.
    init(_ executable: String, _ arguments: [String], environment: [String: String] = [:]) throws {
        name = URL(fileURLWithPath: executable).lastPathComponent
        let reaper = try Reaper.shared.get()
        let group = try ProcessGroup(
            executable, arguments,
            environment: Self.inherited(ProcessInfo.processInfo.environment).merging(environment) { $1 })
        reaper.began(group.leader)
        pid = group.leader
        let (lines, sink) = AsyncStream.makeStream(of: String.self)
        self.lines = lines
        let (record, ending) = (record, ending)
        let reading = DispatchGroup()
        reading.enter()
        reading.enter()
        Thread.detachNewThread {
            var rest = Data()
            readAll(group.output) { data in
                rest.append(data)
                while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                    let line = String(decoding: rest[rest.startIndex..<end], as: UTF8.self)
                    rest.removeSubrange(rest.startIndex...end)
                    record.output.withLock { $0.append(line) }
                    sink.yield(line)
                }
            }
            sink.finish()
            reading.leave()
        }
        Thread.detachNewThread {
            readAll(group.errors) { data in record.errors.withLock { $0 = ($0 + data).suffix(64 << 10) } }
            reading.leave()
        }
        Thread.detachNewThread {
            group.waitForEnd()
            reaper.ended(group.leader)
            // Whoever waits for the end may look at the last words, too. What the process started may hold the pipes open.
            _ = reading.wait(timeout: .now() + .seconds(1))
            ending.come { group.reap() }
        }
    }

    /// What a child gets of the test's environment: nothing that would change how the programs behave.
    static func inherited(_ variables: [String: String]) -> [String: String] {
        let proxies: Set = ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy"]
        let prefixes = ["KITE_", "KITEPROXY_", "TUNNELCLIENT_"]
        return variables.filter { name, _ in
            !proxies.contains(name.lowercased()) && !prefixes.contains(where: name.hasPrefix)
        }
    }

    deinit { kill(SIGKILL) }

    /// Sends it a signal; nothing happens once the process has ended. What it has started itself ends with it.
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

    /// - Parameter reap: gives back the process's number; from then on it may be another's.
    func come(_ reap: () -> Int32) {
        let (status, waiters) = state.withLock { state in
            let status = reap()
            state.status = status
            defer { state.waiters = [] }
            return (status, state.waiters)
        }
        for waiter in waiters { waiter.yield(status) }
    }

    /// Runs something unless the process's number may be another's by now.
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
