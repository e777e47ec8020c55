/// Obtains one certificate from one server: does what the state machine says.
import Foundation
import KiteDialing
import Synchronization

/// Carries out orders. Can be shared; orders may run at the same time.
final class CertificateIssuer: Sendable {
    private let files: CertificateFiles
    private let challenges: ChallengeTable
    private let sink: any CertificateSink
    private let transport: any ACMETransport
    private let clock: any CertificateClock
    private let terms: IssuanceStateMachine.Terms
    private let time: TimeInterval
    /// By directory URL.
    private let sessions = Mutex<[String: ServerSession]>([:])

    /// - Parameter time: for a whole order, in seconds.
    init(
        files: CertificateFiles, challenges: ChallengeTable, sink: any CertificateSink, transport: any ACMETransport,
        clock: any CertificateClock, terms: IssuanceStateMachine.Terms, time: TimeInterval
    ) {
        self.sink = sink
        self.files = files
        self.challenges = challenges
        self.transport = transport
        self.clock = clock
        self.terms = terms
        self.time = time
    }

    /// - Parameter rotation: which of the challenges that may be used comes first.
    /// - Throws: ``ACMEFailure``; the answers to challenges are withdrawn in any case.
    func obtain(_ name: String, from server: URLParts, rotation: Int) async throws(ACMEFailure) -> IssuedCertificate {
        let account = try files.accountKey(server)
        let key = CertificateKey()
        let request: [UInt8]
        do { request = try key.signingRequest([name]) } catch {
            throw ACMEFailure(.storage, "no signing request can be made: \(error)")
        }
        var terms = terms
        let first = terms.kinds.isEmpty ? 0 : rotation % terms.kinds.count
        terms.kinds = Array(terms.kinds[first...] + terms.kinds[..<first])
        var machine = IssuanceStateMachine(
            directory: server, names: [name], key: account, signingRequest: request, terms: terms,
            session: takeSession(server), deadline: clock.now.addingTimeInterval(time))
        var presented: [IssuanceStateMachine.Answer] = []
        defer { withdraw(presented) }
        var action = machine.begin(at: clock.now)
        while true {
            switch action {
            case .send(let request):
                do {
                    action = machine.received(try await transport.send(request), at: clock.now)
                } catch {
                    try Self.checkCancellation()
                    action = machine.transportFailed("\(error)", at: clock.now)
                }
            case .present(let answers):
                presented = answers
                try present(answers)
                action = machine.presented(at: clock.now)
            case .wait(let end):
                try? await clock.sleep(until: end)
                try Self.checkCancellation()
                action = machine.woke(at: clock.now)
            case .failed(let failure):
                keep(machine.session, server, isSound: failure.code != .malformed)
                throw failure
            case .done(let chain):
                keep(machine.session, server, isSound: true)
                return try key.certificate(chain, names: [name], now: clock.now)
            }
        }
    }

    private static func checkCancellation() throws(ACMEFailure) {
        if Task.isCancelled { throw ACMEFailure(.timeout, "the gateway is shutting down") }
    }

    private func present(_ answers: [IssuanceStateMachine.Answer]) throws(ACMEFailure) {
        for answer in answers {
            switch answer.kind {
            case .http01: challenges.set(answer.keyAuthorization, token: answer.token)
            case .tlsALPN01:
                do {
                    try sink.setChallenge(
                        try ChallengeCertificate(
                            name: answer.name, keyAuthorization: answer.keyAuthorization, now: clock.now),
                        for: answer.name)
                } catch {
                    throw ACMEFailure(.storage, "the answer to a challenge cannot be made: \(error)")
                }
            }
        }
    }

    private func withdraw(_ answers: [IssuanceStateMachine.Answer]) {
        for answer in answers {
            switch answer.kind {
            case .http01: challenges.set(nil, token: answer.token)
            case .tlsALPN01: try? sink.setChallenge(nil, for: answer.name)
            }
        }
    }

    /// A nonce is for one order alone.
    private func takeSession(_ server: URLParts) -> ServerSession {
        sessions.withLock { sessions in
            var session = sessions[server.description] ?? ServerSession(accountURL: files.accountURL(server))
            sessions[server.description]?.nonce = nil
            if session.accountURL == nil { session.accountURL = files.accountURL(server) }
            return session
        }
    }

    /// - Parameter isSound: whether the directory made sense; it is read anew otherwise.
    private func keep(_ session: ServerSession, _ server: URLParts, isSound: Bool) {
        let known = files.accountURL(server)
        if let url = session.accountURL, url != known { try? files.setAccountURL(url, server) }
        var session = session
        if !isSound { session.directory = nil }
        sessions.withLock { $0[server.description] = session }
    }
}
