/// Does one piece of a message's way through the gateway again and again, for `scripts/benchmark`, which counts instructions and
/// allocations under valgrind.
///
///     MicroBenchmarks                     names the benchmarks
///     MicroBenchmarks NAME ITERATIONS     runs one; everything else happens once, so two runs tell what an iteration costs
import NIOCore

/// A benchmark: `prepare` sets it up and gives what is done in each iteration.
struct MicroBenchmark: Sendable {
    let name: String
    let prepare: @Sendable () -> () throws -> Void
}

@main
enum MicroBenchmarks {
    static let all = httpBenchmarks + tunnelBenchmarks + messageBenchmarks

    static func main() throws {
        let arguments = CommandLine.arguments
        guard arguments.count == 3, let count = Int(arguments[2]) else {
            for benchmark in all { print(benchmark.name) }
            return
        }
        guard let benchmark = all.first(where: { $0.name == arguments[1] }) else {
            throw UnknownBenchmark(name: arguments[1])
        }
        let iteration = benchmark.prepare()
        for _ in 0..<count { try iteration() }
    }
}

struct UnknownBenchmark: Error {
    let name: String
}

/// What a benchmark found to be other than it should be: it measures nothing then.
struct WrongResult: Error {
    let benchmark: String
}
