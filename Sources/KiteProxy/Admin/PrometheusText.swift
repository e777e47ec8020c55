/// Metrics as Prometheus reads them: the text exposition format, version 0.0.4.

/// Text under construction: one family of metrics after the other.
struct PrometheusText: Sendable {
    enum Kind: String, Sendable { case counter, gauge, histogram }

    static let contentType = "text/plain; version=0.0.4; charset=utf-8"
    private(set) var text = ""

    /// A family with one sample without labels.
    mutating func metric(_ name: String, _ kind: Kind, _ help: String, _ value: some BinaryInteger) {
        head(name, kind, help)
        sample(name, [], "\(value)")
    }

    mutating func metric(_ name: String, _ kind: Kind, _ help: String, _ value: Double) {
        head(name, kind, help)
        sample(name, [], Self.number(value))
    }

    /// A family with a sample for each value of one label.
    mutating func metric(
        _ name: String, _ kind: Kind, _ help: String, label: String, _ samples: [(String, some BinaryInteger)]
    ) {
        head(name, kind, help)
        for (value, count) in samples { sample(name, [(label, value)], "\(count)") }
    }

    /// A gauge of value 1 whose labels are what it is about.
    mutating func info(_ name: String, _ help: String, _ labels: [(String, String)]) {
        head(name, .gauge, help)
        sample(name, labels, "1")
    }

    /// A histogram.
    /// - Parameters:
    ///   - bounds: upper bounds of the buckets in ascending order, in the metric's unit.
    ///   - counts: how many fell into each bucket (not cumulative), and one more for what is above all bounds.
    mutating func histogram(_ name: String, _ help: String, bounds: [Double], counts: [UInt64], sum: Double) {
        head(name, .histogram, help)
        var total: UInt64 = 0
        for (bound, count) in zip(bounds, counts) {
            total &+= count
            sample(name + "_bucket", [("le", Self.number(bound))], "\(total)")
        }
        for count in counts.dropFirst(bounds.count) { total &+= count }
        sample(name + "_bucket", [("le", "+Inf")], "\(total)")
        sample(name + "_sum", [], Self.number(sum))
        sample(name + "_count", [], "\(total)")
    }

    private mutating func head(_ name: String, _ kind: Kind, _ help: String) {
        text += "# HELP \(name) \(help.replacing("\\", with: "\\\\").replacing("\n", with: "\\n"))\n"
        text += "# TYPE \(name) \(kind.rawValue)\n"
    }

    private mutating func sample(_ name: String, _ labels: [(String, String)], _ value: String) {
        text += name
        if !labels.isEmpty {
            text += "{" + labels.map { "\($0)=\"\(Self.escaped($1))\"" }.joined(separator: ",") + "}"
        }
        text += " \(value)\n"
    }

    private static func escaped(_ value: String) -> String {
        value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }

    private static func number(_ value: Double) -> String {
        if value == .infinity { return "+Inf" }
        if value == -.infinity { return "-Inf" }
        if value.isNaN { return "NaN" }
        return value == value.rounded() && abs(value) < 1e15 ? "\(Int64(value))" : "\(value)"
    }
}
