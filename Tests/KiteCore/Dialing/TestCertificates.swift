/// A root, and a certificate that it signed for `kite.test`, `localhost` and `127.0.0.1`; valid for a hundred years, for tests only.
import Foundation
import NIOSSL

enum TestCertificates {
    static let root = """
        -----BEGIN CERTIFICATE-----
        MIIBpDCCAUmgAwIBAgIUP5a4XAUvgC3hCjbUEfMFGw3KFkcwCgYIKoZIzj0EAwIw
        HjEcMBoGA1UEAwwTS2l0ZVByb3h5IHRlc3Qgcm9vdDAgFw0yNjExMjQxMDE0NDda
        GA8yMTI2MTAzMTEwMTQ0N1owHjEcMBoGA1UEAwwTS2l0ZVByb3h5IHRlc3Qgcm9v
        dDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABK4zTMOjkdNlV+hOahW+YEH36UJQ
        bQOctHxi+1CjO8UF5uNiw2UVf0xN7FQ4f987RDqnvG99aZuSph8IrG/wsw+jYzBh
        MB0GA1UdDgQWBBRJWbSfNvfDNUeohJTxk+x26ePXoDAfBgNVHSMEGDAWgBRJWbSf
        NvfDNUeohJTxk+x26ePXoDAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwIC
        BDAKBggqhkjOPQQDAgNJADBGAiEAt+TrrTS2U2WxZD6CbfvLKwbItC8/eTIEdmUg
        EJ/uOlkCIQD7Wm2KU/L1DC91OSR3JOTmSkJLhJ+LdSOAfmp5jijt4w==
        -----END CERTIFICATE-----
        """

    static let server = """
        -----BEGIN CERTIFICATE-----
        MIIB1DCCAXqgAwIBAgIURWS8Kug2+AMAjg/d6ObCwfSNbBUwCgYIKoZIzj0EAwIw
        HjEcMBoGA1UEAwwTS2l0ZVByb3h5IHRlc3Qgcm9vdDAgFw0yNjExMjQxMDE0NDda
        GA8yMTI2MTAzMTEwMTQ0N1owFDESMBAGA1UEAwwJa2l0ZS50ZXN0MFkwEwYHKoZI
        zj0CAQYIKoZIzj0DAQcDQgAE03uXUh+VByJQscQPRlP3u4n0Oz9pu3r7yv7DP+3m
        m7TFxmOAtohPzaRigS8cM4AKTUV4tMgGJC4xvJox7CNGFqOBnTCBmjAMBgNVHRMB
        Af8EAjAAMA4GA1UdDwEB/wQEAwIHgDATBgNVHSUEDDAKBggrBgEFBQcDATAlBgNV
        HREEHjAcgglraXRlLnRlc3SCCWxvY2FsaG9zdIcEfwAAATAdBgNVHQ4EFgQUOyKh
        EkQzx20OOleROvV/DD96qWUwHwYDVR0jBBgwFoAUSVm0nzb3wzVHqISU8ZPsdunj
        16AwCgYIKoZIzj0EAwIDSAAwRQIgH9VxmU6rS/fRcWcJoKrs5I6Cj4ipcxAFSrxk
        Qmc9PRwCIQCl0PPAZWA3UANDhcUSEkQgK7ianR9mXJcp3kNNDui6qg==
        -----END CERTIFICATE-----
        """

    static let serverKey = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgs8IAoL+j5hdOHBbU
        0z/HHm85bCNldKoltKDz5a6KmsehRANCAATTe5dSH5UHIlCxxA9GU/e7ifQ7P2m7
        evvK/sM/7eabtMXGY4C2iE/NpGKBLxwzgApNRXi0yAYkLjG8mjHsI0YW
        -----END PRIVATE KEY-----
        """

    /// What a server uses.
    static func serverContext() throws -> NIOSSLContext {
        var settings = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMBytes(Array(server.utf8)).map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(serverKey.utf8), format: .pem)))
        settings.applicationProtocols = ["http/1.1"]
        return try NIOSSLContext(configuration: settings)
    }

    /// A file with the root.
    static func withRootFile<T>(_ body: (String) throws -> T) throws -> T {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("root-\(UUID().uuidString).pem")
        try Data(root.utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        return try body(file.path)
    }
}
