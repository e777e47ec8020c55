/// The server's side of RFC 8555, strictly: what a client gets wrong is refused here as a real authority would.
import Crypto
package import Foundation
import SwiftASN1
import X509

package actor TestAuthority {
    package struct Settings: Sendable {
        /// Where it is reached, without a slash at the end.
        package var base: String
        package var lifetime: TimeInterval = 90 * 86_400
        package var kinds = ["http-01", "tls-alpn-01", "dns-01"]
        package var termsOfService: String?
        /// MAC keys (base64url) of external accounts by key identifier; where there are any a binding is required.
        package var externalAccounts: [String: String] = [:]
        /// Polls that an order takes after it was finalized.
        package var processingPolls = 1

        package init(base: String) { self.base = base }
    }

    package struct Request: Sendable {
        package var method: String
        package var path: String
        package var contentType: String?
        package var userAgent: String?
        package var body: Data

        package init(method: String, path: String, contentType: String?, userAgent: String?, body: Data) {
            self.method = method
            self.path = path
            self.contentType = contentType
            self.userAgent = userAgent
            self.body = body
        }
    }

    package struct Response: Sendable {
        package var status: Int
        package var fields: [String: String] = [:]
        package var body = Data()
    }

    /// Looks whether a name is the client's.
    /// - Returns: what is wrong; nil where all is well.
    package typealias Validation =
        @Sendable (_ kind: String, _ name: String, _ token: String, _ keyAuthorization: String) async -> String?

    private struct Account {
        var jwk: PublicJWK
        var contact: [String]
        var status = "valid"
    }
    private struct Order {
        var account: Int
        var names: [String]
        var authorizations: [Int]
        var status = "pending"
        var polls = 0
        var chain: String?
        var publicKey: Certificate.PublicKey?
    }
    private struct Authorization {
        var account: Int
        var name: String
        var status = "pending"
        var challenges: [Challenge]
    }
    private struct Challenge {
        var kind: String
        var token: String
        var status = "pending"
        var error: String?
    }

    package nonisolated let ca: TestCA
    package var settings: Settings
    private let now: @Sendable () -> Date
    private let validate: Validation
    private var nonces: Set<String> = []
    private var accounts: [Account] = []
    private var orders: [Order] = []
    private var authorizations: [Authorization] = []
    private var validations: [Task<Void, Never>] = []

    /// What goes wrong on purpose.
    private var badNonces = 0
    private var failures: [(path: String, problem: Problem)] = []
    private var isDown = false
    /// Requests seen, such as `POST /order`.
    package private(set) var log: [String] = []

    package init(settings: Settings, ca: TestCA, now: @escaping @Sendable () -> Date, validate: @escaping Validation) {
        self.settings = settings
        self.ca = ca
        self.now = now
        self.validate = validate
    }

    // MARK: For tests

    package func change(_ body: @Sendable (inout Settings) -> Void) { body(&settings) }
    /// The next requests are answered `badNonce`.
    package func refuseNonces(_ count: Int) { badNonces = count }
    /// The next POST to a path that begins so fails.
    package func fail(_ path: String, status: Int, type: String, retryAfter: String? = nil) {
        failures.append((path, Problem(status, type, "on purpose", retryAfter: retryAfter)))
    }
    /// All requests fail with 500.
    package func setDown(_ isDown: Bool) { self.isDown = isDown }
    package func forgetAccounts() { for index in accounts.indices { accounts[index].status = "lost" } }
    package func clearLog() { log = [] }
    package var accountCount: Int { accounts.count }
    package var contacts: [[String]] { accounts.map(\.contact) }
    package var issued: Int { orders.count { $0.chain != nil } }

    // MARK: Requests

    package func handle(_ request: Request) async -> Response {
        log.append("\(request.method) \(request.path)")
        var response: Response
        do {
            if isDown { throw Problem(500, "serverInternal", "it is down") }
            response = try await answer(request)
        } catch let problem as Problem {
            response = Self.json(
                problem.status,
                [
                    "type": "urn:ietf:params:acme:error:\(problem.type)", "detail": problem.detail,
                    "status": problem.status,
                ])
            response.fields["Content-Type"] = "application/problem+json"
            response.fields["Retry-After"] = problem.retryAfter
        } catch {
            response = Response(status: 500)
        }
        if request.method == "POST" || request.path == "/nonce" {
            let nonce = Base64.random(16)
            nonces.insert(nonce)
            response.fields["Replay-Nonce"] = nonce
        }
        response.fields["Cache-Control"] = "no-store"
        if request.path != "/directory" {
            let links = ["<\(settings.base)/directory>;rel=\"index\"", response.fields["Link"]]
            response.fields["Link"] = links.compactMap(\.self).joined(separator: ", ")
        }
        return response
    }

    private static func json(_ status: Int, _ object: [String: Any]) -> Response {
        let data = (try? JSONSerialization.data(withJSONObject: object, options: [.sortedKeys])) ?? Data()
        return Response(status: status, fields: ["Content-Type": "application/json"], body: data)
    }

    private func answer(_ request: Request) async throws -> Response {
        guard request.userAgent?.isEmpty == false else {
            throw Problem(400, "malformed", "a client must send User-Agent (section 6.1)")
        }
        switch (request.method, request.path) {
        case ("GET", "/directory"): return directory
        case ("HEAD", "/nonce"): return Response(status: 200)
        case ("GET", "/nonce"): return Response(status: 204)
        case ("POST", _): break
        default: throw Problem(405, "malformed", "resources are read by POST-as-GET (section 6.3)")
        }
        guard request.contentType == "application/jose+json" else {
            throw Problem(415, "malformed", "the content type must be application/jose+json")
        }
        let signed = try SignedRequest(request.body)
        guard let nonce = signed.header.nonce else { throw Problem(400, "badNonce", "there is no nonce") }
        guard nonces.remove(nonce) != nil else { throw Problem(400, "badNonce", "the nonce is not known, or used") }
        guard signed.header.url == settings.base + request.path else {
            throw Problem(401, "unauthorized", "the header's url is not the request's")
        }
        if badNonces > 0 {
            badNonces -= 1
            throw Problem(400, "badNonce", "on purpose")
        }
        if let index = failures.firstIndex(where: { request.path.hasPrefix($0.path) }) {
            throw failures.remove(at: index).problem
        }
        if request.path == "/account" { return try newAccount(signed) }
        guard signed.header.jwk == nil, let kid = signed.header.kid else {
            throw Problem(400, "malformed", "the header must have kid and no jwk")
        }
        guard kid.hasPrefix(settings.base + "/account/"), let account = Int(kid.split(separator: "/").last ?? ""),
            accounts.indices.contains(account), accounts[account].status != "lost"
        else { throw Problem(400, "accountDoesNotExist", "there is no such account") }
        try signed.verify(accounts[account].jwk)
        guard accounts[account].status == "valid" else {
            throw Problem(403, "unauthorized", "the account is \(accounts[account].status)")
        }
        let parts = request.path.split(separator: "/")
        let number = parts.count > 1 ? Int(parts[1]) : nil
        switch (parts.first ?? "", parts.count, number) {
        case ("account", 2, account): return try update(account, signed)
        case ("order", 1, _): return try newOrder(account, signed)
        case ("order", 2, let order?): return try readOrder(order, account, signed)
        case ("order", 3, let order?) where parts[2] == "finalize": return try finalize(order, account, signed)
        case ("authorization", 2, let number?): return try readAuthorization(number, account, signed)
        case ("challenge", 3, let number?): return try respond(number, Int(parts[2]) ?? -1, account, signed)
        case ("certificate", 2, let order?): return try download(order, account, signed)
        default: throw Problem(404, "malformed", "there is no such resource")
        }
    }

    private var directory: Response {
        var meta: [String: Any] = [:]
        meta["termsOfService"] = settings.termsOfService
        if !settings.externalAccounts.isEmpty { meta["externalAccountRequired"] = true }
        let base = settings.base
        return Self.json(
            200,
            [
                "newNonce": base + "/nonce", "newAccount": base + "/account", "newOrder": base + "/order",
                "revokeCert": base + "/revoke", "keyChange": base + "/key-change", "meta": meta,
            ])
    }

    // MARK: Accounts

    private struct NewAccount: Decodable {
        var contact: [String]?
        var termsOfServiceAgreed: Bool?
        var onlyReturnExisting: Bool?
        var externalAccountBinding: Binding?
    }
    private struct Binding: Codable {
        var protected: String
        var payload: String
        var signature: String
    }

    private func newAccount(_ signed: SignedRequest) throws -> Response {
        guard let jwk = signed.header.jwk, signed.header.kid == nil else {
            throw Problem(400, "malformed", "the header of newAccount must have jwk and no kid")
        }
        try signed.verify(jwk)
        guard let wanted = try? JSONDecoder().decode(NewAccount.self, from: signed.payload) else {
            throw Problem(400, "malformed", "the payload is no account")
        }
        if let index = accounts.firstIndex(where: { $0.jwk == jwk && $0.status != "lost" }) {
            return accountResponse(index, status: 200)
        }
        if wanted.onlyReturnExisting == true {
            throw Problem(400, "accountDoesNotExist", "there is no such account")
        }
        if settings.termsOfService != nil, wanted.termsOfServiceAgreed != true {
            throw Problem(403, "userActionRequired", "the terms of service must be agreed to")
        }
        let contact = wanted.contact ?? []
        for entry in contact {
            guard entry.hasPrefix("mailto:") else { throw Problem(400, "unsupportedContact", "only mailto is taken") }
            guard entry.contains("@"), !entry.contains(","), !entry.contains("?") else {
                throw Problem(400, "invalidContact", "one address, without fields")
            }
        }
        try checkBinding(wanted.externalAccountBinding, jwk, signed.header.url ?? "")
        accounts.append(Account(jwk: jwk, contact: contact))
        return accountResponse(accounts.count - 1, status: 201)
    }

    private func checkBinding(_ binding: Binding?, _ jwk: PublicJWK, _ url: String) throws {
        guard !settings.externalAccounts.isEmpty else { return }
        guard let binding else { throw Problem(403, "externalAccountRequired", "a binding is needed") }
        let inner = try SignedRequest(try JSONEncoder().encode(binding))
        guard inner.header.nonce == nil, inner.header.url == url, inner.header.jwk == nil, let kid = inner.header.kid,
            let text = settings.externalAccounts[kid], let key = Base64.decode(text), inner.verify(mac: key),
            (try? JSONDecoder().decode(PublicJWK.self, from: inner.payload)) == jwk
        else { throw Problem(401, "unauthorized", "the binding is wrong") }
    }

    private func accountResponse(_ index: Int, status: Int) -> Response {
        let account = accounts[index]
        var response = Self.json(
            status,
            [
                "status": account.status, "contact": account.contact,
                "orders": "\(settings.base)/account/\(index)/orders",
            ])
        response.fields["Location"] = "\(settings.base)/account/\(index)"
        return response
    }

    private func update(_ account: Int, _ signed: SignedRequest) throws -> Response {
        struct Update: Decodable {
            var contact: [String]?
            var status: String?
        }
        if !signed.payload.isEmpty {
            guard let update = try? JSONDecoder().decode(Update.self, from: signed.payload) else {
                throw Problem(400, "malformed", "the payload is no account")
            }
            if let contact = update.contact { accounts[account].contact = contact }
            if update.status == "deactivated" { accounts[account].status = "deactivated" }
        }
        return accountResponse(account, status: 200)
    }

    // MARK: Orders

    private func newOrder(_ account: Int, _ signed: SignedRequest) throws -> Response {
        struct Wanted: Decodable {
            struct Identifier: Decodable {
                var type: String
                var value: String
            }
            var identifiers: [Identifier]
        }
        guard let wanted = try? JSONDecoder().decode(Wanted.self, from: signed.payload),
            (1...100).contains(wanted.identifiers.count)
        else { throw Problem(400, "malformed", "the payload is no order") }
        for identifier in wanted.identifiers {
            guard identifier.type == "dns" else { throw Problem(400, "unsupportedIdentifier", "only dns") }
            guard identifier.value == identifier.value.lowercased(), identifier.value.contains("."),
                !identifier.value.contains("*")
            else { throw Problem(400, "rejectedIdentifier", "\(identifier.value) cannot be validated here") }
        }
        let names = wanted.identifiers.map(\.value)
        var list: [Int] = []
        for name in names {
            authorizations.append(
                Authorization(
                    account: account, name: name,
                    challenges: settings.kinds.map { Challenge(kind: $0, token: Base64.random(32)) }))
            list.append(authorizations.count - 1)
        }
        orders.append(Order(account: account, names: names, authorizations: list))
        return orderResponse(orders.count - 1, status: 201)
    }

    private func orderResponse(_ index: Int, status: Int) -> Response {
        refresh(index)
        let order = orders[index]
        let base = settings.base
        var object: [String: Any] = [
            "status": order.status, "identifiers": order.names.map { ["type": "dns", "value": $0] },
            "authorizations": order.authorizations.map { "\(base)/authorization/\($0)" },
            "finalize": "\(base)/order/\(index)/finalize",
            "expires": now().addingTimeInterval(86_400).formatted(.iso8601),
        ]
        if order.status == "valid" { object["certificate"] = "\(base)/certificate/\(index)" }
        var response = Self.json(status, object)
        response.fields["Location"] = "\(base)/order/\(index)"
        if order.status == "processing" { response.fields["Retry-After"] = "1" }
        return response
    }

    /// Section 7.1.6.
    private func refresh(_ index: Int) {
        guard orders[index].status == "pending" else { return }
        let states = orders[index].authorizations.map { authorizations[$0].status }
        if states.contains("invalid") {
            orders[index].status = "invalid"
        } else if states.allSatisfy({ $0 == "valid" }) {
            orders[index].status = "ready"
        }
    }

    private func own(_ index: Int, _ account: Int, in owners: [Int]) throws {
        guard owners.indices.contains(index) else { throw Problem(404, "malformed", "there is no such resource") }
        guard owners[index] == account else { throw Problem(403, "unauthorized", "it belongs to another account") }
    }

    private func readOnly(_ signed: SignedRequest) throws {
        guard signed.payload.isEmpty else { throw Problem(400, "malformed", "POST-as-GET has an empty payload") }
    }

    private func readOrder(_ index: Int, _ account: Int, _ signed: SignedRequest) throws -> Response {
        try own(index, account, in: orders.map(\.account))
        try readOnly(signed)
        if orders[index].status == "processing" {
            orders[index].polls += 1
            if orders[index].polls >= settings.processingPolls { try issue(index) }
        }
        return orderResponse(index, status: 200)
    }

    private func finalize(_ index: Int, _ account: Int, _ signed: SignedRequest) throws -> Response {
        struct Wanted: Decodable { var csr: String }
        try own(index, account, in: orders.map(\.account))
        refresh(index)
        guard orders[index].status == "ready" else {
            throw Problem(403, "orderNotReady", "the order is \(orders[index].status)")
        }
        guard let wanted = try? JSONDecoder().decode(Wanted.self, from: signed.payload),
            let der = Base64.decode(wanted.csr),
            let request = try? CertificateSigningRequest(derEncoded: Array(der))
        else { throw Problem(400, "badCSR", "there is no signing request") }
        guard request.publicKey.isValidSignature(request.signature, for: request) else {
            throw Problem(400, "badCSR", "the signing request's signature is wrong")
        }
        guard let asked = try? request.attributes.extensionRequest?.extensions.subjectAlternativeNames else {
            throw Problem(400, "badCSR", "the signing request has no names")
        }
        let names = asked.map { name in if case .dnsName(let host) = name { host } else { "?" } }
        guard Set(names) == Set(orders[index].names), names.count == orders[index].names.count else {
            throw Problem(400, "badCSR", "the signing request is for other names than the order")
        }
        // Section 11.1.
        guard request.publicKey != Certificate.PublicKey(try accounts[account].jwk.key()) else {
            throw Problem(400, "badCSR", "the account's key must not be that of a certificate")
        }
        orders[index].publicKey = request.publicKey
        orders[index].status = "processing"
        if settings.processingPolls == 0 { try issue(index) }
        return orderResponse(index, status: 200)
    }

    private func issue(_ index: Int) throws {
        guard let key = orders[index].publicKey else { return }
        orders[index].chain = try ca.issue(
            key, names: orders[index].names, from: now().addingTimeInterval(-1), lifetime: settings.lifetime)
        orders[index].status = "valid"
    }

    private func download(_ index: Int, _ account: Int, _ signed: SignedRequest) throws -> Response {
        try own(index, account, in: orders.map(\.account))
        try readOnly(signed)
        guard let chain = orders[index].chain else { throw Problem(404, "malformed", "there is no certificate") }
        return Response(
            status: 200, fields: ["Content-Type": "application/pem-certificate-chain"], body: Data(chain.utf8))
    }

    // MARK: Authorizations

    private func readAuthorization(_ index: Int, _ account: Int, _ signed: SignedRequest) throws -> Response {
        try own(index, account, in: authorizations.map(\.account))
        try readOnly(signed)
        let authorization = authorizations[index]
        return Self.json(
            200,
            [
                "identifier": ["type": "dns", "value": authorization.name], "status": authorization.status,
                "expires": now().addingTimeInterval(86_400).formatted(.iso8601),
                "challenges": authorization.challenges.indices.map { challengeObject(index, $0) },
            ])
    }

    private func challengeObject(_ index: Int, _ number: Int) -> [String: Any] {
        let challenge = authorizations[index].challenges[number]
        var object: [String: Any] = [
            "type": challenge.kind, "url": "\(settings.base)/challenge/\(index)/\(number)", "token": challenge.token,
            "status": challenge.status,
        ]
        if let error = challenge.error {
            object["error"] = ["type": "urn:ietf:params:acme:error:unauthorized", "detail": error, "status": 403]
        }
        return object
    }

    private func respond(_ index: Int, _ number: Int, _ account: Int, _ signed: SignedRequest) throws -> Response {
        try own(index, account, in: authorizations.map(\.account))
        guard authorizations[index].challenges.indices.contains(number) else {
            throw Problem(404, "malformed", "there is no such challenge")
        }
        // An empty payload only reads the challenge; an empty object says that the client is ready (section 7.5.1).
        if !signed.payload.isEmpty {
            guard let object = try? JSONSerialization.jsonObject(with: signed.payload) as? [String: Any],
                object.isEmpty
            else { throw Problem(400, "malformed", "the payload must be an empty object") }
            guard authorizations[index].status == "pending" else {
                throw Problem(400, "malformed", "the authorization is \(authorizations[index].status)")
            }
            if authorizations[index].challenges[number].status == "pending" { start(index, number, account) }
        }
        var response = Self.json(200, challengeObject(index, number))
        response.fields["Link"] = "<\(settings.base)/authorization/\(index)>;rel=\"up\""
        return response
    }

    private func start(_ index: Int, _ number: Int, _ account: Int) {
        authorizations[index].challenges[number].status = "processing"
        let (challenge, name) = (authorizations[index].challenges[number], authorizations[index].name)
        let authorization = "\(challenge.token).\(accounts[account].jwk.thumbprint)"
        validations.append(
            Task { [validate] in
                let problem = await validate(challenge.kind, name, challenge.token, authorization)
                self.finish(index, number, problem)
            })
    }

    private func finish(_ index: Int, _ number: Int, _ problem: String?) {
        let status = problem == nil ? "valid" : "invalid"
        authorizations[index].challenges[number].status = status
        authorizations[index].challenges[number].error = problem
        authorizations[index].status = status
    }
}
