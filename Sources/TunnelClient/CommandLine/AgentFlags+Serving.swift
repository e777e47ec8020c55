import KiteCommand

extension AgentFlags {
    func serve(_ given: [TunnelDefinition]) async throws {
        throw CommandFailure(.failed, "not built yet")
    }
}
