/// The Date of our responses, made once a second.
public import NIOCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// `Date: Sun, 06 Nov 1994 08:49:37 GMT`, with its line end (RFC 9110 section 5.6.7). Keep one per event loop.
public struct DateField {
    private var second: Int = -1
    private var bytes = ByteBuffer()
    private var value = ""

    public init() {}

    /// The field for now.
    public mutating func current() -> ByteBuffer { at(time(nil)) }

    /// The field's value for now.
    mutating func currentValue() -> String {
        _ = current()
        return value
    }

    /// The field for a time in seconds since 1970.
    mutating func at(_ now: Int) -> ByteBuffer {
        if now != second {
            second = now
            value = Self.text(now)
            bytes = ByteBuffer(string: "Date: \(value)\r\n")
        }
        return bytes
    }

    /// The IMF-fixdate of a time in seconds since 1970.
    static func text(_ seconds: Int) -> String {
        let days = seconds / 86_400
        let rest = seconds % 86_400
        // Days to a date of the Gregorian calendar, counted from 1 March 0000 in eras of 400 years.
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let clock = "\(two(rest / 3_600)):\(two(rest / 60 % 60)):\(two(rest % 60))"
        return "\(weekdays[days % 7]), \(two(day)) \(months[month - 1]) \(year) \(clock) GMT"
    }
}
