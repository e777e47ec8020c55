/// Reads and writes the small files that hold keys, with the modes they must have.
#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#else
internal import Darwin
#endif

/// A file with a key in it. Blocking calls on small files: not for event loops.
package enum KeyFile {
    /// Who may do what with a file.
    package enum Mode: UInt16 {
        /// Its owner reads.
        case ownerReads = 0o400
        /// Its owner reads and writes.
        case ownerWrites = 0o600
        /// Everyone reads, its owner writes.
        case everyoneReads = 0o644
    }

    /// Files that are larger are no key files.
    package static let maximumSize = 65536

    /// The whole file as text.
    /// - Throws: ``KeyError`` with `notFound`, `fileAccess` or `malformed`.
    package static func read(_ path: String) throws(KeyError) -> String {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            throw errno == ENOENT
                ? KeyError(.notFound, "\(path) does not exist") : KeyError(.fileAccess, "\(path): \(reason())")
        }
        defer { close(file) }
        var bytes: [UInt8] = []
        while bytes.count <= maximumSize {
            let part = try withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 8192) {
                buffer throws(KeyError) -> [UInt8] in
                let count = Self.read(file, buffer)
                guard count >= 0 else { throw KeyError(.fileAccess, "\(path): \(reason())") }
                return Array(buffer.prefix(count))
            }
            if part.isEmpty { return String(decoding: bytes, as: UTF8.self) }
            bytes += part
        }
        throw KeyError(.malformed, "\(path) is too large for a key file")
    }

    /// Writes a file completely or not at all, with exactly this mode.
    /// - Parameter replacing: whether a file that is there may be replaced; otherwise ``KeyError/Code/exists`` is thrown.
    package static func write(_ text: String, to path: String, mode: Mode, replacing: Bool) throws(KeyError) {
        // The name is unguessable only by process and address; O_EXCL makes a planted file an error.
        let temporary = "\(path).\(getpid()).\(UInt32.random(in: 0 ... .max))"
        let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard file >= 0 else { throw KeyError(.fileAccess, "\(path): \(reason())") }
        defer { unlink(temporary) }
        var written = 0
        let bytes = Array(text.utf8)
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes { Self.write(file, $0) }
            guard count > 0 else {
                let cause = reason()
                close(file)
                throw KeyError(.fileAccess, "\(path): \(cause)")
            }
            written += count
        }
        guard fchmod(file, mode_t(mode.rawValue)) == 0, fsync(file) == 0 else {
            let cause = reason()
            close(file)
            throw KeyError(.fileAccess, "\(path): \(cause)")
        }
        close(file)
        // link(2) fails where rename(2) would replace.
        guard replacing ? rename(temporary, path) == 0 : link(temporary, path) == 0 else {
            throw errno == EEXIST
                ? KeyError(.exists, "\(path) exists already and is not overwritten")
                : KeyError(.fileAccess, "\(path): \(reason())")
        }
    }

    /// Makes a directory and those above it, of mode 0700, where they do not exist.
    package static func makeDirectory(_ path: String) throws(KeyError) {
        if mkdir(path, 0o700) == 0 || errno == EEXIST { return }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else {
            throw KeyError(.fileAccess, "\(path): \(reason())")
        }
        try makeDirectory(String(path[..<slash]))
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else {
            throw KeyError(.fileAccess, "\(path): \(reason())")
        }
    }

    /// Removes a file, if it is there.
    package static func remove(_ path: String) throws(KeyError) {
        guard unlink(path) == 0 || errno == ENOENT else { throw KeyError(.fileAccess, "\(path): \(reason())") }
    }

    /// Whether there is something at the path.
    package static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    private static func read(_ file: Int32, _ buffer: UnsafeMutableBufferPointer<UInt8>) -> Int {
        while true {
            #if canImport(Glibc)
            let count = Glibc.read(file, buffer.baseAddress, buffer.count)
            #elseif canImport(Musl)
            let count = Musl.read(file, buffer.baseAddress, buffer.count)
            #else
            let count = Darwin.read(file, buffer.baseAddress, buffer.count)
            #endif
            if count >= 0 || errno != EINTR { return count }
        }
    }

    private static func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer) -> Int {
        while true {
            #if canImport(Glibc)
            let count = Glibc.write(file, bytes.baseAddress, bytes.count)
            #elseif canImport(Musl)
            let count = Musl.write(file, bytes.baseAddress, bytes.count)
            #else
            let count = Darwin.write(file, bytes.baseAddress, bytes.count)
            #endif
            if count >= 0 || errno != EINTR { return count }
        }
    }

    private static func reason() -> String { String(cString: strerror(errno)) }
}
