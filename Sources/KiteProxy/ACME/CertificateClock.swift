/// The time that renewal goes by; a clock of its own, so that tests can move it.
package import Foundation

package protocol CertificateClock: Sendable {
    var now: Date { get }
    /// - Throws: `CancellationError`.
    func sleep(until time: Date) async throws
}

/// The system's clock. Looks at it twice a minute: it may be set, and the machine may sleep.
package struct SystemCertificateClock: CertificateClock {
    package init() {}

    package var now: Date { Date() }

    package func sleep(until time: Date) async throws {
        while case let rest = time.timeIntervalSinceNow, rest > 0 {
            try await Task.sleep(for: .seconds(min(rest, 30)))
        }
    }
}
