/// The text that Prometheus reads.
import Testing

@testable import KiteProxy

@Suite("Prometheus text")
struct PrometheusTests {
    @Test("A counter, a gauge with a fraction, and labels that need escaping")
    func samples() {
        var text = PrometheusText()
        text.metric("a_total", .counter, "Things\\with\nbreaks", 3)
        text.metric("b", .gauge, "Ratio", 0.5)
        text.metric("c_total", .counter, "By cause", label: "cause", [("no \"lane\"", 1), ("back\\slash\n", 2)])
        text.info("d_info", "Version", [("version", "1"), ("swift", "6")])
        #expect(
            text.text == #"""
                # HELP a_total Things\\with\nbreaks
                # TYPE a_total counter
                a_total 3
                # HELP b Ratio
                # TYPE b gauge
                b 0.5
                # HELP c_total By cause
                # TYPE c_total counter
                c_total{cause="no \"lane\""} 1
                c_total{cause="back\\slash\n"} 2
                # HELP d_info Version
                # TYPE d_info gauge
                d_info{version="1",swift="6"} 1

                """#)
    }

    @Test("Buckets are cumulative and end with +Inf, which equals the count")
    func histogram() {
        var text = PrometheusText()
        text.histogram("h_seconds", "Time", bounds: [0.005, 1, 10], counts: [1, 0, 2, 4], sum: 61.25)
        #expect(
            text.text == """
                # HELP h_seconds Time
                # TYPE h_seconds histogram
                h_seconds_bucket{le="0.005"} 1
                h_seconds_bucket{le="1"} 1
                h_seconds_bucket{le="10"} 3
                h_seconds_bucket{le="+Inf"} 7
                h_seconds_sum 61.25
                h_seconds_count 7

                """)
    }

    @Test("The process knows what it uses")
    func process() {
        let statistics = ProcessStatistics.now()
        #expect(statistics.residentBytes > 1 << 20)
        #expect(statistics.openFiles > 2)
        #expect(statistics.maximumFiles > 2)
        #expect(statistics.cpuSeconds > 0)
    }
}
