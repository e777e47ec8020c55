/// Which kind of upgrade an agent asks for next: the plain one, or a WebSocket where the plain one does not pass.

/// Goes by what has worked and what has failed. The plain upgrade is cheaper and comes first; a WebSocket is tried once the plain one has failed,
/// and after a WebSocket that failed the plain one is tried again, so that no outage settles on a kind for good.
package struct UpgradeChoice: Sendable {
    /// How an agent's connection becomes a lane's.
    package enum Kind: Sendable, Hashable {
        /// `Upgrade: kite-tunnel/1`.
        case plain
        /// `Upgrade: websocket`.
        case webSocket
    }
    /// What to ask for next.
    package private(set) var next = Kind.plain
    /// The kind that has led to a WELCOME last.
    private var proven: Kind?
    private var failures = 0

    /// So often in a row the plain upgrade may fail, where it has worked before or where the failure does not speak against it.
    static let patience = 3

    package init() {}

    /// A connection was welcomed.
    package mutating func succeeded(_ kind: Kind) {
        proven = kind
        next = kind
        failures = 0
    }

    /// A connection was made, and failed before WELCOME without the gateway having refused it.
    /// - Parameter isTelling: Whether it looks as if the upgrade did not pass, rather than as if the gateway were away.
    package mutating func failed(_ kind: Kind, isTelling: Bool) {
        // Another lane's connection has led to the same conclusion already.
        guard kind == next else { return }
        failures += 1
        switch kind {
        case .webSocket: next = .plain
        case .plain:
            let patience =
                switch proven {
                case .plain: Self.patience
                case .webSocket: 1
                case nil: isTelling ? 1 : Self.patience
                }
            guard failures >= patience else { return }
            next = .webSocket
        }
        failures = 0
    }
}
