/// Who may have a kite key from `registerMachine`, which asks for no authentication.

/// The operator's decision.
public enum MachinePolicy: String, Sendable, Hashable, CaseIterable {
    /// Nobody.
    case deny
    /// Who brings a one-time secret, for the user it was made for (``KontrolKeys/invite(user:lifetime:)``).
    case secret
    /// Anybody, for any user name that nobody has had before.
    case open
}
