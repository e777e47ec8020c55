/// The rules for a request, prepared so that applying them makes no text.
import KiteHTTP
import NIOCore

/// What applies to requests of one host and route. Decisions that need nothing but the request are made here; the exchange acts on them.
final class Rules {
    struct Redirect {
        let url: ByteBuffer
        let scheme: String
        let authority: ByteBuffer
        let status: UInt16
        let keepsPath: Bool
    }
    let isHTTPSOnly: Bool
    private let httpsPort: Int
    private let strictTransport: String?
    let redirect: Redirect?
    let requestFields: FieldRules?
    let responseFields: FieldRules?
    let hostField: ByteBuffer?
    let compression: CompressionRules?
    let bodyBytes: Int64?
    let origins: OriginRules?
    let passwords: PasswordList?
    let challenge: String
    let passesAuthorization: Bool
    private let allowed: [AddressRange]
    private let denied: [AddressRange]
    let rateLimit: (interval: TimeAmount, burst: Int, number: Int)?
    let rateKey: RateKey
    let errorPages: [ErrorPageStatus: PageTemplate]
    let isInMaintenance: Bool
    let maintenancePage: PageTemplate?
    let maintenanceRetry: Int64
    private let maintenanceAllowed: [AddressRange]
    /// Whether anything is to be done besides letting the request through or not.
    let changesExchange: Bool
    /// Whether the visitor's address matters.
    let needsAddress: Bool

    init(_ set: RuleSet) {
        isHTTPSOnly = set.isHTTPSOnly ?? false
        httpsPort = set.httpsPort ?? 443
        strictTransport = set.strictTransport.map { age in
            "max-age=\(age)" + (set.strictTransportSubdomains == true ? "; includeSubDomains" : "")
                + (set.strictTransportPreload == true ? "; preload" : "")
        }
        if case .url(let url, let scheme, let authority) = set.redirect {
            let keepsPath = set.redirectKeepsPath ?? true
            redirect = Redirect(
                url: ByteBuffer(string: keepsPath && url.hasSuffix("/") ? String(url.dropLast()) : url), scheme: scheme,
                authority: ByteBuffer(string: authority), status: set.redirectStatus ?? 302, keepsPath: keepsPath)
        } else {
            redirect = nil
        }
        requestFields = FieldRules(
            set: set.requestSet, added: set.requestAdded, removed: set.requestRemoved, inRequest: true)
        responseFields = FieldRules(
            set: set.responseSet, added: set.responseAdded, removed: set.responseRemoved, inRequest: false)
        hostField = set.hostField.map { ByteBuffer(string: $0) }
        compression =
            set.compresses == true
            ? CompressionRules(types: set.compressedTypes, leastBytes: set.compressedBytes) : nil
        bodyBytes = set.bodyBytes.map(Int64.init)
        origins = set.origins.flatMap(OriginRules.init)
        let asks = set.asksForPassword ?? true
        passwords = asks && set.users?.isEmpty == false ? set.passwords : nil
        challenge = "Basic realm=\"\(set.realm ?? "restricted")\", charset=\"UTF-8\""
        passesAuthorization = set.passesAuthorization ?? false
        allowed = set.allowed ?? []
        denied = set.denied ?? []
        if case .every(let interval, let burst) = set.rateLimit {
            rateLimit = (interval, burst, set.rateLimitNumber ?? 0)
        } else {
            rateLimit = nil
        }
        rateKey = set.rateKey ?? .address
        errorPages = set.errorPages ?? [:]
        isInMaintenance = set.isInMaintenance ?? false
        maintenancePage = set.maintenancePage
        maintenanceRetry = set.maintenanceRetry ?? 600
        maintenanceAllowed = set.maintenanceAllowed ?? []
        needsAddress = !allowed.isEmpty || !denied.isEmpty || rateLimit != nil || isInMaintenance
        changesExchange =
            strictTransport != nil || requestFields != nil || responseFields != nil || compression != nil
            || bodyBytes != nil || origins != nil || passwords != nil || !errorPages.isEmpty || hostField != nil
            || isInMaintenance
    }

    // MARK: Who may come

    /// Whether the lists of addresses let a visitor in. One whose address is unknown may be anybody: only where there are no lists.
    func admits(_ address: AddressBytes?) -> Bool {
        guard let address else { return allowed.isEmpty && denied.isEmpty }
        if denied.contains(where: { $0.contains(address) }) { return false }
        return allowed.isEmpty || allowed.contains { $0.contains(address) }
    }

    func passesMaintenance(_ address: AddressBytes?) -> Bool {
        guard let address else { return false }
        return maintenanceAllowed.contains { $0.contains(address) }
    }

    /// By what the requests with all tokens of one address are counted.
    func tokenAddressHash(_ address: AddressBytes) -> Int {
        var hasher = Hasher()
        hasher.combine(rateLimit?.number)
        hasher.combine("tokens")
        hasher.combine(AddressKey(address))
        return hasher.finalize()
    }

    /// By what a request is counted.
    func rateHash(_ request: RequestHead, _ address: AddressBytes?) -> Int {
        var hasher = Hasher()
        hasher.combine(rateLimit?.number)
        if rateKey == .token, let token = request.fields.first(.authorization) {
            token.withUnsafeBytes { hasher.combine(bytes: $0) }
        } else if let address {
            hasher.combine(AddressKey(address))
        }
        return hasher.finalize()
    }

    // MARK: Redirects

    /// Where an unencrypted request is sent; nil when it names no host.
    func secureLocation(_ request: RequestHead) -> ByteBuffer? {
        let host = RuleBook.host(request.authority).bytes
        guard host.readableBytes > 0 else { return nil }
        var location = ByteBuffer(staticString: "https://")
        location.writeImmutableBuffer(host)
        if httpsPort != 443 { location.writeString(":\(httpsPort)") }
        Self.writePath(request, into: &location)
        return location
    }

    /// Where requests are sent; nil when this one is already there.
    func location(_ request: RequestHead, isSecure: Bool) -> ByteBuffer? {
        guard let redirect else { return nil }
        let isSameHost =
            RouteKey(request.authority).bytes == redirect.authority && redirect.scheme == (isSecure ? "https" : "http")
        guard !isSameHost else { return nil }
        var location = redirect.url
        if redirect.keepsPath { Self.writePath(request, into: &location) }
        return location
    }

    private static func writePath(_ request: RequestHead, into location: inout ByteBuffer) {
        // `*` of OPTIONS is no path.
        guard request.target.readableBytesView.first == UInt8(ascii: "/") else {
            location.writeStaticString("/")
            return
        }
        location.writeImmutableBuffer(request.target)
    }

    // MARK: Heads

    /// What the upstream is to see.
    func apply(to request: inout RequestHead) {
        if passwords != nil, !passesAuthorization, request.fields.has(.authorization) {
            let fields = request.fields
            request.fields = fields.copy { fields.field(at: $0) != .authorization }
        }
        guard let requestFields else { return }
        request.fields = request.fields.resolvingConnection()
        requestFields.apply(to: &request.fields)
    }

    /// What the visitor is to see, besides compression.
    /// - Parameter origin: that of the request, where it may read the response.
    func apply(to head: inout ResponseHead, origin: OriginRules.Permission, isSecure: Bool) {
        // A service must not take out of the response what is put into it here.
        head.fields = head.fields.resolvingConnection()
        if let origins { origins.apply(to: &head.fields, origin) }
        responseFields?.apply(to: &head.fields)
        if let strictTransport, isSecure {
            let fields = head.fields
            head.fields = fields.copy(reserving: 96) {
                !fields.name(at: $0).equalsIgnoringCase("Strict-Transport-Security")
            }
            head.fields.append("Strict-Transport-Security", strictTransport)
        }
    }
}
