/// Keeps the process up when it runs out of memory or descriptors: new work is refused until there is enough again.
import Logging
import Synchronization

/// What requests are refused for, readable from any thread at no cost; a task of the control plane looks again and again.
final class Pressure: Sendable {
    private static let pause = Duration.milliseconds(250)

    private let current = Atomic<UInt8>(0)
    private let configured: Mutex<PressureStateMachine.Amounts>
    private let logger: Logger

    init(_ limits: GatewayOptions.Limits, logger: Logger) {
        configured = Mutex(.init(memory: limits.memoryBytes, descriptors: limits.descriptors))
        self.logger = logger
    }

    /// What there is too little of now.
    var shortage: Shortage? {
        let value = current.load(ordering: .relaxed)
        return value == 0 ? nil : Shortage(rawValue: value)
    }

    /// Other limits hold from now on.
    func reconfigure(_ limits: GatewayOptions.Limits) {
        configured.withLock { $0 = .init(memory: limits.memoryBytes, descriptors: limits.descriptors) }
    }

    /// Looks until it is cancelled.
    func run() async {
        var machine = PressureStateMachine()
        let group = ProcessAmounts.controlGroupMemory()
        while !Task.isCancelled {
            let configured = configured.withLock { $0 }
            let limits = PressureStateMachine.Amounts(
                memory: [configured.memory, group].compactMap(\.self).min(),
                descriptors: [configured.descriptors, ProcessAmounts.descriptorLimit()].compactMap(\.self).min())
            // The allocator does not return by itself what was given back to it.
            if machine.shortage == .memory { ProcessAmounts.giveBackMemory() }
            look(&machine, used: ProcessAmounts.used(), limits: limits)
            try? await Task.sleep(for: Self.pause)
        }
    }

    private func look(
        _ machine: inout PressureStateMachine, used: PressureStateMachine.Amounts, limits: PressureStateMachine.Amounts
    ) {
        guard machine.update(used: used, limits: limits) else { return }
        current.store(machine.shortage?.rawValue ?? 0, ordering: .relaxed)
        let figures: Logger.Metadata = [
            "memory": "\(used.memory ?? 0)", "memoryLimit": "\(limits.memory.map(String.init) ?? "none")",
            "descriptors": "\(used.descriptors ?? 0)",
            "descriptorLimit": "\(limits.descriptors.map(String.init) ?? "none")",
        ]
        switch machine.shortage {
        case .memory?: logger.warning("short of memory: new requests are refused", metadata: figures)
        case .descriptors?: logger.warning("short of file descriptors: new requests are refused", metadata: figures)
        case nil: logger.notice("enough memory and file descriptors again", metadata: figures)
        }
    }
}
