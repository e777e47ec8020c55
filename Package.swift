// swift-tools-version: 6.2
import PackageDescription

// Every layer of KiteCore is a target of its own: the compiler then enforces that imports point one way
// (see docs/architecture.md), and a change rebuilds only what stands above it.

let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
]
let embedded: [Target.Dependency] = [.product(name: "NIOEmbedded", package: "swift-nio")]
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let lifecycle: Target.Dependency = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let signals: Target.Dependency = .product(name: "UnixSignals", package: "swift-service-lifecycle")
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let configuration: Target.Dependency = .product(name: "Configuration", package: "swift-configuration")
let yaml: Target.Dependency = .product(name: "Yams", package: "Yams")
let tls: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")

/// The folders of KiteCore that are targets of their own, below the target that has the library's name.
let layers = ["Support", "HTTP", "HTTP2", "TLS", "WebSocket", "Dialing", "Dnode", "SockJS", "Tunnel"]

let settings: [SwiftSetting] =
    [
        .enableUpcomingFeature("InternalImportsByDefault"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("ExistentialAny"),
    ] + (Context.environment["CI"] == nil ? [] : [.treatAllWarnings(as: .error)])

let package = Package(
    name: "KiteProxy",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "KiteCore", targets: ["KiteCore"]),
        .executable(name: "kiteproxy", targets: ["KiteProxy"]),
        .executable(name: "tunnelclient", targets: ["TunnelClient"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.100.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.0"),
        .package(url: "https://github.com/apple/swift-nio-http2.git", from: "1.46.0"),
        .package(url: "https://github.com/apple/swift-certificates.git", from: "1.21.0"),
        .package(url: "https://github.com/apple/swift-asn1.git", from: "1.5.0"),
        .package(url: "https://github.com/apple/swift-log.git", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-configuration.git", from: "1.4.0", traits: []),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
        .package(url: "https://github.com/apple/swift-crypto.git", from: "4.5.0"),
        .package(url: "https://github.com/vapor/jwt-kit.git", from: "5.7.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle.git", from: "2.13.0"),
        .package(url: "https://github.com/groue/GRDB.swift.git", from: "7.10.0"),
    ],
    targets: [
        // MARK: KiteCore, from the bottom up
        .target(name: "CZlib", path: "Sources/CZlib", linkerSettings: [.linkedLibrary("z")]),
        .target(
            name: "KiteSupport", dependencies: nio + [logging, lifecycle], path: "Sources/KiteCore/Support",
            swiftSettings: settings),
        .target(
            name: "KiteHTTP",
            dependencies: nio + [logging, .product(name: "NIOTLS", package: "swift-nio"), "KiteSupport"],
            path: "Sources/KiteCore/HTTP", swiftSettings: settings),
        .target(
            name: "KiteHTTP2",
            dependencies: nio + [
                .product(name: "NIOHTTP2", package: "swift-nio-http2"),
                .product(name: "NIOHPACK", package: "swift-nio-http2"), "KiteHTTP", "KiteWebSocket", "KiteSupport",
            ],
            path: "Sources/KiteCore/HTTP2", swiftSettings: settings),
        .target(
            name: "KiteTLS",
            dependencies: nio + [
                tls, logging, .product(name: "NIOTLS", package: "swift-nio"),
                .product(name: "Crypto", package: "swift-crypto"), "KiteHTTP", "KiteSupport",
            ],
            path: "Sources/KiteCore/TLS", swiftSettings: settings),
        .target(
            name: "KiteWebSocket", dependencies: nio + ["CZlib", "KiteHTTP", "KiteSupport"],
            path: "Sources/KiteCore/WebSocket",
            swiftSettings: settings),
        .target(
            name: "KiteDialing",
            dependencies: nio + [
                tls, logging, .product(name: "NIOTLS", package: "swift-nio"), "KiteHTTP", "KiteSupport",
            ],
            path: "Sources/KiteCore/Dialing", swiftSettings: settings),
        .target(
            name: "KiteDnode", dependencies: [.product(name: "NIOCore", package: "swift-nio")],
            path: "Sources/KiteCore/Dnode", swiftSettings: settings),
        .target(
            name: "KiteSockJS",
            dependencies: nio + [logging, "KiteHTTP", "KiteWebSocket", "KiteDialing", "KiteSupport"],
            path: "Sources/KiteCore/SockJS", swiftSettings: settings),
        .target(
            name: "KiteTunnel",
            dependencies: nio + [logging, lifecycle, "KiteHTTP", "KiteWebSocket", "KiteDialing", "KiteSupport"],
            path: "Sources/KiteCore/Tunnel", swiftSettings: settings),
        .target(
            name: "KiteCore",
            dependencies: nio + [
                logging, lifecycle,
                "KiteHTTP", "KiteWebSocket", "KiteDialing", "KiteSockJS", "KiteDnode", "KiteTunnel", "KiteSupport",
                .product(name: "JWTKit", package: "jwt-kit"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "CryptoExtras", package: "swift-crypto"),
            ],
            path: "Sources/KiteCore", exclude: layers, swiftSettings: settings),

        // MARK: what both programs share on the command line
        .target(
            name: "KiteCommand",
            dependencies: [
                logging, arguments, configuration, yaml, .product(name: "NIOCore", package: "swift-nio"),
            ],
            path: "Sources/KiteCommand", swiftSettings: settings),

        // MARK: the gateway
        .target(
            name: "EmbeddedKontrol",
            dependencies: nio + [
                "KiteCore", "KiteHTTP", "KiteDnode", "KiteSupport", logging, lifecycle,
                .product(name: "GRDB", package: "GRDB.swift"),
            ],
            path: "Sources/KiteProxy/EmbeddedKontrol", swiftSettings: settings),
        .target(
            name: "ACME",
            dependencies: nio + [
                "KiteCore", "KiteHTTP", "KiteTLS", "KiteDialing", "KiteSupport", logging, lifecycle,
                .product(name: "X509", package: "swift-certificates"),
                .product(name: "SwiftASN1", package: "swift-asn1"), .product(name: "Crypto", package: "swift-crypto"),
            ],
            path: "Sources/KiteProxy/ACME", swiftSettings: settings),
        .target(
            name: "KiteGateway",
            dependencies: nio + [
                "KiteCore", "KiteHTTP", "KiteHTTP2", "KiteTLS", "KiteWebSocket", "KiteDialing", "KiteSockJS",
                "KiteDnode",
                "KiteTunnel", "KiteSupport", "CZlib", tls, logging, lifecycle,
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "CryptoExtras", package: "swift-crypto"),
            ],
            path: "Sources/KiteProxy/Gateway",
            resources: [.embedInCode("Browser/kite.js"), .embedInCode("Browser/kite.d.ts")], swiftSettings: settings),
        .executableTarget(
            name: "KiteProxy",
            dependencies: nio + [
                "KiteCore", "KiteHTTP", "KiteTLS", "KiteTunnel", "KiteDialing", "KiteSupport", "KiteGateway",
                "EmbeddedKontrol", "ACME", "KiteCommand", tls, logging, lifecycle, signals, arguments,
            ],
            path: "Sources/KiteProxy", exclude: ["ACME", "EmbeddedKontrol", "Gateway"], swiftSettings: settings),

        // MARK: the agent
        .executableTarget(
            name: "TunnelClient",
            dependencies: nio + [
                "KiteCore", "KiteHTTP", "KiteTunnel", "KiteDialing", "KiteSupport", "KiteCommand", tls, logging,
                lifecycle, signals, arguments,
            ],
            path: "Sources/TunnelClient", swiftSettings: settings),

        // MARK: tests, folder by folder as in Sources
        .testTarget(
            name: "KiteSupportTests", dependencies: nio + embedded + ["KiteSupport"], path: "Tests/KiteCore/Support",
            swiftSettings: settings),
        .testTarget(
            name: "KiteHTTPTests",
            dependencies: nio + embedded + [
                "KiteHTTP", "KiteSupport", .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            path: "Tests/KiteCore/HTTP", swiftSettings: settings),
        .testTarget(
            name: "KiteHTTP2Tests",
            dependencies: nio + embedded + [
                "KiteHTTP2", "KiteHTTP", "KiteWebSocket", "KiteSupport",
                .product(name: "NIOHPACK", package: "swift-nio-http2"),
                .product(name: "NIOHTTP2", package: "swift-nio-http2"),
            ],
            path: "Tests/KiteCore/HTTP2", swiftSettings: settings),
        .testTarget(
            name: "KiteWebSocketTests", dependencies: nio + embedded + ["KiteWebSocket", "KiteHTTP", "KiteSupport"],
            path: "Tests/KiteCore/WebSocket", swiftSettings: settings),
        .testTarget(
            name: "KiteDialingTests",
            dependencies: nio + embedded + [
                "KiteDialing", "KiteHTTP", "KiteSupport", tls, .product(name: "NIOTLS", package: "swift-nio"),
            ],
            path: "Tests/KiteCore/Dialing", swiftSettings: settings),
        .testTarget(
            name: "KiteTLSTests",
            dependencies: nio + embedded + [
                "KiteTLS", "KiteHTTP", tls, .product(name: "NIOTLS", package: "swift-nio"),
            ],
            path: "Tests/KiteCore/TLS", swiftSettings: settings),
        .testTarget(
            name: "KiteDnodeTests", dependencies: ["KiteDnode", .product(name: "NIOCore", package: "swift-nio")],
            path: "Tests/KiteCore/Dnode", exclude: ["Fixtures"], swiftSettings: settings),
        .testTarget(
            name: "KiteSockJSTests",
            dependencies: nio + embedded + [
                "KiteSockJS", "KiteHTTP", "KiteWebSocket", "KiteDialing", "KiteSupport", "SockJSTestServer", logging,
            ],
            path: "Tests/KiteCore/SockJS", exclude: ["Peers"], swiftSettings: settings),
        .testTarget(
            name: "KiteTunnelTests",
            dependencies: nio + embedded + [
                "KiteTunnel", "KiteHTTP", "KiteWebSocket", "KiteDialing", "KiteSupport", logging,
            ],
            path: "Tests/KiteCore/Tunnel", swiftSettings: settings),
        .testTarget(
            name: "KiteCoreTests",
            dependencies: nio + [
                "KiteCore", "KiteHTTP", "KiteDialing", "KiteDnode", "KiteSockJS", "KiteSupport", logging,
            ],
            path: "Tests/KiteCore", exclude: layers, swiftSettings: settings),
        .testTarget(
            name: "ACMETests",
            dependencies: nio + [
                "ACME", "ACMETestServer", "KiteCore", "KiteHTTP", "KiteTLS", "KiteDialing", "KiteSupport", tls, logging,
                lifecycle,
                .product(name: "X509", package: "swift-certificates"),
                .product(name: "SwiftASN1", package: "swift-asn1"), .product(name: "Crypto", package: "swift-crypto"),
            ],
            path: "Tests/KiteProxy/ACME", swiftSettings: settings),
        .testTarget(
            name: "EmbeddedKontrolTests",
            dependencies: nio + [
                "EmbeddedKontrol", "KiteCore", "KiteDnode", "KiteHTTP", "KiteSockJS", "KiteSupport", logging,
            ],
            path: "Tests/KiteProxy/EmbeddedKontrol", swiftSettings: settings),
        .testTarget(
            name: "KiteGatewayTests",
            dependencies: nio + embedded + [
                "CZlib", "KiteGateway", "KiteCore", "KiteHTTP", "KiteTunnel", "KiteDialing", "KiteDnode", "KiteSockJS",
                "KiteSupport", logging,
            ],
            path: "Tests/KiteProxy/Gateway", swiftSettings: settings),
        .testTarget(
            name: "KiteCommandTests",
            dependencies: ["KiteCommand", logging, arguments, .product(name: "NIOCore", package: "swift-nio")],
            path: "Tests/KiteCommand", swiftSettings: settings),
        .testTarget(
            name: "KiteProxyTests",
            dependencies: nio + [
                "KiteProxy", "KiteCommand", "KiteGateway", "EmbeddedKontrol", "ACME", "KiteCore", "KiteHTTP", "KiteTLS",
                "KiteSupport", logging, arguments,
            ],
            path: "Tests/KiteProxy/CommandLine", swiftSettings: settings),
        .testTarget(
            name: "TunnelClientTests",
            dependencies: nio + embedded + [
                "TunnelClient", "KiteCommand", "KiteTunnel", "KiteHTTP", "KiteDialing", logging, arguments,
            ],
            path: "Tests/TunnelClient", swiftSettings: settings),
        .executableTarget(
            name: "SockJSTestServer",
            dependencies: nio + ["KiteSockJS", "KiteWebSocket", "KiteHTTP", "KiteSupport"],
            path: "Tests/SockJSTestServer", swiftSettings: settings),
        .executableTarget(
            name: "ACMETestServer",
            dependencies: nio + [
                "KiteHTTP", "KiteSupport", tls, .product(name: "NIOTLS", package: "swift-nio"),
                .product(name: "X509", package: "swift-certificates"),
                .product(name: "SwiftASN1", package: "swift-asn1"), .product(name: "Crypto", package: "swift-crypto"),
            ],
            path: "Tests/ACMETestServer", swiftSettings: settings),
        .executableTarget(
            name: "TestKite", dependencies: ["KiteCore"], path: "Tests/TestKite", swiftSettings: settings
        ),
        .testTarget(
            name: "EndToEndTests",
            dependencies: nio + embedded + [
                "KiteProxy", "TunnelClient", "TestKite", "ACMETestServer",
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            path: "Tests/EndToEnd", exclude: ["Peers"], swiftSettings: settings),

        // MARK: benchmarks, see docs/performance.md
        .executableTarget(
            name: "MicroBenchmarks",
            dependencies: [
                "KiteHTTP", "KiteTunnel", "KiteDnode", "KiteWebSocket", .product(name: "NIOCore", package: "swift-nio"),
            ],
            path: "Benchmarks/MicroBenchmarks", swiftSettings: settings),
        .executableTarget(
            name: "ManyAgents", dependencies: nio + ["KiteTunnel", "KiteDialing", "KiteHTTP", logging],
            path: "Benchmarks/ManyAgents", swiftSettings: settings),

        // MARK: examples
        .executableTarget(
            name: "MathKite", dependencies: ["KiteCore"], path: "Examples/MathKite", swiftSettings: settings),
        .executableTarget(
            name: "MathClient", dependencies: ["KiteCore"], path: "Examples/MathClient", swiftSettings: settings),
    ]
)
