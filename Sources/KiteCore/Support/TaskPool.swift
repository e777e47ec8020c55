/// The way from event-loop code into structured concurrency: work that is started from a channel handler gets an owner here.
public import ServiceLifecycle
import Synchronization

/// Runs asynchronous jobs as child tasks of its ``run()``, so that none outlives the program's service group.
public final class TaskPool: Service {
    /// A unit of work; it should end soon after its task was cancelled.
    public typealias Job = @Sendable () async -> Void

    private struct State {
        var waiting: [Job] = []
        /// Jobs accepted and not finished.
        var count = 0
        var isShutDown = false
    }

    private let limit: Int
    private let state = Mutex(State())
    private let signals: AsyncStream<Void>
    private let signal: AsyncStream<Void>.Continuation

    /// - Parameter limit: how many jobs may be unfinished at a time.
    public init(limit: Int = 1024) {
        self.limit = limit
        (signals, signal) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// How many jobs are waiting or running.
    public var count: Int { state.withLock { $0.count } }

    /// Starts a job, from any thread. Jobs given before ``run()`` wait for it.
    ///
    /// An accepted job is always run; when the pool is shut down before it started, it runs in a cancelled task.
    /// - Returns: false when the job was refused: too many are unfinished, or the pool has been shut down.
    public func spawn(_ job: @escaping Job) -> Bool {
        let isAccepted = state.withLock { state in
            guard !state.isShutDown, state.count < limit else { return false }
            state.count += 1
            state.waiting.append(job)
            return true
        }
        if isAccepted { signal.yield() }
        return isAccepted
    }

    /// Runs the jobs until the task is cancelled or the service group shuts down gracefully; then cancels them and waits for
    /// their end.
    public func run() async throws {
        await cancelWhenGracefulShutdown {
            await withDiscardingTaskGroup { group in
                for await _ in self.signals { self.start(self.takeWaiting(), in: &group) }
                group.cancelAll()
                self.start(self.shutDown(), in: &group)
            }
        }
    }

    private func start(_ jobs: [Job], in group: inout DiscardingTaskGroup) {
        for job in jobs {
            group.addTask {
                await job()
                self.state.withLock { $0.count -= 1 }
            }
        }
    }

    private func takeWaiting() -> [Job] {
        state.withLock { state in
            defer { state.waiting = [] }
            return state.waiting
        }
    }

    private func shutDown() -> [Job] {
        signal.finish()
        return state.withLock { state in
            state.isShutDown = true
            defer { state.waiting = [] }
            return state.waiting
        }
    }
}
