/// Processes in groups of their own, which nothing outlives: neither a test nor the whole test run, however it ends.
import Foundation
import Synchronization

/// A process started in a process group of its own.
struct ProcessGroup: Sendable {
    let leader: pid_t
    /// The ends of the pipes that the process writes to, where asked for; the caller closes them.
    let output: Int32
    let errors: Int32

    /// One at a time, so that no child inherits the pipes of another.
    private static let spawning = Mutex(())

    /// - Parameters:
    ///   - input: a descriptor that becomes standard input; nothing to read where nil.
    ///   - isPiped: whether standard output and standard error are pipes, else they go nowhere.
    init(
        _ executable: String, _ arguments: [String], environment: [String: String], input: Int32? = nil,
        isPiped: Bool = true
    ) throws {
        let argv = ([executable] + arguments).map { strdup($0) } + [nil]
        let envp = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        let (failure, leader, output, errors) = try Self.spawning.withLock { _ in
            var actions = posix_spawn_file_actions_t()
            posix_spawn_file_actions_init(&actions)
            var attributes = posix_spawnattr_t()
            posix_spawnattr_init(&attributes)
            defer {
                posix_spawn_file_actions_destroy(&actions)
                posix_spawnattr_destroy(&attributes)
            }
            posix_spawnattr_setflags(
                &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
            posix_spawnattr_setpgroup(&attributes, 0)
            // The thread that runs a test may block signals, and this process ignores SIGPIPE; children do neither.
            var signals = sigset_t()
            sigemptyset(&signals)
            posix_spawnattr_setsigmask(&attributes, &signals)
            sigaddset(&signals, SIGPIPE)
            posix_spawnattr_setsigdefault(&attributes, &signals)
            if let input {
                posix_spawn_file_actions_adddup2(&actions, input, 0)
            } else {
                posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
            }
            let output = isPiped ? try Self.pipe() : (read: -1, write: -1)
            let errors = isPiped ? try Self.pipe() : (read: -1, write: -1)
            if isPiped {
                posix_spawn_file_actions_adddup2(&actions, output.write, 1)
                posix_spawn_file_actions_adddup2(&actions, errors.write, 2)
            } else {
                posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
                posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
            }
            var leader: pid_t = 0
            let failure = posix_spawn(&leader, executable, &actions, &attributes, argv, envp)
            if isPiped {
                close(output.write)
                close(errors.write)
            }
            return (failure, leader, output.read, errors.read)
        }
        guard failure == 0 else {
            if isPiped {
                close(output)
                close(errors)
            }
            throw HarnessError("\(executable) cannot be started: \(String(cString: strerror(failure)))")
        }
        (self.leader, self.output, self.errors) = (leader, output, errors)
    }

    /// Waits, blocking, until the leader has ended, and kills what it has left behind.
    ///
    /// Its number stays its own until ``reap()``.
    func waitForEnd() {
        var information = siginfo_t()
        while waitid(P_PID, id_t(leader), &information, WEXITED | WNOWAIT) < 0, errno == EINTR {}
        kill(-leader, SIGKILL)
    }

    /// Gives the number back to the system.
    /// - Returns: the exit code, or the number of the signal that killed it.
    func reap() -> Int32 {
        var status: Int32 = 0
        while waitpid(leader, &status, 0) < 0, errno == EINTR {}
        return status & 0x7F == 0 ? (status >> 8) & 0xFF : status & 0x7F
    }

    /// A pipe that no child inherits.
    fileprivate static func pipe() throws -> (read: Int32, write: Int32) {
        var ends: [Int32] = [-1, -1]
        guard Foundation.pipe(&ends) == 0 else { throw HarnessError("no pipe") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (ends[0], ends[1])
    }
}

/// `reaper.py`: kills the process groups of this test run when the run is gone, even if it was killed itself.
struct Reaper: Sendable {
    /// What the reaper reads: a line for each group that begins or ends. It closes with this process.
    private let pipe: Int32

    static let shared = Result { try Reaper() }

    private init() throws {
        let (read, write) = try ProcessGroup.pipe()
        defer { close(read) }
        // A reaper that was killed must not take the test run with it.
        signal(SIGPIPE, SIG_IGN)
        _ = try ProcessGroup(
            Place.python, [Place.peer("reaper.py")], environment: [:], input: read, isPiped: false)
        pipe = write
    }

    func began(_ group: pid_t) { tell("+\(group)\n") }
    func ended(_ group: pid_t) { tell("-\(group)\n") }

    private func tell(_ line: String) { _ = line.withCString { write(pipe, $0, strlen($0)) } }
}
