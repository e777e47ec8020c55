/// The methods that every kite has.
import KiteDnode
import Logging

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

extension Kite {
    /// `kite.tunnel` is not among them; it belongs to whoever sets up a tunnel.
    func registerBuiltInMethods() {
        handle("kite.ping", .anonymous) { _ in "pong" }
        handle("kite.systemInfo") { _ in SystemInfo() }
        handle("kite.heartbeat") { (request, seconds: Double, ping: DnodeFunction) in
            guard seconds >= 0.1, seconds <= 86400 else {
                throw KiteError(.argument, "The interval must be from 0.1 to 86400 seconds")
            }
            let connection = request.remote.connection
            let heartbeat = connection.beginHeartbeat()
            request.runAfterAnswer {
                while connection.isCurrent(heartbeat: heartbeat) {
                    do {
                        try await ping.call(arguments: [])
                        try await Task.sleep(for: .seconds(seconds))
                    } catch { return }
                }
            }
        }
        handle("kite.log") { [logger] (request, message: String) in
            logger.info("\(sanitized(message))", metadata: ["caller": "\(sanitized("\(request.caller)"))"])
        }
        // There is no terminal to print to; the operator reads the log.
        handle("kite.print") { [logger] (request, message: String) in
            logger.info("\(sanitized(message))", metadata: ["caller": "\(sanitized("\(request.caller)"))"])
        }
        for method in ["kite.prompt", "kite.getPass"] {
            handle(method) { (_) throws -> DnodeValue in
                throw KiteError(.generic, "\(method) is not supported: this kite has no terminal")
            }
        }
    }
}

/// Text of a stranger for a log or a terminal: without controls that could change what a reader sees, at most 1024 characters.
func sanitized(_ text: String) -> String {
    var clean = String.UnicodeScalarView()
    for scalar in text.unicodeScalars.prefix(1024) {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned:
            clean.append("\u{FFFD}")
        default: clean.append(scalar)
        }
    }
    if text.unicodeScalars.count > 1024 { clean.append("…") }
    return String(clean)
}

/// What `kite.systemInfo` answers: memory in bytes, disk in KiB, as Go's kites count.
struct SystemInfo: Encodable {
    var state = "RUNNING"
    var diskUsage: Int64 = 0
    var diskTotal: Int64 = 0
    var memoryUsage: Int64 = 0
    var totalMemoryLimit: Int64 = 0
    var homeDir = getenv("HOME").map { String(cString: $0) } ?? "/"
    #if os(Linux)
    var uname = "linux"
    #else
    var uname = "darwin"
    #endif

    init() {
        var disk = statvfs()
        if statvfs("/", &disk) == 0 {
            let unit = Int64(clamping: disk.f_frsize)
            diskTotal = (Int64(clamping: disk.f_blocks) &* unit) / 1024
            diskUsage = (Int64(clamping: disk.f_blocks - min(disk.f_bfree, disk.f_blocks)) &* unit) / 1024
        }
        #if os(Linux)
        let page = Int64(sysconf(Int32(_SC_PAGESIZE)))
        totalMemoryLimit = Int64(sysconf(Int32(_SC_PHYS_PAGES))) &* page
        memoryUsage = totalMemoryLimit - Int64(sysconf(Int32(_SC_AVPHYS_PAGES))) &* page
        #endif
    }
}
