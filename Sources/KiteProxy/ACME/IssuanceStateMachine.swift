/// How one certificate is obtained: the client's side of RFC 8555, from the directory to the chain.
import Foundation
import KiteDialing

/// What is known of a server between two certificates.
struct ServerSession: Sendable {
    var directory: DirectoryObject?
    /// For the next request; used up by it (RFC 8555 section 6.5).
    var nonce: String?
    /// Of the account that belongs to the key.
    var accountURL: String?
}

/// Sans-I/O. Each input returns the one thing to be done next.
struct IssuanceStateMachine: Sendable {
    private enum Step: Sendable, Hashable {
        case directory
        case account
        case order
        case authorization(Int)
        case presenting
        case challenge(Int)
        case authorizationResult(Int)
        case finalize
        case orderResult
        case certificate
        case over
    }

    private struct Challenge: Sendable {
        var url: URLParts
        var authorization: URLParts
        var answer: Answer
    }

    /// To be kept for the next certificate from the same server.
    private(set) var session: ServerSession
    private let directoryURL: URLParts
    private let names: [String]
    private let key: AccountKey
    private let signingRequest: [UInt8]
    private let terms: Terms
    private let deadline: Date

    private var step = Step.directory
    private var awaitsNonce = false
    private var nonceRetries = 0
    private var faultRetries = 0
    private var polls = 0
    private var hasNewAccount = false
    private var order = OrderObject(status: "pending")
    private var orderURL: URLParts?
    private var authorizations: [URLParts] = []
    private var challenges: [Challenge] = []

    /// - Parameters:
    ///   - signingRequest: DER, for `names`.
    ///   - deadline: when it is given up.
    init(
        directory: URLParts, names: [String], key: AccountKey, signingRequest: [UInt8], terms: Terms,
        session: ServerSession = ServerSession(), deadline: Date
    ) {
        directoryURL = directory
        self.names = names
        self.key = key
        self.signingRequest = signingRequest
        self.terms = terms
        self.session = session
        self.deadline = deadline
    }

    // MARK: Inputs

    mutating func begin(at now: Date) -> Action {
        if session.directory != nil { step = session.accountURL == nil ? .account : .order }
        return proceed(at: now)
    }

    mutating func presented(at now: Date) -> Action {
        guard step == .presenting else { return fail(.malformed, "answers were presented that nobody asked for") }
        step = .challenge(0)
        return proceed(at: now)
    }

    mutating func woke(at now: Date) -> Action { proceed(at: now) }

    /// A request came to nothing.
    mutating func transportFailed(_ cause: String, at now: Date) -> Action {
        faultRetries += 1
        guard faultRetries <= Limits.faultRetries else {
            return fail(.transport, "\(directoryURL.authority): \(ProblemObject.plain(cause))")
        }
        return wait(Double(1 << faultRetries) / 2, at: now)
    }

    mutating func received(_ response: Response, at now: Date) -> Action {
        guard step != .over, step != .presenting else { return fail(.malformed, "a response that nobody waits for") }
        if let nonce = response.nonce, !nonce.isEmpty, nonce.utf8.count <= Limits.nonceBytes, Base64URL.isPlain(nonce) {
            session.nonce = nonce
        }
        if response.status >= 400 { return refused(response, at: now) }
        if awaitsNonce {
            awaitsNonce = false
            guard session.nonce != nil else { return fail(.malformed, "the server gives no nonce") }
            return proceed(at: now)
        }
        guard (200...299).contains(response.status) else {
            return fail(.malformed, "the server answers \(response.status) where it should not")
        }
        faultRetries = 0
        nonceRetries = 0
        switch step {
        case .directory: return tookDirectory(response, at: now)
        case .account: return tookAccount(response, at: now)
        case .order: return tookOrder(response, at: now)
        case .authorization(let index): return tookAuthorization(index, response, at: now)
        case .challenge(let index): return tookChallenge(index, at: now)
        case .authorizationResult(let index): return tookResult(index, response, at: now)
        case .finalize, .orderResult: return tookOrderResult(response, at: now)
        case .certificate:
            step = .over
            return .done(String(decoding: response.body, as: UTF8.self))
        case .presenting, .over: return fail(.malformed, "a response that nobody waits for")
        }
    }

    // MARK: What is sent

    /// The request of the present step.
    private mutating func proceed(at now: Date) -> Action {
        guard now < deadline else { return fail(.timeout, "the server did not come to an end in time") }
        switch step {
        case .directory: return .send(Request(method: .get, url: directoryURL))
        case .presenting: return .present(challenges.map(\.answer))
        case .over: return fail(.malformed, "it is over")
        default: break
        }
        guard let directory = session.directory else {
            step = .directory
            return .send(Request(method: .get, url: directoryURL))
        }
        guard let nonce = session.nonce else {
            guard let url = self.url(directory.newNonce) else { return badURL("newNonce") }
            awaitsNonce = true
            return .send(Request(method: .head, url: url))
        }
        switch step {
        case .account: return post(accountRequest(directory), to: url(directory.newAccount), nonce, named: "newAccount")
        case .order:
            let list = names.map { "{\"type\":\"dns\",\"value\":\(JSONString($0))}" }.joined(separator: ",")
            return post("{\"identifiers\":[\(list)]}", to: url(directory.newOrder), nonce, named: "newOrder")
        case .authorization(let index): return post("", to: at(authorizations, index), nonce, named: "authorization")
        case .challenge(let index): return post("{}", to: at(challenges, index)?.url, nonce, named: "challenge")
        case .authorizationResult(let index):
            return post("", to: at(challenges, index)?.authorization, nonce, named: "authorization")
        case .finalize:
            let request = "{\"csr\":\"\(Base64URL.encode(signingRequest))\"}"
            return post(request, to: order.finalize.flatMap(url), nonce, named: "finalize")
        case .orderResult: return post("", to: orderURL, nonce, named: "order")
        case .certificate: return post("", to: order.certificate.flatMap(url), nonce, named: "certificate")
        case .directory, .presenting, .over: return fail(.malformed, "it is over")
        }
    }

    private func at<Element>(_ list: [Element], _ index: Int) -> Element? {
        list.indices.contains(index) ? list[index] : nil
    }

    private func accountRequest(_ directory: DirectoryObject) -> String {
        var members: [String] = []
        if terms.isAgreed { members.append("\"termsOfServiceAgreed\":true") }
        if !terms.contacts.isEmpty {
            let list = terms.contacts.map { JSONString("mailto:" + $0).description }.joined(separator: ",")
            members.append("\"contact\":[\(list)]")
        }
        if let external = terms.externalAccount {
            members.append(
                "\"externalAccountBinding\":\(external.binding(of: key, url: (url(directory.newAccount) ?? directoryURL).description))"
            )
        }
        return "{\(members.joined(separator: ","))}"
    }

    private mutating func post(_ payload: String, to url: URLParts?, _ nonce: String, named name: String) -> Action {
        guard let url else { return badURL(name) }
        session.nonce = nil
        let signer = step == .account ? AccountKey.Signer.key : .account(session.accountURL ?? "")
        do {
            let body = try key.sign(payload, url: url.description, nonce: nonce, as: signer)
            return .send(Request(method: .post, url: url, body: body))
        } catch {
            return fail(.storage, "the account's key cannot sign: \(error)")
        }
    }

    /// A URL that a server names. One reached over TLS must not lead to places without it.
    private func url(_ text: String) -> URLParts? {
        guard let url = URLParts(text), ["http", "https"].contains(url.scheme),
            url.isSecure || !directoryURL.isSecure
        else { return nil }
        return url
    }

    // MARK: What comes back

    private func decode<Value: Decodable>(_ type: Value.Type, _ response: Response) -> Value? {
        try? JSONDecoder().decode(type, from: Data(response.body))
    }

    private mutating func tookDirectory(_ response: Response, at now: Date) -> Action {
        guard let directory = decode(DirectoryObject.self, response) else {
            return fail(.malformed, "\(directoryURL) is no ACME directory")
        }
        if let service = directory.meta?.termsOfService, !terms.isAgreed {
            return fail(
                .termsNotAgreed,
                "\(directoryURL.authority) has terms of service, \(ProblemObject.plain(service)): read them and set `acme-agree`"
            )
        }
        if directory.meta?.externalAccountRequired == true, terms.externalAccount == nil, session.accountURL == nil {
            return fail(
                .accountBindingNeeded,
                "\(directoryURL.authority) wants an account to be bound: set `acme-eab-kid` and `acme-eab-hmac-file`")
        }
        session.directory = directory
        step = session.accountURL == nil ? .account : .order
        return proceed(at: now)
    }

    private mutating func tookAccount(_ response: Response, at now: Date) -> Action {
        guard let account = decode(AccountObject.self, response), let location = response.location,
            let url = self.url(location)
        else { return fail(.malformed, "the server's answer about the account has no URL or no status") }
        guard account.status == "valid" else {
            return fail(.rejected, "the account is \(ProblemObject.plain(account.status))")
        }
        session.accountURL = url.description
        step = .order
        return proceed(at: now)
    }

    private mutating func tookOrder(_ response: Response, at now: Date) -> Action {
        guard let order = decode(OrderObject.self, response), let location = response.location,
            let orderURL = url(location), let list = order.authorizations,
            (1...Limits.authorizations).contains(list.count), order.finalize != nil
        else { return fail(.malformed, "the server's answer to an order is incomplete") }
        let wanted = Set(names)
        guard let identifiers = order.identifiers,
            Set(identifiers.map { $0.value.lowercased() }) == wanted, identifiers.allSatisfy({ $0.type == "dns" })
        else { return fail(.malformed, "the server's order is for other names") }
        let urls = list.compactMap(url)
        guard urls.count == list.count else { return badURL("authorization") }
        self.order = order
        self.orderURL = orderURL
        authorizations = urls
        return follow(order, at: now)
    }

    private mutating func tookAuthorization(_ index: Int, _ response: Response, at now: Date) -> Action {
        guard let authorization = decode(AuthorizationObject.self, response),
            names.contains(authorization.identifier.value.lowercased()),
            authorization.challenges.count <= Limits.challenges, let own = at(authorizations, index)
        else { return fail(.malformed, "the server's authorization is incomplete or for another name") }
        let name = authorization.identifier.value.lowercased()
        switch authorization.status {
        case "valid": break
        case "pending":
            guard let challenge = choose(authorization.challenges, name: name, authorization: own) else {
                return fail(
                    .noUsableChallenge,
                    "\(directoryURL.authority) offers for \(name) none of \(terms.kinds.map(\.rawValue).joined(separator: ", "))"
                )
            }
            challenges.append(challenge)
        default: return invalid(authorization)
        }
        if index + 1 < authorizations.count {
            step = .authorization(index + 1)
        } else {
            step = challenges.isEmpty ? .finalize : .presenting
        }
        return proceed(at: now)
    }

    private func choose(_ offered: [ChallengeObject], name: String, authorization: URLParts) -> Challenge? {
        for kind in terms.kinds {
            for challenge in offered where challenge.type == kind.rawValue {
                guard let token = challenge.token, !token.isEmpty, token.utf8.count <= Limits.tokenBytes,
                    Base64URL.isPlain(token), let url = url(challenge.url)
                else { continue }
                return Challenge(
                    url: url, authorization: authorization,
                    answer: Answer(
                        kind: kind, name: name, token: token, keyAuthorization: key.keyAuthorization(token: token)))
            }
        }
        return nil
    }

    private mutating func tookChallenge(_ index: Int, at now: Date) -> Action {
        step = index + 1 < challenges.count ? .challenge(index + 1) : .authorizationResult(0)
        polls = 0
        return proceed(at: now)
    }

    private mutating func tookResult(_ index: Int, _ response: Response, at now: Date) -> Action {
        guard let authorization = decode(AuthorizationObject.self, response) else {
            return fail(.malformed, "the server's authorization is incomplete")
        }
        switch authorization.status {
        case "valid":
            polls = 0
            step = index + 1 < challenges.count ? .authorizationResult(index + 1) : .finalize
            return proceed(at: now)
        case "pending", "processing": return poll(response, at: now)
        default: return invalid(authorization)
        }
    }

    private mutating func invalid(_ authorization: AuthorizationObject) -> Action {
        let cause = authorization.challenges.lazy.compactMap(\.error).first?.summary
        return fail(
            .validationFailed,
            "\(authorization.identifier.value): \(cause ?? "the authorization is \(ProblemObject.plain(authorization.status))")"
        )
    }

    private mutating func tookOrderResult(_ response: Response, at now: Date) -> Action {
        guard let order = decode(OrderObject.self, response) else {
            return fail(.malformed, "the server's order is incomplete")
        }
        self.order.status = order.status
        self.order.certificate = order.certificate
        self.order.error = order.error
        if order.status == "processing" || order.status == "pending" {
            step = .orderResult
            return poll(response, at: now)
        }
        return follow(order, at: now)
    }

    /// Goes on where an order stands (RFC 8555 section 7.1.6).
    private mutating func follow(_ order: OrderObject, at now: Date) -> Action {
        switch order.status {
        case "pending": step = .authorization(0)
        case "ready": step = .finalize
        case "processing": step = .orderResult
        case "valid":
            guard order.certificate != nil else { return fail(.malformed, "a valid order has no certificate") }
            step = .certificate
        default:
            return fail(
                .rejected,
                "the order is \(ProblemObject.plain(order.status)): \(order.error?.summary ?? "no reason given")")
        }
        return proceed(at: now)
    }

    // MARK: Waiting and failing

    private mutating func poll(_ response: Response, at now: Date) -> Action {
        polls += 1
        guard polls <= Limits.polls else { return fail(.timeout, "the server did not come to an end in time") }
        let asked = RetryAfter.date(response.retryAfter, now: now)?.timeIntervalSince(now)
        return wait(min(max(asked ?? pow(1.5, Double(min(polls, 7))) - 1, 0.5), Limits.wait), at: now)
    }

    private mutating func wait(_ seconds: TimeInterval, at now: Date) -> Action {
        let end = now.addingTimeInterval(seconds)
        guard end < deadline else { return fail(.timeout, "the server did not come to an end in time") }
        return .wait(until: end)
    }

    private mutating func refused(_ response: Response, at now: Date) -> Action {
        awaitsNonce = false
        let problem = decode(ProblemObject.self, response)
        let cause = "\(directoryURL.authority): \(problem?.summary ?? "status \(response.status)")"
        let retryAfter = RetryAfter.date(response.retryAfter, now: now)
        switch problem?.kind ?? "" {
        case "badNonce":
            nonceRetries += 1
            guard nonceRetries <= Limits.nonceRetries else { return fail(.malformed, cause) }
            return proceed(at: now)
        case "rateLimited":
            return fail(.rateLimited, cause, retryAfter: retryAfter ?? now.addingTimeInterval(3600))
        case "accountDoesNotExist" where step != .account && !hasNewAccount:
            // The server has lost it, or the file is of another one.
            hasNewAccount = true
            session.accountURL = nil
            step = .account
            return proceed(at: now)
        case "orderNotReady" where step == .finalize:
            step = .orderResult
            return poll(response, at: now)
        case "externalAccountRequired": return fail(.accountBindingNeeded, cause)
        case "userActionRequired":
            let place = problem?.instance.map { ": see \(ProblemObject.plain($0))" } ?? ""
            return fail(.termsNotAgreed, cause + place, retryAfter: retryAfter)
        default: break
        }
        switch response.status {
        case 429: return fail(.rateLimited, cause, retryAfter: retryAfter ?? now.addingTimeInterval(3600))
        case 500...:
            faultRetries += 1
            let seconds = retryAfter?.timeIntervalSince(now) ?? Double(1 << min(faultRetries, 6))
            guard faultRetries <= Limits.faultRetries, seconds <= Limits.wait,
                now.addingTimeInterval(seconds) < deadline
            else { return fail(.server, cause, retryAfter: retryAfter) }
            return wait(max(seconds, 0.5), at: now)
        default: return fail(.rejected, cause, retryAfter: retryAfter)
        }
    }

    private mutating func badURL(_ name: String) -> Action {
        fail(.malformed, "\(directoryURL.authority) gives no usable URL for \(name)")
    }

    private mutating func fail(_ code: ACMEFailure.Code, _ message: String, retryAfter: Date? = nil) -> Action {
        step = .over
        return .failed(ACMEFailure(code, message, retryAfter: retryAfter))
    }
}
