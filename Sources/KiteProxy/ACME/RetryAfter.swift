/// Reads `Retry-After` (RFC 9110 section 10.2.3).
import Foundation

enum RetryAfter {
    /// The longest that a server's word is taken for: a mistake there must not end renewal.
    static let longest: TimeInterval = 7 * 24 * 3600

    /// When to try again; nil where the field is missing or says nothing that can be understood. Never before `now`.
    static func date(_ text: String?, now: Date) -> Date? {
        guard let text, text.utf8.count <= 64 else { return nil }
        let value = text.trimmingCharacters(in: .whitespaces)
        if !value.isEmpty, value.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) {
            return now.addingTimeInterval(min(Double(value) ?? longest, longest))
        }
        guard let date = fixedDate(value) else { return nil }
        return min(max(date, now), now.addingTimeInterval(longest))
    }

    /// An IMF-fixdate such as `Sun, 06 Nov 1994 08:49:37 GMT`.
    private static func fixedDate(_ text: String) -> Date? {
        let parts = text.split(separator: " ")
        guard parts.count == 6, parts[0].hasSuffix(","), parts[5] == "GMT", let day = Int(parts[1]),
            let month = months.firstIndex(of: String(parts[2])), let year = Int(parts[3]), (1970...9999).contains(year),
            (1...31).contains(day)
        else { return nil }
        let clock = parts[4].split(separator: ":").map { Int($0) }
        guard clock.count == 3, let hour = clock[0], let minute = clock[1], let second = clock[2],
            (0...23).contains(hour), (0...59).contains(minute), (0...60).contains(second)
        else { return nil }
        // Days since 1970 of a date of the Gregorian calendar, years beginning in March.
        let shiftedYear = month < 2 ? year - 1 : year
        let yearOfEra = shiftedYear % 400
        let shiftedMonth = (month + 10) % 12
        let dayOfYear = (153 * shiftedMonth + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        let days = shiftedYear / 400 * 146_097 + dayOfEra - 719_468
        return Date(timeIntervalSince1970: Double(((days * 24 + hour) * 60 + minute) * 60 + second))
    }

    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]
}
