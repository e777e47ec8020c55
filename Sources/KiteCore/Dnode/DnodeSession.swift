/// The state of one dnode connection: which functions the peer knows by which number, and which calls wait for an answer.
///
/// The machine does no I/O. What it returns as ``DnodeMessage`` is to be sent; what it returns as ``DnodeEvent`` is to be done.
/// Calls are numbered with the functions, from 0 up: the number of a call is that of its response callback, which is good
/// for one answer.

/// A call of a method, as received.
public struct DnodeCall: Sendable, Hashable {
    /// The name of the method.
    public var method: String
    /// What the caller says it is; nil where it says nothing.
    public var kite: DnodeValue?
    /// How it proves that; nil where it does not.
    public var authentication: DnodeValue?
    /// Its arguments.
    public var arguments: [DnodeValue]
    /// Where the answer goes; nil where none is wanted.
    public var answerTo: DnodeCallbackID?

    public init(
        method: String, kite: DnodeValue? = nil, authentication: DnodeValue? = nil, arguments: [DnodeValue] = [],
        answerTo: DnodeCallbackID? = nil
    ) {
        self.method = method
        self.kite = kite
        self.authentication = authentication
        self.arguments = arguments
        self.answerTo = answerTo
    }
}

/// What a received message means.
public enum DnodeEvent: Sendable, Hashable {
    /// The peer calls a method.
    case call(DnodeCall)
    /// The peer answers a call of ours. `error` is null after a success.
    case answer(to: DnodeCallbackID, error: DnodeValue, result: DnodeValue)
    /// The peer answers a call of ours with something that is no answer.
    case invalidAnswer(to: DnodeCallbackID, reason: String)
    /// The peer calls a function that it was given.
    case function(DnodeFunction, arguments: [DnodeValue])
    /// The peer's call is to be answered with an argument error.
    case refuse(DnodeCallbackID, reason: String)
    /// A late answer, or a callback that is no more: nothing to do.
    case ignore
    /// The message makes no sense and nobody can be told: the connection is to be closed.
    case violation(reason: String)
}

/// The machine.
public struct DnodeSession: Sendable {
    private enum Callback: Sendable {
        /// With the functions that live as long as the call.
        case answer(functions: [DnodeCallbackID])
        /// Scoped: it ends with a call.
        case function(DnodeFunction, isScoped: Bool)

        var isScoped: Bool { if case .function(_, true) = self { true } else { false } }
    }

    private let limits: DnodeLimits
    private var callbacks: [DnodeCallbackID: Callback] = [:]
    /// The numbers of each function. It has more than one when it occurred twice in a message, or lives as long as calls that overlap.
    private var functions: [DnodeFunction: [DnodeCallbackID]] = [:]
    private var nextID = 0
    private var pendingCalls = 0

    public init(limits: DnodeLimits = DnodeLimits()) { self.limits = limits }

    /// Functions given to the peer and calls without answer.
    public var liveCallbacks: Int { callbacks.count }

    // MARK: sending

    /// Calls a method of the peer.
    /// - Returns: the message to send, and the number under which the answer will come.
    public mutating func call(
        _ method: String, kite: DnodeValue, authentication: DnodeValue = .null, arguments: [DnodeValue]
    ) throws(DnodeError) -> (message: DnodeMessage, id: DnodeCallbackID) {
        guard pendingCalls < limits.maximumPendingCalls else {
            throw DnodeError(.limitExceeded, "more than \(limits.maximumPendingCalls) calls wait for their answer")
        }
        let id = try number(.answer(functions: []))
        pendingCalls += 1
        let options: DnodeObject = [
            "kite": kite, "authentication": authentication,
            "responseCallback": .string(DnodeJSONWriter.functionPlaceholder),
            "withArgs": arguments.isEmpty ? .null : .array(arguments),
        ]
        var message = DnodeMessage(
            method: .name(method), arguments: [.object(options)],
            callbacks: [id: [.position(0), .key("responseCallback")]])
        message.introduced = [id]
        try introduceFunctions(in: arguments, under: [.position(0), .key("withArgs")], of: &message, for: id)
        return (message, id)
    }

    /// Answers a call of the peer. Give null for the one that is not.
    public mutating func answer(
        _ id: DnodeCallbackID, error: DnodeValue, result: DnodeValue
    ) throws(DnodeError) -> DnodeMessage {
        try invoke(id, arguments: [.object(["error": error, "result": result])])
    }

    /// Calls a function of the peer.
    public mutating func invoke(
        _ id: DnodeCallbackID, arguments: [DnodeValue]
    ) throws(DnodeError) -> DnodeMessage {
        var message = DnodeMessage(method: .callback(id), arguments: arguments)
        try introduceFunctions(in: arguments, under: [], of: &message)
        return message
    }

    /// Gives up a call of ours; an answer that still comes is ignored.
    public mutating func forget(_ call: DnodeCallbackID) {
        if case .answer = callbacks[call] { remove(call) }
    }

    /// Forgets everything; the connection has ended. Breaks the circle when a function of the peer was given back to it.
    public mutating func reset() {
        callbacks = [:]
        functions = [:]
        pendingCalls = 0
    }

    /// Takes back what a message made known; for a message that could not be sent.
    public mutating func withdraw(_ message: DnodeMessage) {
        for id in message.introduced { remove(id) }
    }

    /// Forgets a function; calls of it that still come are ignored.
    public mutating func release(_ function: DnodeFunction) {
        for id in functions[function] ?? [] { remove(id) }
    }

    /// - Parameter call: the call that the message makes.
    private mutating func introduceFunctions(
        in values: [DnodeValue], under path: [DnodeMessage.PathElement], of message: inout DnodeMessage,
        for call: DnodeCallbackID? = nil
    ) throws(DnodeError) {
        var scoped: [DnodeCallbackID] = []
        do throws(DnodeError) {
            try DnodeMessage.forEachFunction(in: values, under: path, depth: limits.maximumDepth) {
                (function, path) throws(DnodeError) in
                // Each call has numbers of its own for the functions that end with it.
                let isScoped = function.lifetime == .call && call != nil
                // A number has one path: a function that occurs twice in a message gets another number.
                if !isScoped, let known = reusableNumber(of: function, in: message) {
                    message.callbacks[known] = path
                } else {
                    let id = try register(function, isScoped: isScoped)
                    message.callbacks[id] = path
                    message.introduced.append(id)
                    if isScoped { scoped.append(id) }
                }
            }
            if let call, !scoped.isEmpty { callbacks[call] = .answer(functions: scoped) }
        } catch {
            withdraw(message)
            throw error
        }
    }

    private func reusableNumber(of function: DnodeFunction, in message: DnodeMessage) -> DnodeCallbackID? {
        functions[function]?.first { message.callbacks[$0] == nil && callbacks[$0]?.isScoped == false }
    }

    private mutating func register(_ function: DnodeFunction, isScoped: Bool) throws(DnodeError) -> DnodeCallbackID {
        guard callbacks.count - pendingCalls < limits.maximumFunctions else {
            throw DnodeError(
                .limitExceeded,
                "the other side holds \(limits.maximumFunctions) functions already: release those it no longer needs")
        }
        let id = try number(.function(function, isScoped: isScoped))
        functions[function, default: []].append(id)
        return id
    }

    private mutating func number(_ callback: Callback) throws(DnodeError) -> DnodeCallbackID {
        guard nextID < DnodeCallbackID.maximum else {
            throw DnodeError(.limitExceeded, "no more numbers for callbacks on one connection")
        }
        let id = DnodeCallbackID(nextID)
        nextID += 1
        callbacks[id] = callback
        return id
    }

    private mutating func remove(_ id: DnodeCallbackID) {
        switch callbacks.removeValue(forKey: id) {
        case .answer(let functions):
            pendingCalls -= 1
            for function in functions { remove(function) }
        case .function(let function, _):
            functions[function]?.removeAll { $0 == id }
            if functions[function]?.isEmpty == true { functions[function] = nil }
        case nil: break
        }
    }
}

// MARK: - receiving

extension DnodeSession {
    /// Takes a message, or why it could not be parsed.
    public mutating func receive(_ message: Result<DnodeMessage, DnodeRefusal>) -> DnodeEvent {
        switch message {
        case .failure(let refusal): refuse(refusal)
        case .success(let message):
            switch message.method {
            case .name(let name): Self.call(name, message)
            case .callback(let id): callback(id, arguments: message.arguments)
            }
        }
    }

    private mutating func refuse(_ refusal: DnodeRefusal) -> DnodeEvent {
        guard refusal.answerTo == nil, let id = refusal.callback else {
            return Self.refuse(refusal.answerTo, reason: refusal.reason)
        }
        switch callbacks[id] {
        case nil: return .ignore
        case .answer:
            remove(id)
            return .invalidAnswer(to: id, reason: refusal.reason)
        // Whoever called it would take it for done.
        case .function: return .violation(reason: refusal.reason)
        }
    }

    private static func refuse(_ id: DnodeCallbackID?, reason: String) -> DnodeEvent {
        if let id { .refuse(id, reason: reason) } else { .violation(reason: reason) }
    }

    private static func call(_ method: String, _ message: DnodeMessage) -> DnodeEvent {
        let answerTo = message.callbacks.first { _, path in
            path.count == 2 && path.last == .key("responseCallback")
        }?.key
        guard message.arguments.count == 1, case .object(let options) = message.arguments[0] else {
            return refuse(answerTo, reason: "a call has one argument, the options object")
        }
        var call = DnodeCall(method: method, answerTo: answerTo)
        call.kite = options["kite"].flatMap { $0.isNull ? nil : $0 }
        call.authentication = options["authentication"].flatMap { $0.isNull ? nil : $0 }
        switch options["withArgs"] {
        case .array(let arguments): call.arguments = arguments
        case .null, nil: break
        case let other?: return refuse(answerTo, reason: "withArgs must be an array, not \(other.kind)")
        }
        return .call(call)
    }

    private mutating func callback(_ id: DnodeCallbackID, arguments: [DnodeValue]) -> DnodeEvent {
        switch callbacks[id] {
        case nil: return .ignore
        case .function(let function, _): return .function(function, arguments: arguments)
        case .answer:
            remove(id)
            return Self.answer(to: id, arguments)
        }
    }

    /// Go answers with one object of two members; kite.js with two arguments, or one when there is no result.
    private static func answer(to id: DnodeCallbackID, _ arguments: [DnodeValue]) -> DnodeEvent {
        switch arguments.count {
        case 1:
            switch arguments[0] {
            case .object(let answer) where answer["error"] != nil || answer["result"] != nil:
                return .answer(to: id, error: answer["error"] ?? .null, result: answer["result"] ?? .null)
            case .object, .null: return .answer(to: id, error: arguments[0], result: .null)
            default: return .invalidAnswer(to: id, reason: "the answer is \(arguments[0].kind)")
            }
        case 2: return .answer(to: id, error: arguments[0], result: arguments[1])
        default: return .invalidAnswer(to: id, reason: "the answer has \(arguments.count) arguments")
        }
    }
}
