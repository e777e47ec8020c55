/// What `/metrics` says about certificates that come by themselves.
import ACME
import Foundation

struct AutomaticStatistics: Sendable {
    private var obtained: UInt64 = 0
    private var failures: [(String, UInt64)] = ACMEFailure.Code.allCases.map { ($0.rawValue, 0) }
    /// By name, in order; only names whose last try failed.
    private var lastFailures: [(String, Int64)] = []

    /// More names than this tell an operator nothing more.
    private static let maximumNames = 100

    init() {}

    init(_ certificates: AutomaticCertificates, now: Date) {
        let counts = certificates.counts
        obtained = counts.obtained
        failures = ACMEFailure.Code.allCases.map { ($0.rawValue, counts.failures[$0] ?? 0) }
        for status in certificates.status where status.failures > 0 && lastFailures.count < Self.maximumNames {
            guard let time = status.lastFailure else { continue }
            lastFailures.append((status.name, Int64(now.timeIntervalSince(time))))
        }
    }

    func write(_ text: inout PrometheusText) {
        text.metric(
            "kiteproxy_acme_certificates_total", .counter, "Certificates obtained by ACME, renewals included", obtained)
        text.metric(
            "kiteproxy_acme_failures_total", .counter, "Orders that brought no certificate, by cause", label: "cause",
            failures)
        text.metric(
            "kiteproxy_acme_last_failure_seconds", .gauge,
            "Time since an order failed, of names whose last order did", label: "name", lastFailures)
    }
}
