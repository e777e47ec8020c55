/// What the process itself uses: memory, files, processor time.
import Foundation

/// A look at `/proc/self`; zeros where there is none.
struct ProcessStatistics: Sendable, Hashable {
    var residentBytes = 0
    var openFiles = 0
    var maximumFiles = 0
    var cpuSeconds = 0.0
    var uptimeSeconds = 0.0

    /// When the process began to count its uptime.
    static let start = ContinuousClock.now

    /// Reads the present values. A few small reads of `/proc`: not for event loops.
    static func now() -> ProcessStatistics {
        var statistics = ProcessStatistics()
        let pageSize = sysconf(Int32(_SC_PAGESIZE))
        if let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) {
            let parts = text.split(separator: " ")
            statistics.residentBytes = parts.count > 1 ? (Int(parts[1]) ?? 0) * pageSize : 0
        }
        // The directory that is being read is open itself.
        let files = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd"))?.count ?? 0
        statistics.openFiles = max(0, files - 1)
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(7), &limit) == 0 { statistics.maximumFiles = Int(clamping: limit.rlim_cur) }
        var usage = rusage()
        if getrusage(__rusage_who_t(0), &usage) == 0 {
            func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1_000_000 }
            statistics.cpuSeconds = seconds(usage.ru_utime) + seconds(usage.ru_stime)
        }
        let uptime = start.duration(to: .now).components
        statistics.uptimeSeconds = Double(uptime.seconds) + Double(uptime.attoseconds) / 1e18
        return statistics
    }
}
