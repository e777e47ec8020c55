/// When a process is short of memory or descriptors, and when no longer.

/// What there is too little of.
enum Shortage: UInt8, Sendable, CaseIterable {
    case memory = 1
    case descriptors = 2
}

/// Compares what is used with what there is. A shortage begins at nine tenths and ends below eight tenths, so that it does not come and go
/// with every request.
struct PressureStateMachine: Sendable {
    /// What is used, or may be; nil where it is not known or not limited.
    struct Amounts: Sendable, Hashable {
        /// Resident bytes.
        var memory: Int?
        /// Open files and sockets.
        var descriptors: Int?
    }
    /// What there is too little of; memory first.
    private(set) var shortage: Shortage?

    /// New figures have been read.
    /// - Returns: whether ``shortage`` has changed.
    mutating func update(used: Amounts, limits: Amounts) -> Bool {
        let before = shortage
        if Self.isShort(used.memory, limits.memory, before == .memory) {
            shortage = .memory
        } else if Self.isShort(used.descriptors, limits.descriptors, before == .descriptors) {
            shortage = .descriptors
        } else {
            shortage = nil
        }
        return shortage != before
    }

    private static func isShort(_ used: Int?, _ limit: Int?, _ wasShort: Bool) -> Bool {
        guard let used, let limit, limit > 0 else { return false }
        // Without overflow, whatever the limit.
        return used >= limit / 10 * (wasShort ? 8 : 9) + limit % 10
    }
}
