/// How far a request that asks for the way itself may still go.

/// What `Max-Forwards` says (RFC 9110 section 7.6.2). It has a meaning for TRACE and OPTIONS only.
public enum MaxForwards: Sendable, Hashable {
    /// There is no limit.
    case unlimited
    /// It may be passed on, and is passed on with one less. Never zero.
    case remaining(UInt32)
    /// Whoever received it answers it and does not pass it on.
    case exhausted
    /// It is no single number.
    case malformed

    /// - Parameter head: a request that is to be passed on.
    public init(_ head: RequestHead) {
        switch head.method {
        case .trace, .options: break
        default:
            self = .unlimited
            return
        }
        guard head.fields.has(.maxForwards) else {
            self = .unlimited
            return
        }
        guard head.fields.occurrences(.maxForwards) == 1, let digits = head.fields.first(.maxForwards), !digits.isEmpty
        else {
            self = .malformed
            return
        }
        var number: UInt32 = 0
        for digit in digits {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else {
                self = .malformed
                return
            }
            // Larger numbers mean the same as the largest.
            number = number > .max / 10 - 1 ? .max : number * 10 + UInt32(digit - UInt8(ascii: "0"))
        }
        self = number == 0 ? .exhausted : .remaining(number)
    }
}
