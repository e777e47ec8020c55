/// What may be sent and received on a stream, and when its slot is free again.

/// A stream's life. A stream is over when both sides have sent END, or when both have sent RESET: a RESET that comes unasked is
/// answered by one, so a slot is never reused while the peer still holds it, and what a peer opens and resets at
/// once counts against its limit until it has been told.
package struct StreamStateMachine: Sendable, Hashable {
    /// Where a stream is in its life.
    package enum State: UInt8, Sendable, Hashable, CaseIterable {
        case open
        /// END was sent.
        case outputEnded
        /// END was received.
        case inputEnded
        /// RESET was sent before END; the peer's RESET is awaited.
        case resetting
        /// RESET was sent after END; the peer's END or RESET is awaited.
        case resettingEnded
        case closed
    }

    /// Where it is.
    package private(set) var state = State.open

    package init() {}

    /// In the given state, for tests.
    init(state: State) { self.state = state }

    /// Whether it is over.
    package var isClosed: Bool { state == .closed }
    /// Whether DATA may be sent.
    package var canSend: Bool { state == .open || state == .inputEnded }
    /// Whether DATA that arrives is wanted, and CREDIT makes sense.
    package var canReceive: Bool { state == .open || state == .outputEnded }

    /// END goes out. Call only while ``canSend``.
    package mutating func sendEnd() {
        switch state {
        case .open: state = .outputEnded
        case .inputEnded: state = .closed
        case .outputEnded, .resetting, .resettingEnded, .closed: break
        }
    }

    /// This side gives up.
    /// - Returns: Whether RESET is to be sent.
    package mutating func sendReset() -> Bool {
        switch state {
        case .open, .inputEnded:
            state = .resetting
            return true
        case .outputEnded:
            state = .resettingEnded
            return true
        case .resetting, .resettingEnded, .closed: return false
        }
    }

    /// What becomes of DATA that arrives.
    package enum DataAction: Sendable, Hashable {
        case deliver
        /// It crossed our RESET.
        case ignore
        /// It came after END.
        case violation
    }

    /// DATA arrives.
    package mutating func receiveData(isEnd: Bool) -> DataAction {
        switch state {
        case .open:
            if isEnd { state = .inputEnded }
            return .deliver
        case .outputEnded:
            if isEnd { state = .closed }
            return .deliver
        case .inputEnded: return .violation
        case .resetting: return .ignore
        case .resettingEnded:
            if isEnd { state = .closed }
            return .ignore
        case .closed: return .ignore
        }
    }

    /// What becomes of a RESET that arrives.
    package enum ResetAction: Sendable, Hashable {
        /// Fail the stream and answer with RESET.
        case failAndAnswer
        /// It answers or crossed ours.
        case ignore
    }

    /// A RESET arrives.
    package mutating func receiveReset() -> ResetAction {
        switch state {
        case .open, .outputEnded, .inputEnded:
            state = .closed
            return .failAndAnswer
        case .resetting, .resettingEnded:
            state = .closed
            return .ignore
        case .closed: return .ignore
        }
    }
}
