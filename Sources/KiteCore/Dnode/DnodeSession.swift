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
        case answer
        case function(DnodeFunction)
    }

    private let limits: DnodeLimits
    private var callbacks: [DnodeCallbackID: Callback] = [:]
    private var functions: [DnodeFunction: DnodeCallbackID] = [:]
    private var nextID = 0

    public init(limits: DnodeLimits = DnodeLimits()) { self.limits = limits }

    /// Functions given to the peer and calls without answer.
    public var liveCallbacks: Int { callbacks.count }

    // MARK: sending

    /// Calls a method of the peer.
    /// - Returns: the message to send, and the number under which the answer will come.
    public mutating func call(
        _ method: String, kite: DnodeValue, authentication: DnodeValue = .null, arguments: [DnodeValue]
    ) throws(DnodeError) -> (message: DnodeMessage, id: DnodeCallbackID) {
        let id = try register(.answer)
        let options: DnodeObject = [
            "kite": kite, "authentication": authentication,
            "responseCallback": .string(DnodeJSONWriter.functionPlaceholder),
            "withArgs": arguments.isEmpty ? .null : .array(arguments),
        ]
        var message = DnodeMessage(
            method: .name(method), arguments: [.object(options)],
            callbacks: [id: [.position(0), .key("responseCallback")]])
        message.introduced = [id]
        try introduceFunctions(in: arguments, under: [.position(0), .key("withArgs")], of: &message)
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
        if case .answer = callbacks[call] { callbacks[call] = nil }
    }

    /// Forgets everything; the connection has ended. Breaks the circle when a function of the peer was given back to it.
    public mutating func reset() {
        callbacks = [:]
        functions = [:]
    }

    /// Takes back what a message made known; for a message that could not be sent.
    public mutating func withdraw(_ message: DnodeMessage) {
        for id in message.introduced { remove(id) }
    }

    /// Forgets a function; calls of it that still come are ignored.
    public mutating func release(_ function: DnodeFunction) {
        if let id = functions[function] { remove(id) }
    }

    private mutating func introduceFunctions(
        in values: [DnodeValue], under path: [DnodeMessage.PathElement], of message: inout DnodeMessage
    ) throws(DnodeError) {
        do throws(DnodeError) {
            try DnodeMessage.forEachFunction(in: values, under: path, depth: limits.maximumDepth) {
                (function, path) throws(DnodeError) in
                if let known = functions[function], message.callbacks[known] == nil {
                    message.callbacks[known] = path
                } else {
                    // A number has one path: a function that occurs twice in a message gets another number.
                    let id = try register(.function(function))
                    message.callbacks[id] = path
                    message.introduced.append(id)
                }
            }
        } catch {
            withdraw(message)
            throw error
        }
    }

    private mutating func register(_ callback: Callback) throws(DnodeError) -> DnodeCallbackID {
        guard callbacks.count < limits.maximumLiveCallbacks, nextID < DnodeCallbackID.maximum else {
            throw DnodeError(
                .limitExceeded, "more than \(limits.maximumLiveCallbacks) callbacks and calls on one connection")
        }
        let id = DnodeCallbackID(nextID)
        nextID += 1
        callbacks[id] = callback
        if case .function(let function) = callback, functions[function] == nil { functions[function] = id }
        return id
    }

    private mutating func remove(_ id: DnodeCallbackID) {
        guard case .function(let function) = callbacks.removeValue(forKey: id), functions[function] == id else {
            return
        }
        functions[function] = nil
    }
}

// MARK: - receiving

extension DnodeSession {
    /// Takes a message, or why it could not be parsed.
    public mutating func receive(_ message: Result<DnodeMessage, DnodeRefusal>) -> DnodeEvent {
        switch message {
        case .failure(let refusal): Self.refuse(refusal.answerTo, reason: refusal.reason)
        case .success(let message):
            switch message.method {
            case .name(let name): Self.call(name, message)
            case .callback(let id): callback(id, arguments: message.arguments)
            }
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
        case .function(let function): return .function(function, arguments: arguments)
        case .answer:
            callbacks[id] = nil
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
