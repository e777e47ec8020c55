/// What upstreams are told about client certificates, and what visitors cannot tell them.
import KiteHTTP
import NIOCore
import Testing

struct ClientCertificateFieldTests {
    private func forwarded(_ request: String, _ security: ConnectionSecurity?, isTrusted: Bool = false) throws -> String
    {
        var scanner = RequestScanner(limits: HTTPLimits())
        var bytes = ByteBuffer(string: request)
        guard let head = try scanner.feed(&bytes) else { return "incomplete" }
        var output = ByteBuffer()
        MessageWriter.writeForwardedRequest(
            head,
            origin: ForwardedOrigin(
                peer: ExchangePeer(isSecure: true, isTrustedProxy: isTrusted), gateway: "g", security: security),
            isUpgrade: false, into: &output)
        return String(buffer: output)
    }

    @Test func verifiedCertificatesAreSaidInFields() throws {
        let certificate = ClientCertificate(subject: "CN=alice", fingerprint: "00ff", der: [1, 2, 3])
        let text = try forwarded(
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ConnectionSecurity(clientRule: "a", clientCertificate: certificate))
        #expect(text.contains("\r\nX-Client-Cert-Verified: success\r\n"))
        #expect(text.contains("\r\nX-Client-Cert-Subject: CN=alice\r\n"))
        #expect(text.contains("\r\nX-Client-Cert-Fingerprint: 00ff\r\n"))
        #expect(text.contains("\r\nClient-Cert: :AQID:\r\n"))
        let none = try forwarded(
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ConnectionSecurity(clientRule: "a", clientCertificate: nil))
        #expect(none.contains("\r\nX-Client-Cert-Verified: none\r\n") && !none.contains("Subject"))
    }

    @Test(arguments: [
        "Client-Cert", "client-cert-chain", "CLIENT_CERT", "X-Client-Cert-Subject", "x_client_cert_subject",
        "X_Client-Cert_Fingerprint", "X-CLIENT-CERT-VERIFIED", "X-Client-Cert", "X-Client-Certificate",
    ])
    func visitorsCannotSayThemselves(field: String) throws {
        for isTrusted in [false, true] {
            for security in [nil, ConnectionSecurity(clientRule: "a", clientCertificate: nil)] {
                let text = try forwarded(
                    "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\(field): forged\r\nX-B: 2\r\n\r\n", security,
                    isTrusted: isTrusted)
                #expect(!text.contains("forged"))
                #expect(text.contains("X-A: 1\r\n") && text.contains("X-B: 2\r\n"))
            }
        }
    }

    @Test func fieldsOfOtherNamesPass() throws {
        for field in ["Client-Cer", "XClient-Cert", "My-Client-Cert", "X-Client-Version", "C"] {
            #expect(
                try forwarded("GET / HTTP/1.1\r\nHost: a\r\n\(field): kept\r\n\r\n", nil).contains("\(field): kept"))
        }
    }

    @Test func connectionCannotHideThem() throws {
        let certificate = ClientCertificate(subject: "CN=alice", fingerprint: "00ff", der: [1, 2, 3])
        let text = try forwarded(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Client-Cert-Subject, Client-Cert\r\n\r\n",
            ConnectionSecurity(clientRule: "a", clientCertificate: certificate))
        #expect(text.contains("X-Client-Cert-Subject: CN=alice") && text.contains("Client-Cert: :AQID:"))
    }
}
