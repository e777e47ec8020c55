/// The dialling side: reconnecting, renewing tokens, events.
import KiteCore
import KiteHTTP
import NIOCore
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1))) struct KiteClientTests {
    var quick: KiteClient.Options {
        var options = KiteClient.Options()
        options.backoffBase = .milliseconds(1)
        options.backoffLimit = .milliseconds(5)
        return options
    }

    @Test func squareOfFourIsSixteen() async throws {
        let kite = Kite.test(authenticator: .anyone)
        kite.handle("square") { (_, number: Double) in number * number }
        try await MemoryServer.run(kite) { connector in
            let client = try await KiteClient.connect(to: "memory", connector: connector)
            let result: Int = try await client.tell("square", 4)
            #expect(result == 16)
            #expect(try await client.tell("square", 4) == 16)
            await #expect { let _: String = try await client.tell("square", 4) } throws: {
                ($0 as? KiteError)?.type == .invalidResponse
            }
            await #expect { try await client.tell("square", Double.nan) } throws: {
                ($0 as? KiteError)?.type == .argument
            }
            await client.close()
            #expect(client.remote == nil)
            await #expect { try await client.tell("square", 4) } throws: { ($0 as? KiteError)?.type == .send }
        }
    }

    @Test func dialsAgainAfterEveryBreak() async throws {
        let kite = Kite.test(authenticator: .anyone)
        kite.handle("count") { request in request.remote.connectionID > 0 }
        try await MemoryServer.run(kite) { connector in
            let attempts = Mutex(0)
            let client = KiteClient(url: "memory", as: .test("exp2"), options: quick) { url, configuration in
                let attempt = attempts.withLock { attempts in
                    attempts += 1
                    return attempts
                }
                // Every second attempt fails.
                guard attempt % 2 == 1 else { throw TransportError(.connectFailed, "refused") }
                return try await connector(url, configuration)
            }
            let events = client.events()
            let task = Task { try await client.run() }
            var seen: [String] = []
            for await event in events {
                switch event {
                case .connected(let remote):
                    seen.append("connected")
                    let answer: Bool = try await client.tell("count")
                    #expect(answer)
                    if seen.count > 6 { task.cancel() } else { remote.close() }
                case .disconnected(_, let reason):
                    seen.append("disconnected")
                    #expect(!reason.isEmpty)
                case .failed(let reason):
                    seen.append("failed")
                    #expect(reason.contains("refused"))
                }
            }
            try await task.value
            #expect(
                seen == [
                    "connected", "disconnected", "failed", "connected", "disconnected", "failed", "connected",
                    "disconnected",
                ])
        }
    }

    @Test func connectTellsWhyItFailed() async {
        // One attempt and a patient handshake: what is told does not hang on how busy the machine is.
        let kite = Kite.test { $0.handshakeTimeout = .seconds(50) }
        var once = quick
        once.reconnects = false
        await #expect {
            _ = try await KiteClient.connect(to: "http://user:secret@host/kite?token=secret", as: kite, options: once) {
                _, _ in throw TransportError(.connectFailed, "nobody listens")
            }
        } throws: { error in
            guard let error = error as? KiteError else { return false }
            return error.type == .send && error.message.contains("nobody listens")
                && error.message.contains("http://host/kite") && !error.message.contains("secret")
        }
    }

    @Test func connectTriesUntilSomebodyListens() async throws {
        let (mine, _) = MemoryChannel.pair()
        let attempts = Mutex(0)
        let client = try await KiteClient.connect(
            to: "memory", as: .test { $0.handshakeTimeout = .seconds(50) }, options: quick
        ) { _, _ in
            let attempt = attempts.withLock { attempts in
                attempts += 1
                return attempts
            }
            guard attempt == 3 else { throw TransportError(.connectFailed, "nobody listens yet") }
            return mine
        }
        #expect(attempts.withLock { $0 } == 3)
        await client.close()
    }

    @Test func connectToASilentKiteTellsHowLongItWaited() async {
        let kite = Kite.test { $0.handshakeTimeout = .milliseconds(100) }
        await #expect {
            _ = try await KiteClient.connect(to: "http://host/kite", as: kite, options: quick) { _, _ in
                try await Task.sleep(for: .seconds(50))
                throw TransportError(.connectFailed, "nobody listens")
            }
        } throws: { error in
            guard let error = error as? KiteError else { return false }
            return error.type == .send && error.message.contains("http://host/kite: ")
        }
    }

    @Test func aSessionThatOpensTooLateIsClosed() async {
        let (mine, _) = MemoryChannel.pair()
        var once = quick
        once.reconnects = false
        let kite = Kite.test { $0.handshakeTimeout = .milliseconds(20) }
        let client = KiteClient(url: "memory", as: kite, options: once) { _, _ in
            // Given up in the moment in which it opened.
            try? await Task.sleep(for: .seconds(3600))
            return mine
        }
        await #expect(throws: Never.self) { try await client.run() }
        #expect(mine.closedWith?.code == 3000)
    }

    @Test func callsBeforeTheStartWaitForTheirTimeout() async throws {
        let (mine, _) = MemoryChannel.pair()
        let client = KiteClient(url: "memory", as: .test(), connector: { _, _ in mine })
        let start = ContinuousClock.now
        await #expect { try await client.tell("square", 4, timeout: .milliseconds(50)) } throws: {
            ($0 as? KiteError)?.type == .send
        }
        #expect(ContinuousClock.now - start >= .milliseconds(50))
    }

    @Test func callsBeforeTheStartAreMadeOnceConnected() async throws {
        let kite = Kite.test(authenticator: .anyone)
        kite.handle("square") { (_, number: Double) in number * number }
        try await MemoryServer.run(kite) { connector in
            let client = KiteClient(url: "memory", as: .test("exp2"), connector: connector)
            let call = Task { () async throws -> Int in try await client.tell("square", 4, timeout: .seconds(50)) }
            for _ in 0..<100 { await Task.yield() }
            let run = Task { try await client.run() }
            #expect(try await call.value == 16)
            run.cancel()
            try await run.value
        }
    }

    @Test func cancelledCallsEnd() async throws {
        let (mine, theirs) = MemoryChannel.pair()
        try await KiteClient.withConnection(to: "memory", as: .test(), connector: { _, _ in mine }) { client in
            let task = Task { try await client.tell("slow", timeout: nil) }
            _ = try await theirs.next()
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }
    }

    @Test func expiredTokensAreRenewedOnce() async throws {
        let kite = Kite.test(authenticator: KiteMethodTests.OneToken())
        kite.handle("whoami") { request in request.username ?? "-" }
        try await MemoryServer.run(kite) { connector in
            let renewals = Mutex<[Authentication?]>([])
            let credentials = KiteCredentials(.token("old")) { expired in
                renewals.withLock { $0.append(expired) }
                return .token("good")
            }
            try await KiteClient.withConnection(
                to: "memory", as: .test("exp2"), credentials: credentials, connector: connector
            ) { client in
                for _ in 0..<2 {
                    let user = try await client.tell("whoami")
                    #expect(user == "alice")
                }
                #expect(renewals.withLock { $0 } == [.token("old")])
            }
            let useless = KiteCredentials(.token("old")) { _ in .token("older") }
            try await KiteClient.withConnection(
                to: "memory", as: .test("exp2"), credentials: useless, connector: connector
            ) { client in
                await #expect { try await client.tell("whoami") } throws: { ($0 as? KiteError)?.isExpiredToken == true }
            }
            let lazy = KiteCredentials { expired in expired == nil ? .token("good") : .token("bad") }
            try await KiteClient.withConnection(
                to: "memory", as: .test("exp2"), credentials: lazy, connector: connector
            ) { client in
                let user = try await client.tell("whoami")
                #expect(user == "alice")
            }
        }
    }
}
