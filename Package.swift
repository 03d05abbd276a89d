// swift-tools-version: 6.2
import PackageDescription

// Layers, imports downwards only (checked in CI with --explicit-target-dependency-import-check error):
//   C shims → pure values and decisions → kernel wrappers → engines → programs. See docs/architecture.md.

let strict: [SwiftSetting] = [.treatAllWarnings(as: .error), .swiftLanguageMode(.v6)]

/// Both programs are fully static files: `-static-executable` with gold, stripped by rootfs/build.
let staticLink: [LinkerSetting] = [
  .unsafeFlags(["-static-executable", "-use-ld=gold", "-L/usr/local/lib"])
]

/// What the Foundation imports of ArgumentParser and TOMLKit need and static linking does not find by itself.
let foundationEssentials: [LinkerSetting] = [
  .linkedLibrary("FoundationEssentials"), .linkedLibrary("_FoundationCollections"),
  .linkedLibrary("_FoundationCShims"), .linkedLibrary("swiftSynchronization"),
]

func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(
    name: name, dependencies: dependencies, swiftSettings: strict,
    linkerSettings: [.unsafeFlags(["-L/usr/local/lib"])])
}

let package = Package(
  name: "tombolo",
  products: [
    .executable(name: "tombolo-init", targets: ["tombolo-init"]),
    .executable(name: "tombolo", targets: ["tombolo"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
  ],
  targets: [
    // C
    .target(name: "CLinux"),
    .systemLibrary(name: "CMnl"),
    .systemLibrary(name: "CCap"),

    // Pure
    module("Inet"),
    module("Wire", ["Inet"]),
    module("DNS", ["Inet"]),
    module("Policy", ["Inet"]),
    module("Supervision"),
    // TOMLKit imports Foundation: without MemberImportVisibility a `contains` or `range(of:)` here is silently
    // Foundation's, which makes the static program 40 MB larger.
    .target(
      name: "EnclaveConfig", dependencies: ["TOMLKit"],
      swiftSettings: strict + [.enableUpcomingFeature("MemberImportVisibility")]),
    module("Netfilter", ["Inet"]),

    // Kernel
    module("LinuxSystem", ["CLinux", "Inet"]),
    module("EventLoop", ["CLinux", "LinuxSystem"]),
    module("Netlink", ["CLinux", "CMnl", "Inet", "LinuxSystem", "Netfilter"]),

    // Engines
    module("Relaying", ["CLinux", "Inet", "Wire", "LinuxSystem", "EventLoop"]),
    module("Proxying", ["CLinux", "Inet", "Wire", "DNS", "Policy", "LinuxSystem", "EventLoop", "Relaying"]),
    module("HostGateway", ["CLinux", "Inet", "Wire", "DNS", "Policy", "LinuxSystem", "EventLoop", "Relaying"]),
    module("LogForwarding", ["CLinux", "Wire", "LinuxSystem", "EventLoop", "Relaying"]),

    // Programs
    .executableTarget(
      name: "tombolo-init",
      dependencies: ["CLinux", "CMnl", "CCap", "Inet", "LinuxSystem", "Wire", "DNS", "Policy", "Supervision", "EventLoop", "Relaying", "EnclaveConfig", .product(name: "Logging", package: "swift-log"), "TOMLKit"],
      swiftSettings: strict, linkerSettings: staticLink + foundationEssentials),
    .executableTarget(
      name: "tombolo",
      dependencies: ["Inet", .product(name: "ArgumentParser", package: "swift-argument-parser")],
      swiftSettings: strict, linkerSettings: staticLink + foundationEssentials),

    // Tests
    tests("NetfilterTests", ["Netfilter", "Inet"]),
    tests("NetlinkTests", ["Netlink", "Netfilter", "CLinux", "Inet"]),
    tests("NetworkNamespaceTests", ["Netlink", "Netfilter", "CLinux", "LinuxSystem", "Inet"]),
  ],
  cxxLanguageStandard: .cxx17
)
