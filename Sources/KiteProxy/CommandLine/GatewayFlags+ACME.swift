/// The flags of certificates that come by themselves.
import ArgumentParser

struct ACMEFlags: SettingFlags {
    @Option(name: .customLong("acme-domain"), help: settingHelp("acme-domain"))
    var domains: [String] = []
    @Option(name: .customLong("acme-directory"), help: settingHelp("acme-directory"))
    var directories: [String] = []
    @Flag(name: .customLong("acme-agree"), inversion: .prefixedNo, help: settingHelp("acme-agree"))
    var agree: Bool?
    @Option(name: .customLong("acme-contact"), help: settingHelp("acme-contact"))
    var contacts: [String] = []
    @Option(name: .customLong("acme-challenge"), help: settingHelp("acme-challenge"))
    var challenges: [String] = []
    @Option(name: .customLong("acme-eab-kid"), help: settingHelp("acme-eab-kid"))
    var accountID: String?
    @Option(name: .customLong("acme-eab-hmac-file"), help: settingHelp("acme-eab-hmac-file"))
    var accountKeyFile: String?
    @Option(name: .customLong("acme-ca-file"), help: settingHelp("acme-ca-file"))
    var authorities: String?
    @Option(name: .customLong("acme-on-demand"), help: settingHelp("acme-on-demand"))
    var onDemand: String?
    @Option(name: .customLong("acme-on-demand-allow"), help: settingHelp("acme-on-demand-allow"))
    var onDemandNames: [String] = []
    @Option(name: .customLong("acme-on-demand-rate"), help: settingHelp("acme-on-demand-rate"))
    var onDemandRate: String?

    var given: [String: [String]] {
        [
            "acme-domain": domains,
            "acme-directory": directories,
            "acme-agree": one(agree.map { "\($0)" }),
            "acme-contact": contacts,
            "acme-challenge": challenges,
            "acme-eab-kid": one(accountID),
            "acme-eab-hmac-file": one(accountKeyFile),
            "acme-ca-file": one(authorities),
            "acme-on-demand": one(onDemand),
            "acme-on-demand-allow": onDemandNames,
            "acme-on-demand-rate": one(onDemandRate),
        ]
    }
}
