/// The values that every call carries, to and from dnode without the detour over `Codable`.
import KiteDnode

extension KiteIdentity {
    var dnode: DnodeValue {
        [
            "name": .string(name), "username": .string(username), "id": .string(id),
            "environment": .string(environment), "region": .string(region), "version": .string(version),
            "hostname": .string(hostname),
        ]
    }

    /// - Throws: ``KiteError`` of type `argumentError` when it is no object of strings, or one of them is longer than 1024 bytes.
    init(_ value: DnodeValue?) throws(KiteError) {
        self.init()
        guard let value else { return }
        guard case .object(let fields) = value else { throw KiteError(.argument, "kite must be an object") }
        func text(_ key: String) throws(KiteError) -> String {
            switch fields[key] {
            case .string(let text):
                guard text.utf8.count <= 1024 else { throw KiteError(.argument, "kite.\(key) is too long") }
                return text
            case .null, nil: return ""
            default: throw KiteError(.argument, "kite.\(key) must be a string")
            }
        }
        name = try text("name")
        username = try text("username")
        id = try text("id")
        environment = try text("environment")
        region = try text("region")
        version = try text("version")
        hostname = try text("hostname")
    }
}

extension Authentication {
    var dnode: DnodeValue { ["type": .string(type), "key": .string(key)] }

    /// - Throws: ``KiteError`` of type `authenticationError` when it is no object with a type and a key.
    init(_ value: DnodeValue) throws(KiteError) {
        guard let type = value["type"]?.string, let key = value["key"]?.string else {
            throw KiteError(.authentication, "The authentication must be an object with a type and a key")
        }
        self.init(type: type, key: key)
    }
}

extension KiteError {
    var dnode: DnodeValue {
        [
            "type": .string(type.rawValue), "message": .string(message), "code": .string(code), "id": .string(id),
        ]
    }

    /// What a peer answered; members of other types than expected are left out, a mere string is a message.
    init(answer: DnodeValue) {
        self.init(
            ErrorType(rawValue: answer["type"]?.string ?? ErrorType.generic.rawValue),
            answer["message"]?.string ?? answer.string ?? "The other side answered an error without a message.",
            code: answer["code"]?.string ?? "", id: answer["id"]?.string ?? "")
    }
}
