/// A kite for the end-to-end tests: `TestKite listen` (prints its URL), `TestKite register` (listens, registers with the Kontrol of its
/// kite key and prints its id each time), `TestKite expose GATEWAY NAME` (prints its public URL and listens nowhere) or `TestKite find NAME`
/// (asks Kontrol until it knows a kite with this name, and prints its URL).
import Foundation
import KiteCore

let arguments = Array(CommandLine.arguments.dropFirst())
let kite = Kite(
    name: "tests", version: "1.0.0", configuration: try KiteConfiguration.fromEnvironment(), authenticator: .anyone)

kite.handle("square", .anonymous) { (_: KiteRequest, number: Double) in number * number }

// Calls the method `twice` of whoever called.
kite.handle("callPage", .anonymous) { (request: KiteRequest, number: Int) -> Int in
    try await request.remote.tell("twice", number)
}

// Calls the callback that came as an argument.
kite.handle("count", .anonymous) { (_: KiteRequest, callback: DnodeFunction) in
    for number in 1...3 { try await callback.call(number) }
}

kite.handle("echo", .anonymous) { (_: KiteRequest, text: String) in text }

/// Standard output of a pipe is written at once, so that the test sees it.
func announce(_ url: String) { FileHandle.standardOutput.write(Data((url + "\n").utf8)) }

switch arguments.first {
case "listen":
    let server = try await kite.listen(host: "127.0.0.1", port: 0)
    announce(server.url)
    try await server.run()
case "register":
    let server = try await kite.listen(host: "127.0.0.1", port: 0)
    let kontrol = try KontrolClient(kite: kite, connector: KiteClient.sockJS)
    let registration = KontrolRegistration(kontrol, url: server.url) { _ in announce(kite.identity.id) }
    try await withThrowingTaskGroup { group in
        group.addTask { try await server.run() }
        group.addTask { try await kontrol.run() }
        group.addTask { try await registration.run() }
        try await group.waitForAll()
    }
case "find" where arguments.count == 2:
    let kontrol = try KontrolClient(kite: kite, connector: KiteClient.sockJS)
    let query = KontrolQuery(
        username: kite.identity.username, environment: kite.identity.environment, name: arguments[1])
    try await withThrowingTaskGroup { group in
        group.addTask { try await kontrol.run() }
        var url: String?
        while url == nil {
            url = try? await kontrol.kites(matching: query).first?.url
            try await Task.sleep(for: .milliseconds(50))
        }
        announce(url ?? "")
        group.cancelAll()
    }
case "expose" where arguments.count == 3:
    try await kite.expose(through: arguments[1], as: arguments[2], onURL: announce)
default:
    FileHandle.standardError.write(Data("TestKite listen | register | expose GATEWAY NAME | find NAME\n".utf8))
    exit(2)
}
