/// Where the embedded Kontrol's files lie, and its private keys among them.
package import KiteCore

/// The data directory: `kontrol.sqlite` and, in `keys`, a private and a public PEM file for each key pair. The directory has mode 0700,
/// private keys 0600. Blocking on small files: not for event loops.
package struct KeyDirectory: Sendable {
    package let path: String

    /// - Throws: ``KeyError`` with `fileAccess` when the directory cannot be made.
    package init(dataDirectory path: String) throws(KeyError) {
        self.path = path
        try KeyFile.makeDirectory(path + "/keys")
    }

    package var databasePath: String { path + "/kontrol.sqlite" }

    package func privateKeyPath(id: String) -> String { "\(path)/keys/\(id).private.pem" }
    package func publicKeyPath(id: String) -> String { "\(path)/keys/\(id).public.pem" }

    /// Writes a key pair, unless it is there.
    package func add(_ pair: KontrolKeyPair) throws(KeyError) {
        do throws(KeyError) {
            try pair.write(privateKeyPath: privateKeyPath(id: pair.id), publicKeyPath: publicKeyPath(id: pair.id))
        } catch  where error.code == .exists {
            // The id follows from the key: what is there is the same key.
        }
    }

    /// Removes a key pair, if it is there.
    package func remove(id: String) throws(KeyError) {
        try KeyFile.remove(privateKeyPath(id: id))
        try KeyFile.remove(publicKeyPath(id: id))
    }

    /// Reads a key pair.
    /// - Throws: ``KeyError`` when it is not there, or the file holds another key than its name says.
    package func keyPair(id: String) async throws(KeyError) -> KontrolKeyPair {
        let pair = try await KontrolKeyPair(privateKeyPath: privateKeyPath(id: id))
        guard pair.id == id else {
            throw KeyError(.malformed, "\(privateKeyPath(id: id)) holds another key than its name says")
        }
        return pair
    }
}
