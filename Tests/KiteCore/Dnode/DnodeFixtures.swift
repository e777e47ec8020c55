/// Messages that real peers sent, one per line in `Fixtures/`, and small helpers for the tests.
import KiteDnode
import NIOCore
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

enum Fixtures {
    /// The lines of a file in `Fixtures/`.
    static func lines(_ name: String) throws -> [String] {
        let path = #filePath.split(separator: "/").dropLast().joined(separator: "/")
        let file = try #require(fopen("/\(path)/Fixtures/\(name)", "r"))
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while case let count = fread(&chunk, 1, chunk.count, file), count > 0 { bytes += chunk[..<count] }
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
        try #require(!lines.isEmpty)
        return lines
    }
}

/// A function that stands for the peer's callback `id`, the same one for the same number.
struct PeerFunctions: Sendable {
    let table: [DnodeFunction] = (0..<1024).map { _ in DnodeFunction { _ in } }
    let other = DnodeFunction { _ in }
    func callAsFunction(_ id: DnodeCallbackID) -> DnodeFunction {
        table.indices.contains(id.rawValue) ? table[id.rawValue] : other
    }
}

func parse(_ text: String, limits: DnodeLimits = DnodeLimits()) throws -> DnodeValue {
    try DnodeValue(parsing: ByteBuffer(string: text), limits: limits)
}

func text(_ value: DnodeValue) throws -> String { String(buffer: try value.serialized()) }
