/// Which names routes can have, and where visitors reach them.

extension RouteBoard {
    /// A name for a tunnel that asked for none. An agent that comes back gets the same again (FNV-1a).
    static func name(agent: String, tunnel: UInt16) -> String {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in "\(tunnel)/\(agent)".utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return "t" + String(hash, radix: 36)
    }

    /// Where visitors reach a route.
    func url(of name: String, path: String) -> String {
        guard let domain = options.domain, Self.isLabel(name) else {
            return publicURL + "/proxy/\(name)" + (path.isEmpty ? "/" : "")
        }
        let parts = publicURL.components(splitBy: "://")
        let port = Self.portSuffix(of: parts.last ?? "")
        return "\(parts.first ?? "http")://\(name).\(domain)\(port)" + (path.isEmpty ? "/" : path)
    }

    static func portSuffix(of authority: String) -> String {
        guard let colon = authority.lastIndex(of: ":"), !authority[colon...].contains("]") else { return "" }
        return String(authority[colon...])
    }

    /// Whether a user chose the name and keeps it. Names that the gateway made up, and ids of kites, come and go.
    func isClaimed(_ name: String) -> Bool { book.term(of: RouteKey(name)) == .lasting }

    static func isLabel(_ name: String) -> Bool {
        (1...63).contains(name.utf8.count) && name.first != "-" && name.last != "-"
            && name.utf8.allSatisfy { ($0 >= 0x61 && $0 <= 0x7A) || ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x2D }
    }

    static func path(_ text: String) -> String {
        let trimmed = text.hasSuffix("/") ? String(text.dropLast()) : text
        return trimmed.isEmpty || trimmed.hasPrefix("/") ? trimmed : "/" + trimmed
    }
}

extension String {
    fileprivate func components(splitBy separator: String) -> [String] {
        guard let range = firstRange(of: separator) else { return [self] }
        return [String(self[..<range.lowerBound]), String(self[range.upperBound...])]
    }
}
