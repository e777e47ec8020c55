/// What is said to a proxy before it carries the bytes of a connection, without its socket: HTTP CONNECT and SOCKS5.
import KiteHTTP
import KiteSupport
import NIOCore

/// The client's side of the handshake with a proxy. Received bytes go in, what is to be sent comes out.
struct ProxyHandshake {
    /// What to do next.
    enum Step: Equatable {
        /// Wait for more.
        case wait
        case send(ByteBuffer)
        /// The proxy carries our bytes from now on; what came behind its answer is the target's.
        case done(surplus: ByteBuffer)
    }

    private enum State {
        case connect(ResponseScanner)
        case socksMethod
        case socksAuthentication
        case socksReply
        case done
    }

    /// The longest answer of an HTTP proxy, in bytes.
    static let maximumHead = 16 * 1024

    private let proxy: ProxyServer
    private let host: String
    private let port: Int
    private var state: State
    private var buffer = ByteBuffer()

    /// - Parameters:
    ///   - host: the target, a name or an IP address.
    ///   - port: 1 to 65535.
    init(proxy: ProxyServer, host: String, port: Int) {
        self.proxy = proxy
        self.host = host
        self.port = port
        switch proxy.kind {
        case .http:
            var limits = HTTPLimits()
            limits.headBytes = Self.maximumHead
            state = .connect(ResponseScanner(limits: limits))
        case .socks5: state = .socksMethod
        }
    }

    /// Whether a host can stand in the request to a proxy without adding to it.
    static func canName(_ host: String) -> Bool {
        !host.isEmpty && host.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F }
    }

    /// What is sent first.
    func opening() -> ByteBuffer {
        switch proxy.kind {
        case .http:
            let authority = host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
            var request = ByteBuffer(string: "CONNECT \(authority) HTTP/1.1\r\nHost: \(authority)\r\n")
            if let credentials = proxy.credentials {
                let token = Base64.encode("\(credentials.user):\(credentials.password)".utf8)
                request.writeString("Proxy-Authorization: Basic \(token)\r\n")
            }
            request.writeStaticString("\r\n")
            return request
        case .socks5:
            // RFC 1928 section 3: version, the methods we have: none, and name with password.
            return ByteBuffer(bytes: proxy.credentials == nil ? [5, 1, 0] : [5, 2, 0, 2])
        }
    }

    /// Takes what the proxy sent.
    /// - Throws: why the proxy does not serve us.
    mutating func received(_ bytes: ByteBuffer) throws(TransportError) -> Step {
        buffer.writeImmutableBuffer(bytes)
        switch state {
        case .connect(var scanner):
            // Informational responses may come first.
            while true {
                let head: ResponseHead?
                do {
                    head = try scanner.feed(&buffer, requestMethod: .connect)
                } catch {
                    throw TransportError(.protocolViolation, "The proxy's answer is no valid HTTP: \(error.message)")
                }
                guard let head else {
                    state = .connect(scanner)
                    return .wait
                }
                switch head.status {
                case 100, 102..<200: continue
                case 200..<300: return finish()
                case 407: throw TransportError(.refused, "The proxy asks for a user name and password (407)")
                default: throw TransportError(.refused, "The proxy does not connect to the target (\(head.status))")
                }
            }
        case .socksMethod:
            guard let (version, method) = buffer.readMultipleIntegers(as: (UInt8, UInt8).self) else { return .wait }
            guard version == 5 else { throw TransportError(.protocolViolation, "The proxy does not speak SOCKS5") }
            switch (method, proxy.credentials) {
            case (0, _):
                state = .socksReply
                return .send(try socksRequest())
            case (2, let credentials?):
                let (user, password) = (Array(credentials.user.utf8), Array(credentials.password.utf8))
                guard (1...255).contains(user.count), (1...255).contains(password.count) else {
                    throw TransportError(.refused, "SOCKS5 user name and password must have 1 to 255 bytes")
                }
                // RFC 1929 section 2
                state = .socksAuthentication
                return .send(
                    ByteBuffer(bytes: [1, UInt8(user.count)] + user + [UInt8(password.count)] + password))
            case (0xFF, nil), (2, nil):
                throw TransportError(.refused, "The proxy asks for a user name and password")
            default:
                throw TransportError(.refused, "The proxy accepts none of our ways to authenticate")
            }
        case .socksAuthentication:
            guard let (_, status) = buffer.readMultipleIntegers(as: (UInt8, UInt8).self) else { return .wait }
            guard status == 0 else {
                throw TransportError(.refused, "The proxy does not accept the user name and password")
            }
            state = .socksReply
            return .send(try socksRequest())
        case .socksReply: return try socksReply()
        case .done: return .done(surplus: buffer)
        }
    }

    private mutating func finish() -> Step {
        state = .done
        let surplus = buffer
        buffer = ByteBuffer()
        return .done(surplus: surplus)
    }

    /// RFC 1928 section 4
    private func socksRequest() throws(TransportError) -> ByteBuffer {
        var request = ByteBuffer(bytes: [5, 1, 0])
        // Where the address lies in sockaddr_in and sockaddr_in6 is the same on every system.
        switch try? SocketAddress(ipAddress: host, port: 0) {
        case .v4(let address)?:
            request.writeInteger(1, as: UInt8.self)
            _ = withUnsafeBytes(of: address.address) { request.writeBytes($0[4..<8]) }
        case .v6(let address)?:
            request.writeInteger(4, as: UInt8.self)
            _ = withUnsafeBytes(of: address.address) { request.writeBytes($0[8..<24]) }
        case .unixDomainSocket?, nil:
            guard let length = UInt8(exactly: host.utf8.count), length > 0 else {
                throw TransportError(.connectFailed, "The target's name is too long for the proxy")
            }
            request.writeInteger(3, as: UInt8.self)
            request.writeInteger(length)
            request.writeString(host)
        }
        request.writeInteger(UInt16(clamping: port))
        return request
    }

    /// RFC 1928 section 6
    private mutating func socksReply() throws(TransportError) -> Step {
        var reply = buffer
        guard let (version, code, _, kind) = reply.readMultipleIntegers(as: (UInt8, UInt8, UInt8, UInt8).self) else {
            return .wait
        }
        guard version == 5 else { throw TransportError(.protocolViolation, "The proxy does not speak SOCKS5") }
        switch code {
        case 0: break
        case 2: throw TransportError(.refused, "The proxy's rules do not allow the target")
        case 3, 4: throw TransportError(.connectFailed, "The proxy cannot reach the target")
        case 5: throw TransportError(.connectFailed, "The target refused the proxy's connection")
        case 6: throw TransportError(.connectTimeout, "The target did not answer the proxy in time")
        default: throw TransportError(.connectFailed, "The proxy could not connect to the target (SOCKS5 code \(code))")
        }
        let length: Int
        switch kind {
        case 1: length = 4
        case 4: length = 16
        case 3:
            guard let count = reply.readInteger(as: UInt8.self) else { return .wait }
            length = Int(count)
        default: throw TransportError(.protocolViolation, "The proxy's answer is no valid SOCKS5")
        }
        guard reply.readSlice(length: length + 2) != nil else { return .wait }
        buffer = reply
        return finish()
    }
}
