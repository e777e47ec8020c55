/// Which names in certificates stand for which hosts.
import Testing

@testable import KiteDialing

@Suite struct CertificateNameTests {
    @Test(arguments: [
        ("kite.test", "kite.test", true), ("KITE.test.", "kite.Test", true), ("kite.test", "a.kite.test", false),
        ("*.kite.test", "a.kite.test", true), ("*.kite.test", "kite.test", false),
        ("*.kite.test", "a.b.kite.test", false), ("*.kite.test", ".kite.test", false), ("*.test", "kite.test", false),
        ("*", "kite", false), ("*.*.test", "a.kite.test", false), ("a*.kite.test", "ab.kite.test", false),
        ("", "", false), ("kite.test\u{0}.evil", "kite.test", false),
    ])
    func matches(presented: String, wanted: String, isMatch: Bool) {
        #expect(CertificateName.matches(presented, wanted) == isMatch)
    }
}
