/// How the programs end: exit code 0 after a clean end, 1 when they could not start or go on, 2 for wrong usage, with a sentence on
/// standard error.
package import ArgumentParser

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// The version of both programs.
package let programVersion = "0.1.0"

/// Why a program ends: what is wrong and how to mend it.
package struct CommandFailure: Error, Sendable, Hashable, CustomStringConvertible {
    package enum Kind: Int32, Sendable {
        /// It could not start, or cannot go on.
        case failed = 1
        /// The command line or the configuration is wrong.
        case usage = 2
    }
    package let kind: Kind
    package let message: String

    package init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }
    package var description: String { message }
}

/// Parses arguments, runs the command they name, and ends the process.
package func runProgram<Root: AsyncParsableCommand>(_ root: Root.Type, _ arguments: [String]? = nil) async -> Never {
    // A reader that went away is an error of write, not the end of the process.
    signal(SIGPIPE, SIG_IGN)
    do {
        var command = try root.parseAsRoot(arguments)
        if var asynchronous = command as? any AsyncParsableCommand {
            try await asynchronous.run()
        } else {
            try command.run()
        }
        exit(0)
    } catch {
        let ending = programEnding(root, error)
        if !ending.message.isEmpty {
            writeAll(ending.message + "\n", to: ending.code == 0 ? STDOUT_FILENO : STDERR_FILENO)
        }
        exit(ending.code)
    }
}

/// The exit code for an error and the message that explains it.
package func programEnding<Root: ParsableCommand>(_ root: Root.Type, _ error: any Error) -> (
    code: Int32, message: String
) {
    let name = root.configuration.commandName ?? "\(root)"
    switch error {
    case let failure as CommandFailure: return (failure.kind.rawValue, "\(name): \(failure.message)")
    case let problems as SettingProblems:
        return (CommandFailure.Kind.usage.rawValue, problems.problems.map { "\(name): \($0)" }.joined(separator: "\n"))
    case let code as ExitCode: return (code.rawValue, "")
    default:
        switch root.exitCode(for: error) {
        case .success: return (0, root.fullMessage(for: error))
        case .validationFailure: return (CommandFailure.Kind.usage.rawValue, root.fullMessage(for: error))
        default: return (CommandFailure.Kind.failed.rawValue, "\(name): \(error)")
        }
    }
}
