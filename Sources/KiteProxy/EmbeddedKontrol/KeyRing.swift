/// The key pairs a Kontrol signs with at present, and those whose signatures it still accepts.
package import KiteCore

/// Key pairs in memory. The active one signs; retired ones sign only for kites that do not know the active one yet.
package struct KeyRing: Sendable {
    /// Kontrol's user, the issuer of everything.
    package let issuer: String
    package let active: KontrolKeyPair
    package let retired: [KontrolKeyPair]

    package init(issuer: String, active: KontrolKeyPair, retired: [KontrolKeyPair] = []) {
        self.issuer = issuer
        self.active = active
        self.retired = retired
    }

    /// Reads what the store names from its directory.
    /// - Throws: ``KontrolError`` with `unavailable` when there is no active key pair or a file is missing.
    package init(issuer: String, store: KontrolStore, directory: KeyDirectory) async throws(KontrolError) {
        var active: KontrolKeyPair?
        var retired: [KontrolKeyPair] = []
        for stored in try await store.keyPairs() {
            let pair: KontrolKeyPair
            do throws(KeyError) {
                pair = try await directory.keyPair(id: stored.id)
            } catch {
                throw KontrolError(.unavailable, "A key of Kontrol cannot be read: \(error.message)")
            }
            if stored.isActive { active = pair } else { retired.append(pair) }
        }
        guard let active else {
            throw KontrolError(.unavailable, "Kontrol has no keys yet: run \"kiteproxy keys init\"")
        }
        self.init(issuer: issuer, active: active, retired: retired)
    }

    /// The pair with an id, else the active one.
    package func pair(id: String) -> KontrolKeyPair { retired.first { $0.id == id } ?? active }

    /// What a verifier should trust.
    package var trustedIssuer: TrustedIssuer {
        TrustedIssuer(name: issuer, keys: [active.publicKey] + retired.map(\.publicKey))
    }

    /// Whether both hold the same keys.
    package func isSame(as other: KeyRing) -> Bool {
        trustedIssuer == other.trustedIssuer && active.id == other.active.id
    }
}
