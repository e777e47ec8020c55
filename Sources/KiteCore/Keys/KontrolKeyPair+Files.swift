/// Key pairs as the PEM files that OpenSSL and Go's Kontrol use.

extension KontrolKeyPair {
    /// Reads a pair from a private key file, and checks that a public key file, if one is given, belongs to it. Blocking on small
    /// files: not for event loops.
    /// - Throws: ``KeyError`` with `notFound`, `fileAccess` or `malformed`.
    public init(privateKeyPath: String, publicKeyPath: String? = nil) async throws(KeyError) {
        let text = try KeyFile.read(privateKeyPath)
        do throws(KeyError) {
            try await self.init(privatePEM: text)
        } catch {
            throw KeyError(error.code, "\(privateKeyPath): \(error.message)")
        }
        guard let publicKeyPath else { return }
        let other: KontrolPublicKey
        let publicText = try KeyFile.read(publicKeyPath)
        do throws(KeyError) {
            other = try KontrolPublicKey(pem: publicText)
        } catch {
            throw KeyError(error.code, "\(publicKeyPath): \(error.message)")
        }
        guard other == publicKey else {
            throw KeyError(.malformed, "\(publicKeyPath) is not the public key of \(privateKeyPath)")
        }
    }

    /// Writes the private key with mode 0600 and the public one with mode 0644. Nothing that exists is overwritten.
    /// - Throws: ``KeyError`` with `exists` or `fileAccess`.
    public func write(privateKeyPath: String, publicKeyPath: String) throws(KeyError) {
        try KeyFile.write(privatePEM + "\n", to: privateKeyPath, mode: .ownerWrites, replacing: false)
        try KeyFile.write(publicKey.pem + "\n", to: publicKeyPath, mode: .everyoneReads, replacing: false)
    }
}
