/// `kiteproxy routes`: what a running gateway serves, from its admin listener.
import ArgumentParser
import Foundation
import KiteCommand
import KiteGateway

struct RoutesCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "routes", abstract: "Show the routes of a running gateway.")

    @Option(help: ArgumentHelp("YAML configuration file of the gateway.", valueName: "FILE"))
    var config: String?
    @Option(
        help: ArgumentHelp("The gateway's admin listener. (default: 127.0.0.1:3998)", valueName: "HOST:PORT"))
    var adminListen: String?
    @Flag(help: "The JSON of the admin API.") var json = false

    func run() async throws {
        let environment = ProcessInfo.processInfo.environment
        let path = config ?? environment["KITEPROXY_CONFIG"].flatMap { $0.isEmpty ? nil : $0 }
        let settings = try Settings(
            schema: GatewaySettings.schema, flags: ["admin-listen": adminListen.map { [$0] } ?? []],
            environment: environment,
            file: path.map { path throws(SettingProblems) in try SettingsFile(contentsOf: path) })
        let address = settings[GatewaySettings.adminListen]
        let isAnywhere = address.host == "0.0.0.0" || address.host == "::"
        let answer: String
        do {
            answer = try await AdminClient.get(
                "/api/routes", host: isAnywhere ? "127.0.0.1" : address.host, port: address.port)
        } catch {
            throw CommandFailure(
                .failed,
                "no gateway answers at \(address): \(error). Is it running? Its --admin-listen must be given here too if it is not 127.0.0.1:3998"
            )
        }
        if json { return print(answer) }
        guard let decoded = try? JSONDecoder().decode(Answer.self, from: Data(answer.utf8)) else {
            throw CommandFailure(.failed, "what answers at \(address) is no kiteproxy")
        }
        print(Self.table(decoded.routes))
    }

    struct Answer: Decodable { let routes: [RouteStatus] }

    /// Routes as columns.
    static func table(_ routes: [RouteStatus]) -> String {
        guard !routes.isEmpty else { return "No routes. `tunnelclient http 8080` makes one." }
        var rows = [["NAME", "KIND", "OWNER", "SERVES", "LANES", "PUBLIC URL", "TARGETS"]]
        for route in routes.sorted(by: { $0.name < $1.name }) {
            rows.append(
                [
                    route.name, route.kind, route.owner, route.isServing ? "yes" : "no", "\(route.lanes)",
                    route.publicURL, route.targets.joined(separator: ", "),
                ].map(HumanText.oneLine))
        }
        var widths = [Int](repeating: 0, count: 7)
        for row in rows {
            for (column, cell) in row.enumerated() { widths[column] = max(widths[column], cell.count) }
        }
        return rows.map { row in
            let cells = zip(row, widths).map { $0.padding(toLength: $1, withPad: " ", startingAt: 0) }
            let line = cells.joined(separator: "  ")
            return String(line.reversed().drop { $0 == " " }.reversed())
        }.joined(separator: "\n")
    }
}
