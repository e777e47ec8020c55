/// One message of a dnode connection: a call of a method or of a callback, with the callbacks among its arguments.
public import NIOCore

/// Names a callback of one side of a connection; counted up from 0 by the side that has the function.
public struct DnodeCallbackID: Sendable, Hashable, CustomStringConvertible {
    public let rawValue: Int
    /// What JavaScript can count to.
    static let maximum = 1 << 53

    public init(_ rawValue: Int) { self.rawValue = rawValue }
    public var description: String { String(rawValue) }
}

/// Why a received message is refused, and whom that concerns.
public struct DnodeRefusal: Error, Sendable, Hashable {
    /// What is wrong with the message, for people.
    public let reason: String
    /// The response callback of the refused call; nil where none could be made out, and the connection is to be closed.
    public let answerTo: DnodeCallbackID?
    /// The callback of this side that the message calls: a call of ours that gets no proper answer, or a function. Nil where the message
    /// calls something else.
    public let callback: DnodeCallbackID?

    public init(reason: String, answerTo: DnodeCallbackID? = nil, callback: DnodeCallbackID? = nil) {
        self.reason = reason
        self.answerTo = answerTo
        self.callback = callback
    }
}

/// A message as it travels.
public struct DnodeMessage: Sendable, Hashable {
    /// What is called.
    public enum Method: Sendable, Hashable {
        /// A method of the kite.
        case name(String)
        /// A callback that the receiver handed out.
        case callback(DnodeCallbackID)
    }

    /// One step on the way to a callback's placeholder.
    public enum PathElement: Sendable, Hashable {
        case position(Int)
        case key(String)
    }

    /// What is called.
    public var method: Method
    /// Functions stand where the sender had them.
    public var arguments: [DnodeValue]
    /// Where the functions among ``arguments`` stand, by the sender's number for them.
    public var callbacks: [DnodeCallbackID: [PathElement]]
    /// Those of ``callbacks`` that the message makes known to the peer.
    var introduced: [DnodeCallbackID] = []

    public init(
        method: Method, arguments: [DnodeValue], callbacks: [DnodeCallbackID: [PathElement]] = [:]
    ) {
        self.method = method
        self.arguments = arguments
        self.callbacks = callbacks
    }
}

// MARK: - receiving

extension DnodeMessage {
    /// Parses a received message and puts functions in the places of the placeholders.
    ///
    /// Absent or null `arguments` and `callbacks` count as empty, unknown members (`links`) are ignored.
    /// - Parameter function: makes the function that stands for a callback of the peer.
    public init(
        parsing bytes: ByteBuffer, limits: DnodeLimits = DnodeLimits(),
        function: (DnodeCallbackID) -> DnodeFunction
    ) throws(DnodeRefusal) {
        let root: DnodeValue
        do throws(DnodeError) { root = try DnodeValue(parsing: bytes, limits: limits) } catch {
            throw Self.refusal(of: bytes, limits: limits, reason: error.message)
        }
        guard case .object(let message) = root else { throw DnodeRefusal(reason: "a message must be an object") }
        let paths = message["callbacks"]
        let answerTo = Self.responseCallback(in: paths)
        let called = message["method"].flatMap { Self.callbackID($0) }
        func refusal(_ reason: String) -> DnodeRefusal {
            DnodeRefusal(reason: reason, answerTo: answerTo, callback: called)
        }

        switch message["method"] {
        case .string(let name): method = .name(name)
        case let number?:
            guard let called else {
                throw refusal("method must be a name or the number of a callback, not \(number.kind)")
            }
            method = .callback(called)
        case nil: throw refusal("a message without method")
        }
        switch message["arguments"] {
        case .array(let elements): arguments = elements
        case .null, nil: arguments = []
        case let other?: throw refusal("arguments must be an array, not \(other.kind)")
        }
        callbacks = [:]
        switch paths {
        case .object(let members):
            guard members.count <= limits.maximumCallbacksPerMessage else {
                throw refusal("more than \(limits.maximumCallbacksPerMessage) callbacks in one message")
            }
            for (name, value) in members {
                guard let id = Self.callbackID(name) else { throw refusal("a callback's name must be a number") }
                guard let path = Self.path(value, limits: limits) else {
                    throw refusal("the path of callback \(id) must be an array of positions and names")
                }
                guard callbacks.updateValue(path, forKey: id) == nil else {
                    throw refusal("callback \(id) occurs twice")
                }
                guard arguments.place(function(id), at: path[...]) else {
                    throw refusal("the path of callback \(id) points nowhere")
                }
            }
        case .null, nil: break
        case let other?: throw refusal("callbacks must be an object, not \(other.kind)")
        }
    }

    /// The same as ``init(parsing:limits:function:)``, for ``DnodeSession/receive(_:)``.
    public static func parse(
        _ bytes: ByteBuffer, limits: DnodeLimits = DnodeLimits(), function: (DnodeCallbackID) -> DnodeFunction
    ) -> Result<DnodeMessage, DnodeRefusal> {
        do throws(DnodeRefusal) {
            return .success(try DnodeMessage(parsing: bytes, limits: limits, function: function))
        } catch { return .failure(error) }
    }

    /// What can be said of bytes that make no message, because they are no JSON or hold more than is allowed. In the latter case they are
    /// gone through once more to find out whom the message concerns.
    private static func refusal(of bytes: ByteBuffer, limits: DnodeLimits, reason: String) -> DnodeRefusal {
        guard bytes.readableBytes <= limits.maximumMessageSize else { return DnodeRefusal(reason: reason) }
        return bytes.withUnsafeReadableBytes { bytes in
            var parser = DnodeJSONParser(bytes: bytes, limits: limits)
            guard let envelope = try? parser.parseEnvelope() else { return DnodeRefusal(reason: reason) }
            return DnodeRefusal(
                reason: reason, answerTo: responseCallback(in: envelope.callbacks),
                callback: envelope.method.flatMap { callbackID($0) })
        }
    }

    /// The callback whose path says that it takes a call's answer, whatever else is wrong with the message.
    private static func responseCallback(in callbacks: DnodeValue?) -> DnodeCallbackID? {
        guard case .object(let members)? = callbacks else { return nil }
        for (name, path) in members
        where path[1] == .string("responseCallback") && path.array?.count == 2 && (path[0]?.isPosition ?? false) {
            return callbackID(name)
        }
        return nil
    }

    private static func callbackID(_ number: DnodeValue) -> DnodeCallbackID? {
        guard let id = number.int, id >= 0, id <= DnodeCallbackID.maximum else { return nil }
        return DnodeCallbackID(id)
    }

    private static func callbackID(_ name: String) -> DnodeCallbackID? {
        position(name).map { DnodeCallbackID($0) }
    }

    private static func path(_ value: DnodeValue, limits: DnodeLimits) -> [PathElement]? {
        guard let elements = value.array, !elements.isEmpty, elements.count <= limits.maximumDepth else { return nil }
        var path: [PathElement] = []
        for element in elements {
            switch element {
            case .string(let key): path.append(.key(key))
            case .int(let value):
                guard let position = Int(exactly: value), position >= 0 else { return nil }
                path.append(.position(position))
            default: return nil
            }
        }
        return path
    }

    /// A number in the only way to write it: no sign, no leading zeros.
    fileprivate static func position(_ text: String) -> Int? {
        let digits = text.utf8
        guard !digits.isEmpty, digits.count <= 16, digits.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }),
            digits.count == 1 || digits.first != 0x30, let value = Int(text), value <= DnodeCallbackID.maximum
        else { return nil }
        return value
    }
}

extension DnodeValue {
    fileprivate var isPosition: Bool {
        switch self {
        case .int: true
        case .string(let text): DnodeMessage.position(text) != nil
        default: false
        }
    }

    /// Puts a function at the end of a path; false where the path leads nowhere.
    fileprivate mutating func place(
        _ function: DnodeFunction, at path: ArraySlice<DnodeMessage.PathElement>
    ) -> Bool {
        guard let step = path.first else {
            if case .function = self { return false }
            self = .function(function)
            return true
        }
        if var elements = takeElements() {
            defer { self = .array(elements) }
            return elements.place(function, at: path)
        }
        if case .key(let key) = step, var members = takeMembers() {
            defer { self = .object(members) }
            guard let position = members.position(of: key) else { return false }
            return members.change(at: position) { $0.place(function, at: path.dropFirst()) }
        }
        return false
    }

    // The contents are moved out, so that the caller holds the only reference and changes them in place: a message may have many
    // callbacks in a large array.

    private mutating func takeElements() -> [DnodeValue]? {
        guard case .array(let elements) = self else { return nil }
        self = .null
        return elements
    }

    private mutating func takeMembers() -> DnodeObject? {
        guard case .object(let members) = self else { return nil }
        self = .null
        return members
    }
}

extension [DnodeValue] {
    fileprivate mutating func place(
        _ function: DnodeFunction, at path: ArraySlice<DnodeMessage.PathElement>
    ) -> Bool {
        let position: Int? =
            switch path.first {
            case .position(let position): position
            case .key(let key): DnodeMessage.position(key)
            case nil: nil
            }
        guard let position, indices.contains(position) else { return false }
        return self[position].place(function, at: path.dropFirst())
    }
}

// MARK: - sending

extension DnodeMessage {
    /// The message's text.
    /// - Throws: ``DnodeError`` for what the limits forbid the receiver, too: they are the same both ways.
    public func serialized(limits: DnodeLimits = DnodeLimits()) throws(DnodeError) -> ByteBuffer {
        let method: DnodeValue =
            switch method {
            case .name(let name): .string(name)
            case .callback(let id): .int(Int64(id.rawValue))
            }
        var paths = DnodeObject()
        for (id, path) in callbacks.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            paths[String(id.rawValue)] = .array(
                path.map { step in
                    switch step {
                    case .position(let position): .int(Int64(position))
                    case .key(let key): .string(key)
                    }
                })
        }
        let message: DnodeObject = ["method": method, "arguments": .array(arguments), "callbacks": .object(paths)]
        return try DnodeValue.object(message).serialized(limits: limits)
    }

    /// Calls `found` with every function among values and its path, in reading order.
    static func forEachFunction(
        in values: [DnodeValue], under path: [PathElement], depth: Int,
        _ found: (DnodeFunction, [PathElement]) throws(DnodeError) -> Void
    ) throws(DnodeError) {
        for (position, value) in values.enumerated() {
            try forEachFunction(in: value, at: path + [.position(position)], depth: depth, found)
        }
    }

    private static func forEachFunction(
        in value: DnodeValue, at path: [PathElement], depth: Int,
        _ found: (DnodeFunction, [PathElement]) throws(DnodeError) -> Void
    ) throws(DnodeError) {
        switch value {
        case .function(let function): try found(function, path)
        case .array(let elements) where value.mayHoldFunctions:
            guard depth > 0 else { throw DnodeError(.limitExceeded, "nested too deep") }
            try forEachFunction(in: elements, under: path, depth: depth - 1, found)
        case .object(let members):
            guard depth > 0 else { throw DnodeError(.limitExceeded, "nested too deep") }
            for (key, value) in members {
                try forEachFunction(in: value, at: path + [.key(key)], depth: depth - 1, found)
            }
        default: break
        }
    }
}

extension DnodeValue {
    /// False for arrays of plain values, which are not worth a path for each element.
    fileprivate var mayHoldFunctions: Bool {
        guard case .array(let elements) = self else { return true }
        return elements.contains { element in
            switch element {
            case .array, .object, .function: true
            default: false
            }
        }
    }
}
