/// Decides from a visitor's first calls whether it may reach a kite that believes everybody who comes through a tunnel.
///
/// Existing Go kites take a tunnel for a connection of their own making and ask nobody who comes through it for credentials. So it is
/// the gateway that asks: nothing of a visitor reaches the kite before a call that carries a valid token or kite key. Calls without are
/// answered with the error that the kite itself would give, so that clients renew an expired token as they always have.
import KiteCore
import KiteDnode
import NIOCore

/// The beginning of one visitor's session. No I/O: what arrives goes in, what is to be done comes out.
struct VisitorAdmissionStateMachine {
    enum Action {
        /// Judge these credentials, then admit the visitor with the message, or call ``VisitorAdmissionStateMachine/refuse(_:_:)``.
        case judge(Authentication?, DnodeCall)
        /// Send the answer and go on.
        case answer(ByteBuffer)
        /// Go on: the call wants no answer.
        case ignore
        case close(reason: String)
    }

    /// Calls that are refused before the session is closed. Enough for a client that renews its token, and for a page that calls several
    /// methods at once.
    static let toleratedRefusals = 16
    static let toleratedPings = 256

    private var session: DnodeSession
    private let limits: DnodeLimits
    private var refusals = 0
    private var pings = 0

    init(limits: DnodeLimits = DnodeLimits()) {
        self.limits = limits
        session = DnodeSession(limits: limits)
    }

    mutating func receive(_ message: ByteBuffer) -> Action {
        let parsed = DnodeMessage.parse(message, limits: limits) { _ in DnodeFunction { _ in } }
        switch session.receive(parsed) {
        case .call(let call):
            // Every kite answers this to anybody.
            if call.method == "kite.ping" { return ping(call) }
            guard let value = call.authentication else { return .judge(nil, call) }
            do {
                return .judge(try DnodeDecoder().decode(Authentication.self, from: value), call)
            } catch {
                return refuse(
                    call,
                    KiteError(.authentication, "The authentication must be an object with a type and a key"))
            }
        case .refuse(let id, let reason):
            return refuse(DnodeCall(method: "", answerTo: id), KiteError(.argument, reason))
        case .violation(let reason): return .close(reason: reason)
        // There is nobody yet whose functions these could be.
        case .answer, .invalidAnswer, .function, .ignore:
            return .close(reason: "The first message must be a call that says who calls")
        }
    }

    private mutating func ping(_ call: DnodeCall) -> Action {
        pings += 1
        guard pings <= Self.toleratedPings else { return .close(reason: "A call that says who calls is expected") }
        return answer(call, error: .null, result: "pong")
    }

    /// The credentials are not good enough.
    mutating func refuse(_ call: DnodeCall, _ error: KiteError) -> Action {
        refusals += 1
        guard refusals <= Self.toleratedRefusals else { return .close(reason: error.message) }
        var error = error
        if error.id.isEmpty { error.id = TunnelToken.randomText() }
        let value: DnodeValue = [
            "type": .string(error.type.rawValue), "message": .string(error.message), "code": .string(error.code),
            "id": .string(error.id),
        ]
        return answer(call, error: value, result: .null)
    }

    private mutating func answer(_ call: DnodeCall, error: DnodeValue, result: DnodeValue) -> Action {
        guard let id = call.answerTo else { return .ignore }
        do {
            return .answer(try session.answer(id, error: error, result: result).serialized(limits: limits))
        } catch {
            return .close(reason: "\(error)")
        }
    }
}
