/// Who a kite is and how it is reached, from code or from the environment variables that Go's kites know.
public import KiteDnode

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Bounds on what one connection of a kite may cost.
public struct KiteLimits: Sendable, Hashable {
    /// Bounds on a message (16 MiB) and on live callbacks.
    public var dnode = DnodeLimits()
    /// Calls of one peer that run at a time; further ones are answered with a `requestLimitError`. When so many calls of functions that
    /// it was given wait for earlier ones, nothing more is read from it for a while.
    public var maximumConcurrentCalls = 256
    /// The same for functions while calls to that peer are pending, whose answers must be read. Where a function that the peer called
    /// itself waits for such an answer, more of them end the connection.
    public var maximumWaitingCallbacks = 4096
    /// Size in bytes of the messages whose calls are still running; beyond it further calls of that peer are refused likewise. Calls of
    /// functions may hold as much once more, or twice that while calls to the peer are pending.
    public var maximumBytesInProgress = 32 << 20
    /// Bytes of one message, in either direction, on the connections that a listening kite serves, where that is to be less than what `dnode`
    /// says. Connections that it dials are not concerned.
    public var maximumServedMessageSize: Int?
    /// Connections that a listening kite serves at a time.
    public var maximumConnections = 10_000

    public init() {}
}

/// The settings of a kite.
public struct KiteConfiguration: Sendable {
    /// How a kite dials others. The raw value is what `KITE_TRANSPORT` says; Go's kites know three of them.
    public enum Transport: String, Sendable, Hashable, CaseIterable {
        case webSocket = "WebSocket"
        /// A WebSocket on the URL itself, without SockJS around the messages. Go's kites do not serve it.
        case rawWebSocket = "RawWebSocket"
        case xhrPolling = "XHRPolling"
        case xhrStreaming = "XHRStreaming"
        case eventSource = "EventSource"
        /// A WebSocket; where that does not pass XHR streaming, where that does not pass XHR polling.
        case auto = "auto"
    }

    /// What is wrong with a setting.
    public struct InvalidSetting: Error, Sendable, CustomStringConvertible {
        /// The variable.
        public let name: String
        /// What would be right.
        public let reason: String
        public var description: String { "\(name): \(reason)" }
    }

    /// Whose kite it is; `anonymous` without a kite key.
    public var username = "anonymous"
    /// Where the kite belongs, such as `production`. Default `development`.
    public var environment = "development"
    /// Where it runs. Default `local`.
    public var region = "local"
    /// The machine's name unless set.
    public var hostname = Self.machineName()
    /// A random UUID unless set.
    public var id = Self.randomUUID()
    /// Where a stand-alone kite listens. Default 127.0.0.1.
    public var host = "127.0.0.1"
    /// The port it listens on; 0 for any that is free. Default 3636.
    public var port = 3636
    /// Where Kontrol is; from the kite key where that is given.
    public var kontrolURL: String?
    /// Proves to Kontrol and to the gateway whose kite this is.
    public var kiteKey: KiteKey?
    /// Default ``Transport/auto``.
    public var transport = Transport.auto
    /// How long a call waits for its answer. Default 15 s.
    public var timeout = Duration.seconds(15)
    /// How long dialling may take, all transports that ``Transport/auto`` tries together. Default 15 s.
    public var handshakeTimeout = Duration.seconds(15)
    /// How long a verified token or kite key of a caller is remembered before its signature is checked again; zero for not at all. Its
    /// expiry is minded in any case. Default 1 h.
    public var verifyTTL = Duration.seconds(3600)
    /// The gateway that ``Kite/expose(through:as:isPublic:onURL:)`` goes through unless told otherwise.
    public var proxyURL: String?
    /// What its connections may ask of it.
    public var limits = KiteLimits()

    public init() {}

    /// Takes the user and Kontrol's URL from a kite key, except where `KITE_…` has already chosen something else.
    public mutating func apply(_ key: KiteKey) {
        kiteKey = key
        username = key.username
        kontrolURL = kontrolURL ?? key.kontrolURL
    }

    /// The settings from `KITE_USERNAME`, `KITE_ENVIRONMENT`, `KITE_REGION`, `KITE_IP`, `KITE_PORT`, `KITE_KONTROL_URL`,
    /// `KITE_TRANSPORT`, `KITE_TIMEOUT`, `KITE_HANDSHAKE_TIMEOUT`, `KITE_VERIFY_TTL` (such as `4s`, `500ms`, `1m30s`; the last one as in Go
    /// 0 for the default and negative for none) and `KITE_PROXY_URL`, and the kite key at its usual place (`KITE_HOME`) where there is
    /// one. Reads a file: not for event loops.
    /// - Parameter variables: the environment; that of the process where nil.
    /// - Throws: ``InvalidSetting`` for a variable that makes no sense, ``KeyError`` for a kite key that cannot be read.
    public static func fromEnvironment(_ variables: [String: String]? = nil) throws -> KiteConfiguration {
        var configuration = KiteConfiguration()
        try configuration.read(variables)
        return configuration
    }

    private mutating func read(_ variables: [String: String]?) throws {
        kontrolURL = Self.value(variables, "KITE_KONTROL_URL")
        if let key = try Self.readKiteKey(variables) { apply(key) }
        if let text = Self.value(variables, "KITE_USERNAME") { username = text }
        if let text = Self.value(variables, "KITE_ENVIRONMENT") { environment = text }
        if let text = Self.value(variables, "KITE_REGION") { region = text }
        if let text = Self.value(variables, "KITE_IP") { host = text }
        if let text = Self.value(variables, "KITE_PORT") {
            guard let number = UInt16(text) else {
                throw InvalidSetting(name: "KITE_PORT", reason: "a number from 0 to 65535 is expected")
            }
            port = Int(number)
        }
        if let text = Self.value(variables, "KITE_TRANSPORT") {
            guard let known = Transport(rawValue: text) else {
                let known = Transport.allCases.map(\.rawValue).joined(separator: ", ")
                throw InvalidSetting(name: "KITE_TRANSPORT", reason: "one of \(known) is expected")
            }
            transport = known
        }
        if let text = Self.value(variables, "KITE_TIMEOUT") { timeout = try Self.duration(text, "KITE_TIMEOUT") }
        if let text = Self.value(variables, "KITE_HANDSHAKE_TIMEOUT") {
            handshakeTimeout = try Self.duration(text, "KITE_HANDSHAKE_TIMEOUT")
        }
        if let text = Self.value(variables, "KITE_VERIFY_TTL"), !["0", "0s"].contains(text) {
            let isNegative = text.hasPrefix("-")
            let time = try Self.duration(isNegative ? String(text.dropFirst()) : text, "KITE_VERIFY_TTL")
            verifyTTL = isNegative ? .zero : time
        }
        proxyURL = Self.value(variables, "KITE_PROXY_URL")
    }

    private static func value(_ variables: [String: String]?, _ name: String) -> String? {
        let text = if let variables { variables[name] } else { getenv(name).map { String(cString: $0) } }
        return text?.isEmpty == false ? text : nil
    }

    /// The kite key at its usual place; nil where there is none.
    private static func readKiteKey(_ variables: [String: String]?) throws(KeyError) -> KiteKey? {
        do throws(KeyError) { return try KiteKey.read(from: KiteKey.defaultPath(environment: variables)) } catch {
            if error.code == .notFound { return nil }
            throw error
        }
    }

    /// A duration as Go writes it: numbers with their units, which are summed.
    private static func duration(_ text: String, _ name: String) throws(InvalidSetting) -> Duration {
        let units = [
            "ns": 1e-9, "us": 1e-6, "\u{B5}s": 1e-6, "\u{3BC}s": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600,
        ]
        var seconds = 0.0
        var rest = text[...]
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isASCII && $0.isNumber || $0 == "." }
            let unit = rest.dropFirst(digits.count).prefix { !($0.isASCII && $0.isNumber || $0 == ".") }
            guard let count = Double(digits), let factor = units[String(unit)] else {
                seconds = 0
                break
            }
            seconds += count * factor
            rest = rest.dropFirst(digits.count + unit.count)
        }
        guard seconds > 0, seconds <= 86400 else {
            throw InvalidSetting(name: name, reason: "a time of at most 24h such as 4s, 500ms or 1m30s is expected")
        }
        return .seconds(seconds)
    }

    private static func machineName() -> String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "localhost" }
        return name.withUnsafeBufferPointer { $0.baseAddress.map { String(cString: $0) } ?? "localhost" }
    }

    /// A random UUID (RFC 9562, version 4).
    static func randomUUID() -> String {
        var bytes = (0..<16).map { _ in UInt8.random(in: 0...255) }
        bytes[6] = bytes[6] & 0x0F | 0x40
        bytes[8] = bytes[8] & 0x3F | 0x80
        var text = ""
        for (position, byte) in bytes.enumerated() {
            if [4, 6, 8, 10].contains(position) { text += "-" }
            text += (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }
        return text
    }
}
