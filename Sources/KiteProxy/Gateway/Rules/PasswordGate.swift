/// Checks the passwords of basic authentication without ever keeping an event loop waiting.
import Crypto
import Foundation
import KiteHTTP
import KiteSupport
import NIOCore
import NIOPosix
import Synchronization

/// Users with their hashes, and what tells one such list from another.
final class PasswordList: Sendable {
    let users: [String: PasswordHash]
    /// Of this list alone in the life of the process.
    let number: UInt64
    private static let numbers = Atomic<UInt64>(1)

    init(_ users: [String: PasswordHash]) {
        self.users = users
        number = Self.numbers.add(1, ordering: .relaxed).oldValue
    }

    /// Whether an Authorization field names a user and its password. Takes as long for users that do not exist.
    func admits(_ authorization: [UInt8]) -> Bool {
        guard let credentials = Self.credentials(authorization) else { return false }
        let user = String(decoding: credentials.user, as: UTF8.self)
        if let hash = users[user] { return hash.matches(credentials.password) }
        _ = users.values.first?.matches(credentials.password)
        return false
    }

    /// `Basic` and user and password in Base64, joined with a colon (RFC 7617).
    static func credentials(_ authorization: [UInt8]) -> (user: ArraySlice<UInt8>, password: ArraySlice<UInt8>)? {
        guard isBasic(authorization), let text = Data(base64Encoded: Data(authorization.dropFirst(6))) else {
            return nil
        }
        let bytes = [UInt8](text)
        guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")), bytes.count <= 512 else { return nil }
        return (bytes[..<colon], bytes[(colon + 1)...])
    }

    static func isBasic(_ authorization: some Collection<UInt8>) -> Bool {
        authorization.count > 6 && authorization.count <= 1024
            && zip(authorization, "basic ".utf8).allSatisfy { ($0 >= 0x41 && $0 <= 0x5A ? $0 | 0x20 : $0) == $1 }
    }
}

/// Remembers, on one event loop, which Authorization fields are right, by keyed hash; has others checked on a thread of their own.
final class PasswordGate {
    enum Answer: Sendable { case admitted, refused, busy }

    private let eventLoop: any EventLoop
    private let key = SymmetricKey(size: .bits256)
    /// When each was checked, and what came out.
    private var known: [[UInt8]: (isRight: Bool, at: NIODeadline)] = [:]
    private static let mostKnown = 4096
    private static let wrongTime = TimeAmount.seconds(30)
    private static let rightTime = TimeAmount.minutes(10)

    /// One thread for the whole process: whoever guesses gets at most one core.
    private static let thread: NIOThreadPool = {
        let pool = NIOThreadPool(numberOfThreads: 1)
        pool.start()
        return pool
    }()
    private static let waiting = Atomic<Int>(0)
    private static let mostWaiting = 64

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    /// Checks an Authorization field. `answer` is called at once where the result is known, else later on the loop.
    func check(_ authorization: ByteBufferView, _ list: PasswordList, answer: @escaping (Answer) -> Void) {
        guard PasswordList.isBasic(authorization) else { return answer(.refused) }
        let field = Array(authorization)
        var code = HMAC<SHA256>(key: key)
        code.update(data: field)
        withUnsafeBytes(of: list.number) { code.update(data: $0) }
        let hash = Array(code.finalize())
        let now = eventLoop.now
        if let found = known[hash], now < found.at + (found.isRight ? Self.rightTime : Self.wrongTime) {
            return answer(found.isRight ? .admitted : .refused)
        }
        guard Self.waiting.add(1, ordering: .relaxed).newValue <= Self.mostWaiting else {
            Self.waiting.subtract(1, ordering: .relaxed)
            return answer(.busy)
        }
        let result = Self.thread.runIfActive(eventLoop: eventLoop) { () -> Bool in
            defer { Self.waiting.subtract(1, ordering: .relaxed) }
            return list.admits(field)
        }
        result.assumeIsolated().whenComplete { [self] result in
            let isRight = (try? result.get()) == true
            remember(hash, isRight)
            answer(isRight ? .admitted : .refused)
        }
    }

    private func remember(_ hash: [UInt8], _ isRight: Bool) {
        if known.count >= Self.mostKnown {
            // Guesses make way for what is right; where there is nothing but that, all is checked anew.
            known = known.filter(\.value.isRight)
            if known.count >= Self.mostKnown { known = [:] }
        }
        known[hash] = (isRight, eventLoop.now)
    }
}
