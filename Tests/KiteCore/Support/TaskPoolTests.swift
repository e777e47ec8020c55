/// Jobs are run, bounded, and cancelled with their pool.
import KiteSupport
import Testing

@Suite(.timeLimit(.minutes(1))) struct TaskPoolTests {
    @Test func runsJobsGivenBeforeAndAfterItStarted() async throws {
        let pool = TaskPool(limit: 10)
        let (numbers, output) = AsyncStream.makeStream(of: Int.self)
        #expect(pool.spawn { output.yield(1) })
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await pool.run() }
            var iterator = numbers.makeAsyncIterator()
            #expect(await iterator.next() == 1)
            #expect(pool.spawn { output.yield(2) })
            #expect(await iterator.next() == 2)
            group.cancelAll()
            try await group.waitForAll()
        }
        #expect(pool.count == 0)
        #expect(!pool.spawn {})
    }

    @Test func refusesMoreThanItsLimit() async throws {
        let pool = TaskPool(limit: 2)
        #expect(pool.spawn {})
        #expect(pool.spawn {})
        #expect(!pool.spawn {})
        #expect(pool.count == 2)
    }

    @Test func shutdownCancelsRunningJobsAndRunsWaitingOnesCancelled() async throws {
        let pool = TaskPool(limit: 10)
        let (events, output) = AsyncStream.makeStream(of: String.self)
        var iterator = events.makeAsyncIterator()
        await withTaskGroup(of: Void.self) { group in
            group.addTask { try? await pool.run() }
            _ = pool.spawn {
                output.yield("running")
                try? await Task.sleep(for: .seconds(3600))
                output.yield(Task.isCancelled ? "cancelled" : "finished")
            }
            #expect(await iterator.next() == "running")
            group.cancelAll()
            #expect(await iterator.next() == "cancelled")
            await group.waitForAll()
        }
        let late = TaskPool(limit: 10)
        #expect(late.spawn { output.yield(Task.isCancelled ? "late cancelled" : "late finished") })
        await withTaskGroup(of: Void.self) { group in
            group.cancelAll()
            group.addTask { try? await late.run() }
        }
        #expect(await iterator.next()?.hasPrefix("late") == true)
        #expect(late.count == 0)
    }
}
