/// The stage between a visitor's connection and what answers: rules that stop a request, and those that change it.
import KiteHTTP
import NIOCore

extension VisitorConnection {
    private static let challenges = Array("/.well-known/acme-challenge/".utf8)

    /// Applies rules in this order: lists of addresses, maintenance, rate limit, redirects, origins, body limit, password.
    ///
    /// Agents and kites that dial in show tokens of their own and follow no redirects: of them only addresses and rates are asked. The
    /// gateway's kite checks who calls itself, so that no password stands before it.
    func accept(
        _ exchange: any Exchange, under rules: Rules, to destination: Destination,
        then dispatch: @escaping (any Exchange) -> Void
    ) {
        let isDialIn: Bool
        let isKite: Bool
        switch destination {
        case .door, .kiteTunnel: (isDialIn, isKite) = (true, false)
        case .kite: (isDialIn, isKite) = (false, true)
        case .route, .kiteSession, .browserModule, .nowhere: (isDialIn, isKite) = (false, false)
        }
        let request = exchange.request
        let isSecure = isSecure(exchange)
        let ruled = RuledExchange(exchange, rules, isSecure: isSecure, worker: worker)
        if rules.needsAddress {
            let address = exchange.peer.visitorAddress(of: request)
            guard rules.admits(address) else {
                return worker.refuse(
                    ruled, .addressDenied, Refusal(403, "This address is not allowed to come here."))
            }
            if rules.isInMaintenance, !isDialIn, !rules.passesMaintenance(address) {
                return worker.refuse(
                    ruled, .maintenance,
                    Refusal(
                        503, "This service is being maintained; please try again later.",
                        retryAfter: Int(rules.maintenanceRetry)),
                    page: rules.maintenancePage)
            }
            if let wait = excess(request, rules, address) {
                return worker.refuse(
                    ruled, .rateLimited,
                    Refusal(
                        429, "These are too many requests; please try again later.",
                        retryAfter: Int(max(1, (wait.nanoseconds + 999_999_999) / 1_000_000_000))))
            }
        }
        if isDialIn { return dispatch(exchange) }
        if rules.isHTTPSOnly, !isSecure, !Self.isChallenge(request.target) {
            guard let location = rules.secureLocation(request) else {
                return worker.refuse(
                    ruled, .malformed, Refusal(400, "This is served over https only; please say for which host."))
            }
            return redirect(ruled, 308, location)
        }
        if let redirect = rules.redirect, let location = rules.location(request, isSecure: isSecure) {
            return self.redirect(ruled, redirect.status, location)
        }
        if let origins = rules.origins {
            ruled.permission = origins.permission(of: request)
            if case .none = ruled.permission {
                return worker.refuse(
                    ruled, .originDenied, Refusal(403, "Pages of this origin may not use this service."))
            }
            if case .notNeeded = ruled.permission {
            } else if OriginRules.isPreflight(request) {
                return answer(ruled, origins.preflight(request, ruled.permission))
            }
        }
        if let limit = rules.bodyBytes, case .known(let length) = request.bodyLength, length > limit {
            return worker.refuse(ruled, .bodyTooLarge, RuledExchange.bodyRefusal)
        }
        guard let passwords = rules.passwords, !isKite else {
            return rules.changesExchange ? ruled.proceed(dispatch) : dispatch(exchange)
        }
        check(ruled, passwords, then: dispatch)
    }

    /// Certificate authorities look here without encryption, before there is a certificate (RFC 8555 section 8.3: base64url).
    private static func isChallenge(_ target: ByteBuffer) -> Bool {
        let path = target.readableBytesView
        guard path.starts(with: challenges) else { return false }
        let token = path.dropFirst(challenges.count)
        return (1...256).contains(token.count)
            && token.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x5F: true
                default: false
                }
            }
    }

    private func check(
        _ ruled: RuledExchange, _ passwords: PasswordList, then dispatch: @escaping (any Exchange) -> Void
    ) {
        let worker = worker
        let challenge = ruled.rules.challenge
        guard ruled.request.fields.occurrences(.authorization) == 1,
            let field = ruled.request.fields.first(.authorization)
        else { return refusePassword(ruled, challenge) }
        var isSettled = false
        let address = ruled.peer.visitorAddress(of: ruled.request)
        worker.passwords.check(field, passwords, of: address) { answer in
            isSettled = true
            guard !ruled.isEnded else { return }
            switch answer {
            case .admitted: ruled.proceed(dispatch)
            case .refused: self.refusePassword(ruled, challenge)
            case .busy:
                worker.refuse(
                    ruled, .passwordsBusy,
                    Refusal(503, "Too many passwords are being checked; please try again.", retryAfter: 2))
            }
        }
        if !isSettled { ruled.wait() }
    }

    private func refusePassword(_ ruled: RuledExchange, _ challenge: String) {
        worker.refuse(
            ruled, .passwordRequired, Refusal(401, "A user name and a password are needed here."),
            fields: ["WWW-Authenticate": challenge])
    }

    private func excess(_ request: RequestHead, _ rules: Rules, _ address: AddressBytes?) -> TimeAmount? {
        guard let limit = rules.rateLimit, let rates = worker.rules?.book.rates else { return nil }
        let now = worker.eventLoop.now
        if let wait = rates.take(
            rules.rateHash(request, address), interval: limit.interval, burst: limit.burst, now: now)
        {
            return wait
        }
        // Tokens can be invented, addresses less so.
        guard rules.rateKey == .token, let address else { return nil }
        let burst = limit.burst.multipliedReportingOverflow(by: 8)
        return rates.take(
            rules.tokenAddressHash(address), interval: .nanoseconds(limit.interval.nanoseconds / 8),
            burst: burst.overflow ? .max : burst.partialValue, now: now)
    }

    /// Whether the visitor sees `https`: by this connection, or by what a trusted proxy says of its own.
    private func isSecure(_ exchange: any Exchange) -> Bool {
        if exchange.peer.isSecure { return true }
        guard exchange.peer.isTrustedProxy, let said = exchange.request.fields.first(.xForwardedProto) else {
            return false
        }
        return said.equalsIgnoringCase("https")
    }

    private func redirect(_ ruled: RuledExchange, _ status: UInt16, _ location: ByteBuffer) {
        var head = ResponseHead(status: status)
        head.fields.append(
            name: ByteBuffer(staticString: "Location").readableBytesView, value: location.readableBytesView)
        answer(ruled, head)
    }

    private func answer(_ ruled: RuledExchange, _ head: ResponseHead) {
        worker.answered(ruled, status: head.status)
        ruled.respond(head, body: ByteBuffer())
    }
}
