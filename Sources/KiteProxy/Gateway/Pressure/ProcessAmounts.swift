/// What the process uses and may use, as the system says it.
import Glibc

/// Reads a few small files of `/proc` and `/sys`. Not for event loops.
enum ProcessAmounts {
    /// Resident memory and open descriptors.
    static func used() -> PressureStateMachine.Amounts {
        var used = PressureStateMachine.Amounts()
        if let pages = text(of: "/proc/self/statm")?.split(separator: " ").dropFirst().first.flatMap({ Int($0) }) {
            used.memory = pages * sysconf(Int32(_SC_PAGESIZE))
        }
        var status = stat()
        // Linux 6.2 and later say here how many there are; counting them is slow where there are many.
        if stat("/proc/self/fd", &status) == 0, status.st_size > 0 {
            used.descriptors = Int(status.st_size)
        } else {
            used.descriptors = countedDescriptors()
        }
        return used
    }

    /// The memory that the control group allows, and the descriptors that the process may have.
    static func limits() -> PressureStateMachine.Amounts {
        PressureStateMachine.Amounts(memory: controlGroupMemory(), descriptors: descriptorLimit())
    }

    static func descriptorLimit() -> Int? {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(7), &limit) == 0 else { return nil }
        return Int(clamping: limit.rlim_cur)
    }

    /// Lets the allocator return what it keeps for later. Without it a process stays large that was large once, where its C library has such
    /// a function.
    static func giveBackMemory() {
        guard let symbol = dlsym(nil, "malloc_trim") else { return }
        _ = unsafeBitCast(symbol, to: (@convention(c) (Int) -> CInt).self)(0)
    }

    private static func countedDescriptors() -> Int? {
        guard let directory = opendir("/proc/self/fd") else { return nil }
        defer { closedir(directory) }
        var count = 0
        while readdir(directory) != nil { count += 1 }
        // Not `.`, `..` and the directory itself.
        return count - 3
    }

    /// The smallest limit of the group and those it is in.
    static func controlGroupMemory() -> Int? {
        guard let groups = text(of: "/proc/self/cgroup") else { return nil }
        var smallest: Int?
        for line in groups.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            let (root, file): (String, String)
            if parts[1].isEmpty {
                (root, file) = ("/sys/fs/cgroup", "memory.max")
            } else if parts[1].split(separator: ",").contains("memory") {
                (root, file) = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            } else {
                continue
            }
            var path = String(parts[2])
            while true {
                if let text = text(of: root + path + "/" + file), let limit = limit(text) {
                    smallest = min(smallest ?? limit, limit)
                }
                guard let slash = path.lastIndex(of: "/") else { break }
                path = String(path[..<slash])
            }
        }
        return smallest
    }

    /// `max`, and the first version's number that stands for it, are no limit.
    static func limit(_ text: String) -> Int? {
        guard let limit = Int(text.prefix { $0.isNumber }), limit > 0, limit < 1 << 60 else { return nil }
        return limit
    }

    private static func text(of path: String) -> String? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = read(file, &bytes, bytes.count)
        return count >= 0 ? String(decoding: bytes.prefix(count), as: UTF8.self) : nil
    }
}
