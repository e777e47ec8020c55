/// A bound on what several holders on one event loop keep in memory together: the streams of a lane, the sessions of a gateway.

/// Counts bytes against a capacity and tells when it gets tight and when there is room again. Event-loop bound.
public final class ByteBudget {
    /// The most that ``reserve(_:)`` hands out, in bytes.
    public let capacity: Int
    /// At or above this many bytes in use the budget is tight.
    public let highWater: Int
    /// At or below this many bytes in use a tight budget is at ease again.
    public let lowWater: Int
    /// Bytes in use.
    public private(set) var used = 0
    /// Whether sources should pause: true from the high-water mark on until the low-water mark is reached.
    public private(set) var isTight = false
    /// Told when ``isTight`` changes. Called from within the call that changed it.
    public var onChange: ((_ isTight: Bool) -> Void)?

    /// - Parameters:
    ///   - highWater: three quarters of the capacity when nil.
    ///   - lowWater: half the high-water mark when nil.
    public init(capacity: Int, highWater: Int? = nil, lowWater: Int? = nil) {
        self.capacity = max(capacity, 0)
        self.highWater = min(max(highWater ?? self.capacity / 4 * 3, 1), max(self.capacity, 1))
        self.lowWater = min(max(lowWater ?? self.highWater / 2, 0), self.highWater - 1)
    }

    /// Bytes that can still be reserved.
    public var available: Int { max(capacity - used, 0) }

    /// Takes bytes from the budget if they fit.
    /// - Returns: false, with nothing taken, when they do not.
    public func reserve(_ bytes: Int) -> Bool {
        guard bytes >= 0, bytes <= available else { return false }
        take(bytes)
        return true
    }

    /// Takes bytes that are in memory already, whether they fit or not.
    public func take(_ bytes: Int) {
        guard bytes > 0 else { return }
        let (sum, overflow) = used.addingReportingOverflow(bytes)
        used = overflow ? .max : sum
        if !isTight && used >= highWater {
            isTight = true
            onChange?(true)
        }
    }

    /// Gives back what was reserved or taken.
    public func release(_ bytes: Int) {
        guard bytes > 0 else { return }
        used = max(used - bytes, 0)
        if isTight && used <= lowWater {
            isTight = false
            onChange?(false)
        }
    }
}
