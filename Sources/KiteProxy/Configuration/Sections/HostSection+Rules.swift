/// The keys of sections that say what happens to requests.
import Foundation
import KiteCommand
import KiteGateway
import KiteHTTP
import NIOCore

extension HostSection {
    static let ruleKeyNames = Set(ruleKeys.map(\.name))

    static let ruleKeys: [SectionKey] = encryptionKeys + fieldKeys + contentKeys + visitorKeys + pageKeys

    private static let encryptionKeys: [SectionKey] = [
        .single(
            "https-only", .flag, shown: "`false`",
            meaning:
                "Unencrypted requests are sent to `https` (308), except those for a token below `/.well-known/acme-challenge/`"
        ) { $0.rules.isHTTPSOnly = $1 },
        .single(
            "https-port", .integer(1...65535), shown: "`443`",
            meaning: "The port at which `https` is reached from outside"
        ) { $0.rules.httpsPort = $1 },
        .single(
            "hsts", .days, shown: "none",
            meaning:
                "For how long browsers use `https` only (`Strict-Transport-Security`, sent over TLS only); `0` makes them forget it"
        ) { $0.rules.strictTransport = $1 },
        .single("hsts-subdomains", .flag, shown: "`false`", meaning: "The same for all hosts below this one") {
            $0.rules.strictTransportSubdomains = $1
        },
        .single(
            "hsts-preload", .flag, shown: "`false`",
            meaning:
                "Browsers may build the host into their lists; needs `hsts-subdomains` and `hsts` of at least `365d`"
        ) { $0.rules.strictTransportPreload = $1 },
        .single(
            "redirect", .redirect, shown: "none",
            meaning: "All requests are sent to this URL, unless they are for its host already; `none` takes it back"
        ) { $0.rules.redirect = $1 },
        .single("redirect-status", .redirectStatus, shown: "`302`", meaning: "The status of `redirect`") {
            $0.rules.redirectStatus = $1
        },
        .single(
            "redirect-path", .keepOrDrop, shown: "`keep`",
            meaning: "Whether path and query of the request are put behind the URL of `redirect`"
        ) { $0.rules.redirectKeepsPath = $1 },
    ]

    private static let fieldKeys: [SectionKey] = [
        .map(
            "request-headers-set", names: .fieldName(inRequest: true), .fieldValue,
            meaning: "Fields of the request that get this value, whatever the visitor sent"
        ) { $0.rules.requestSet = ($0.rules.requestSet ?? [:]).merging([$1: $2]) { $1 } },
        .map(
            "request-headers-add", names: .fieldName(inRequest: true), .fieldValue,
            meaning: "Fields that are added to the request"
        ) { $0.rules.requestAdded = ($0.rules.requestAdded ?? [:]).merging([$1: $2]) { $1 } },
        .list(
            "request-headers-remove", .fieldName(inRequest: true), meaning: "Fields that are left out of the request"
        ) { $0.rules.requestRemoved = $1 },
        .map(
            "response-headers-set", names: .fieldName(inRequest: false), .fieldValue,
            meaning: "Fields of the response that get this value, whatever the service sent"
        ) { $0.rules.responseSet = ($0.rules.responseSet ?? [:]).merging([$1: $2]) { $1 } },
        .map(
            "response-headers-add", names: .fieldName(inRequest: false), .fieldValue,
            meaning: "Fields that are added to the response"
        ) { $0.rules.responseAdded = ($0.rules.responseAdded ?? [:]).merging([$1: $2]) { $1 } },
        .list(
            "response-headers-remove", .fieldName(inRequest: false), meaning: "Fields that are left out of the response"
        ) { $0.rules.responseRemoved = $1 },
        .single(
            "request-host", .authority, shown: "the visitor's",
            meaning: "What `Host` says to the service; `X-Forwarded-Host` still says what the visitor asked for"
        ) { $0.rules.hostField = $1 },
    ]

    private static let contentKeys: [SectionKey] = [
        .single(
            "compress", .flag, shown: "`false`",
            meaning:
                "Responses are compressed with gzip for visitors that accept it. Leave it off where secrets and what a visitor sent stand in one response (BREACH)"
        ) { $0.rules.compresses = $1 },
        .list(
            "compress-types", .mediaType, shown: "text, JSON, XML, JavaScript, SVG, WebAssembly",
            meaning: "Media types that are compressed; event streams never are"
        ) { $0.rules.compressedTypes = $1 },
        .single(
            "compress-min", .bytes(0...(1 << 30)), shown: "`1KiB`",
            meaning: "Responses known to be shorter leave as they are"
        ) { $0.rules.compressedBytes = $1 },
        .single(
            "max-body", .bytes(0...(1 << 50)), shown: "the gateway's `max-body`",
            meaning: "Size of a request's body, below the gateway's own limit; 413 beyond"
        ) { $0.rules.bodyBytes = $1 },
    ]

    private static let visitorKeys: [SectionKey] = [
        .list(
            "cors-origins", .origin, shown: "as the service says",
            meaning:
                "Pages of these origins may use what is served here, over WebSockets too; others get 403. The answers to preflight requests and `Access-Control-Allow-Origin` are then the gateway's. `*`: every origin, without cookies"
        ) { $0.rules.origins = $1 },
        .map(
            "users", names: .userName, .passwordHash,
            meaning: "Who may come, with a password (basic authentication): hashes made by `kiteproxy keys password`"
        ) { $0.rules.users = ($0.rules.users ?? [:]).merging([$1: $2]) { $1 } },
        .single(
            "ask-password", .flag, shown: "`true`",
            meaning: "`false` lifts what a less specific section says in `users`"
        ) { $0.rules.asksForPassword = $1 },
        .single("realm", .realm, shown: "`restricted`", meaning: "What browsers show when they ask for the password") {
            $0.rules.realm = $1
        },
        .single(
            "pass-authorization", .flag, shown: "`false`",
            meaning: "Whether the service gets the `Authorization` that was checked here"
        ) { $0.rules.passesAuthorization = $1 },
        .list("allow", .addressRange, meaning: "Only visitors from these addresses may come; 403 for others") {
            $0.rules.allowed = $1
        },
        .list(
            "deny", .addressRange, meaning: "Visitors from these addresses may not come, not even when `allow` has them"
        ) { $0.rules.denied = $1 },
        .single(
            "rate-limit", .rate, shown: "`off`",
            meaning:
                "Requests of one visitor in the long run and, after `burst`, how many at once (the number of the rate where it is missing); 429 with `Retry-After` beyond. Counted where it is written: a host that has it from `*` shares the count with the others"
        ) { $0.rules.rateLimit = $1 },
        .single(
            "rate-by", .choice, shown: "`address`",
            meaning:
                "One visitor is an address (IPv6: a /64), or what stands in `Authorization` (`token`; the address where there is none). All tokens of one address together get eight times as much"
        ) { $0.rules.rateKey = $1 },
    ]

    private static let pageKeys: [SectionKey] = [
        .map(
            "error-pages", names: .errorStatus, .text("FILE"),
            meaning:
                "HTML pages for the gateway's own refusals, for visitors that accept HTML; `{status}` and `{reason}` are filled in. At most 256 KiB, read at the start and by `SIGHUP`"
        ) { $0.errorPages[$1] = $2 },
        .single(
            "maintenance", .flag, shown: "`false`", meaning: "All requests are answered 503 with `Retry-After`"
        ) { $0.rules.isInMaintenance = $1 },
        .single("maintenance-page", .text("FILE"), shown: "that of `error-pages`", meaning: "The page for that") {
            $0.maintenancePage = $1
        },
        .single(
            "maintenance-retry", .time(.seconds(1) ... .hours(24)), shown: "`10m`",
            meaning: "What `Retry-After` says then"
        ) { $0.rules.maintenanceRetry = $1.nanoseconds / 1_000_000_000 },
        .list("maintenance-allow", .addressRange, meaning: "Visitors from these addresses still get through") {
            $0.rules.maintenanceAllowed = $1
        },
    ]
}
