/// `kiteproxy keys password`: makes the hash of a password for `users` in the configuration file.
import ArgumentParser
import Foundation
import KiteCommand
import KiteGateway

struct KeysPasswordCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "password", abstract: "Make the hash of a password for `users` in the configuration file.",
        discussion:
            "Reads the password from the terminal, twice and without showing it, or the first line of standard input. Prints the hash: salted, by scrypt."
    )

    func run() throws {
        let isTerminal = isatty(STDIN_FILENO) == 1
        let password = try read(isTerminal, "Password: ")
        if isTerminal, try read(isTerminal, "Again: ") != password {
            throw CommandFailure(.usage, "the two passwords differ")
        }
        guard (1...256).contains(password.utf8.count) else {
            throw CommandFailure(.usage, "a password has 1 to 256 bytes")
        }
        guard let hash = PasswordHash(hashing: password) else {
            throw CommandFailure(.failed, "there is not enough memory to hash a password")
        }
        print(hash)
    }

    private func read(_ isTerminal: Bool, _ prompt: String) throws -> String {
        guard isTerminal else {
            guard let line = readLine(strippingNewline: true) else {
                throw CommandFailure(.usage, "there is no password on standard input")
            }
            return line
        }
        FileHandle.standardError.write(Data(prompt.utf8))
        var before = termios()
        tcgetattr(STDIN_FILENO, &before)
        var silent = before
        silent.c_lflag &= ~tcflag_t(ECHO)
        tcsetattr(STDIN_FILENO, TCSANOW, &silent)
        defer {
            tcsetattr(STDIN_FILENO, TCSANOW, &before)
            FileHandle.standardError.write(Data("\n".utf8))
        }
        guard let line = readLine(strippingNewline: true) else {
            throw CommandFailure(.usage, "there is no password on standard input")
        }
        return line
    }
}
