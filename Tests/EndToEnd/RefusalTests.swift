/// What a visitor and an agent are told when something is wrong.
import Foundation
import Testing

@Suite("Refusals", .serialized)
struct RefusalTests {
    @Test("Each refusal has its status and a reason that says what to do", .timeLimit(.minutes(2)))
    func visitors() async throws {
        try await withInstallation(options: ["--domain", "test.example"]) { installation in
            _ = try await installation.startGateway()
            let (agent, _) = try await installation.startAgent("http", "\(try freePort())", "--name", "dead")

            let host = try await curl(installation.url, "--header", "Host: nobody.test.example")
            #expect(host.status == 404)
            #expect(!host.body.isEmpty)
            let unknown = "/proxy/0e1d7b54-0000-4000-8000-000000000000/kite"
            #expect(try await curl(installation.url + unknown).status == 404)

            let broken = try await curl(installation.url, "--header", "Host: dead.test.example")
            #expect(broken.status == 502)
            let asJSON = try await curl(
                installation.url, "--header", "Host: dead.test.example", "--header", "Accept: application/json")
            #expect(asJSON.fields["content-type"]?.hasPrefix("application/json") == true)
            #expect(try JSONSerialization.jsonObject(with: Data(asJSON.body.utf8)) is [String: Any])

            let long = String(repeating: "a", count: 17 << 10)
            #expect(try await curl(installation.url + "/" + long).status == 414)
            let big = String(repeating: "b", count: 70 << 10)
            #expect(try await curl(installation.url, "--header", "X-Big: \(big)").status == 431)
            #expect(try await curl(installation.url, "--header", "Content-Length: x").status == 400)

            agent.kill(SIGKILL)
            _ = try await agent.waitForEnd()
            let away = try await curl(installation.url, "--header", "Host: dead.test.example")
            #expect(away.status == 503)
            #expect(away.fields["retry-after"] != nil)
        }
    }

    @Test("An agent with a key of another Kontrol is refused, says why and exits 1", .timeLimit(.minutes(1)))
    func foreignKey() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            try await withInstallation { other in
                try await other.startGateway().terminate()
                let agent = try other.run(
                    "\(Place.products)/tunnelclient",
                    ["http", "1", "--name", "intruder", "--gateway", installation.url])
                #expect(try await agent.waitForEnd() == 1)
                #expect(agent.standardError.contains("401"))
            }
        }
    }

    @Test("Expired kite keys and tokens are refused with 401 and the reason, at each door", .timeLimit(.minutes(1)))
    func expired() async throws {
        try await withInstallation { installation in
            let (secret, pem) = (installation.directory + "/secret.pem", installation.directory + "/public.pem")
            _ = try await ChildProcess.run("/usr/bin/openssl", ["genrsa", "-out", secret, "2048"])
            _ = try await ChildProcess.run("/usr/bin/openssl", ["rsa", "-in", secret, "-pubout", "-out", pem])
            let imported = try installation.kiteproxy(
                "keys", "import", "--private", secret, "--data-dir", installation.directory + "/data")
            #expect(try await imported.waitForEnd() == 0, "\(imported.standardError)")
            let gateway = try await installation.startGateway()

            let now = Int(Date().timeIntervalSince1970)
            /// Signed by Kontrol; expires in so many seconds.
            func credential(_ claims: [String: Any], expiresIn seconds: Int) async throws -> String {
                let common: [String: Any] = [
                    "iss": "kontrol", "sub": "alice", "jti": "1", "iat": now - 7200, "exp": now + seconds,
                ]
                let text = try JSONSerialization.data(withJSONObject: common.merging(claims) { $1 })
                return try await ChildProcess.run(
                    Place.python, [Place.peer("forge.py"), secret, String(decoding: text, as: UTF8.self)])
            }
            let keyClaims = [
                "kontrolKey": try String(contentsOfFile: pem, encoding: .utf8), "kontrolURL": installation.kontrolURL,
            ]
            let tokenClaims = ["aud": "/kontrol/development/proxy"]
            /// What the tunnel door says before it would turn the connection into a tunnel.
            func knock(_ credential: String) async throws -> Answer {
                try await curl(
                    installation.url + "/-/tunnel", "--header", "Authorization: Bearer \(credential)")
            }

            for claims in [keyClaims, tokenClaims] {
                // Whoever gets in is told what to do next.
                #expect(try await knock(credential(claims, expiresIn: 60)).status == 426)
                let refused = try await knock(credential(claims, expiresIn: -3600))
                #expect(refused.status == 401)
                #expect(refused.body.contains("token is expired by 1h"), "\(refused.body)")
            }

            let key = try await credential(keyClaims, expiresIn: -3600)
            let file = installation.directory + "/expired.key"
            try Data(key.utf8).write(to: URL(fileURLWithPath: file))
            let agent = try installation.tunnelclient("http", "1", "--name", "late", "--kite-key", file)
            #expect(try await agent.waitForEnd() == 1)
            #expect(agent.standardError.contains("401"))
            #expect(agent.standardError.contains("token is expired"), "\(agent.standardError)")

            let registration = try JSONSerialization.data(withJSONObject: [
                "url": "http://127.0.0.1:1/kite", "auth": ["type": "kiteKey", "key": key],
                "kite": [
                    "name": "late", "username": "alice", "id": "0e1d7b54-0000-4000-8000-00000000dead",
                    "environment": "e", "region": "r", "version": "1.0.0", "hostname": "h",
                ],
            ])
            let kontrol = try await curl(
                "http://127.0.0.1:\(installation.kontrolPort)/register", "--data",
                String(decoding: registration, as: UTF8.self))
            #expect(kontrol.status == 401)
            #expect(kontrol.body.contains("token is expired"), "\(kontrol.body)")
            for secret in [key, secret] { #expect(!gateway.standardError.contains(secret)) }
        }
    }

    @Test("A name that another user holds is refused with 409, and the agent exits 1", .timeLimit(.minutes(1)))
    func takenName() async throws {
        try await withInstallation { installation in
            _ = try await installation.startGateway()
            _ = try await installation.startAgent("http", "1", "--name", "mine")
            let key = installation.directory + "/other.key"
            let issued = try installation.kiteproxy(
                "keys", "issue", "somebody", "--data-dir", installation.directory + "/data", "--out", key)
            #expect(try await issued.waitForEnd() == 0)
            let second = try installation.tunnelclient("http", "1", "--name", "mine", "--kite-key", key)
            #expect(try await second.waitForEnd() == 1)
            #expect(second.standardError.contains("mine"))
            #expect(second.standardError.contains("409"))
        }
    }

    @Test(
        "Wrong usage exits 2 and says how to mend it",
        arguments: [["serve", "--threads", "many"], ["nonsense"], ["serve", "--listen", "nowhere"]])
    func usage(arguments: [String]) async throws {
        let child = try ChildProcess("\(Place.products)/kiteproxy", arguments)
        #expect(try await child.waitForEnd() == 2)
        #expect(!child.standardError.isEmpty)
    }

    @Test("A port that is taken exits 1 and names it", .timeLimit(.minutes(1)))
    func takenPort() async throws {
        try await withInstallation { installation in
            let (_, port) = try await installation.startTarget("small")
            let child = try installation.kiteproxy(
                "serve", "--listen", "127.0.0.1:\(port)", "--kontrol-listen", "127.0.0.1:0", "--admin-listen",
                "127.0.0.1:0", "--data-dir", installation.directory + "/data")
            #expect(try await child.waitForEnd() == 1)
            #expect(child.standardError.contains("\(port)"))
        }
    }
}
