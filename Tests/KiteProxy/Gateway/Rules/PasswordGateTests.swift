/// Checks of passwords under way: how many, for whom, and what is remembered.
import Foundation
import KiteHTTP
import NIOCore
import NIOPosix
import Testing

@testable import KiteGateway

@Suite("Checking passwords", .timeLimit(.minutes(1)))
struct PasswordGateTests {
    private static func field(_ password: String) -> ByteBufferView {
        let credentials = Data("alice:\(password)".utf8).base64EncodedString()
        return ByteBuffer(string: "Basic \(credentials)").readableBytesView
    }

    @Test("One address has a few checks under way; the same field is checked once; right ones are remembered")
    func fairness() async throws {
        let hash = try #require(PasswordHash(hashing: "secret", logRounds: 12))
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let guesser = try #require(AddressBytes("192.0.2.1"))
        let other = try #require(AddressBytes("192.0.2.2"))
        let answers = try await loop.flatSubmit { () -> EventLoopFuture<[PasswordGate.Answer]> in
            let gate = PasswordGate(eventLoop: loop)
            let list = PasswordList(["alice": hash])
            func ask(_ password: String, _ list: PasswordList, _ address: AddressBytes)
                -> EventLoopFuture<PasswordGate.Answer>
            {
                let promise = loop.makePromise(of: PasswordGate.Answer.self)
                gate.check(Self.field(password), list, of: address) { promise.succeed($0) }
                return promise.futureResult
            }
            var futures = (0..<6).map { ask("wrong\($0)", list, guesser) }
            futures += [ask("wrong0", list, guesser), ask("secret", list, other)]
            return EventLoopFuture.whenAllSucceed(futures, on: loop).assumeIsolated().flatMap { first in
                // Known: of an equal list too, and without a check.
                ask("secret", PasswordList(["alice": hash]), guesser).map { first + [$0] }
            }.nonisolated()
        }.get()
        #expect(
            answers == [.refused, .refused, .refused, .refused, .busy, .busy, .refused, .admitted, .admitted])
        #expect(PasswordList(["alice": hash]).identity != PasswordList(["bob": hash]).identity)
    }
}
