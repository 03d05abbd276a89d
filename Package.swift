// swift-tools-version: 6.2
import PackageDescription

// Layers, imports downwards only (checked in CI with --explicit-target-dependency-import-check error):
//   C shims → pure values and decisions → kernel wrappers → engines → programs. See docs/architecture.md.

// MemberImportVisibility, because ArgumentParser imports Foundation: without it a `contains` or `range(of:)` anywhere above
// is silently Foundation's, which makes the static program 40 MB larger.
// _GNU_SOURCE, because libc's headers must look the same to every Clang module (Glibc's own, CLinux, CMnl): otherwise
// debug builds fail on types such as fd_set that have two definitions.
let strict: [SwiftSetting] = [
  .treatAllWarnings(as: .error), .swiftLanguageMode(.v6), .enableUpcomingFeature("MemberImportVisibility"),
  .unsafeFlags(["-Xcc", "-D_GNU_SOURCE"]),
]

/// Both programs are fully static files: `-static-executable` with gold, stripped.
let staticLink: [LinkerSetting] = [
  .unsafeFlags(["-L/usr/local/lib"]),
  // Not in debug builds: without dead code stripped, ArgumentParser pulls all of Foundation and ICU in.
  .unsafeFlags(["-static-executable", "-use-ld=gold", "-Xlinker", "-s"], .when(configuration: .release)),
]

/// What the Foundation import of ArgumentParser needs and static linking does not find by itself.
let foundationEssentials: [LinkerSetting] = [
  .linkedLibrary("FoundationEssentials", .when(configuration: .release)),
  .linkedLibrary("_FoundationCollections", .when(configuration: .release)),
  .linkedLibrary("_FoundationCShims", .when(configuration: .release)),
  .linkedLibrary("swiftSynchronization", .when(configuration: .release)),
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
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
  ],
  targets: [
    // C
    .target(name: "CLinux"),
    .systemLibrary(name: "CMnl"),
    .systemLibrary(name: "CCap"),
    .systemLibrary(name: "CMd"),
    .target(
      name: "CDecompress", linkerSettings: [.linkedLibrary("z"), .linkedLibrary("lzma"), .linkedLibrary("zstd")]),

    // toml++ comes from libtomlplusplus-dev: headers only.
    .target(name: "CToml"),

    // Pure
    module("Inet"),
    module("SystemText"),
    module("Wire", ["Inet"]),
    module("LogText", ["Wire"]),
    module("DNS", ["Inet"]),
    module("Policy", ["Inet"]),
    module("Supervision"),
    module("Roles"),
    module("Seccomp"),
    module("EnclaveConfig", ["SystemText", "Inet", "Policy", "CToml"]),
    module("Netfilter", ["Inet"]),
    module("BootPlanning", ["EnclaveConfig", "Inet", "Netfilter"]),
    module("Packets", ["Inet", "Policy"]),

    // Kernel
    module("LinuxSystem", ["SystemText", "CLinux", "Inet"]),
    module("EventLoop", ["CLinux", "LinuxSystem"]),
    module("Netlink", ["CLinux", "CMnl", "Inet", "LinuxSystem", "Netfilter"]),

    module("Capabilities", ["CCap", "CLinux", "LinuxSystem"]),
    module("Digests", ["CMd"]),

    // Engines
    module(
      "Booting",
      [
        "CLinux", "EnclaveConfig", "Inet", "Wire", "LinuxSystem", "EventLoop", "BootPlanning", "Netfilter", "Netlink",
        "Relaying",
      ]),
    module("Relaying", ["CLinux", "Inet", "Wire", "LinuxSystem", "EventLoop"]),
    module(
      "Proxying",
      [
        "CLinux", "Inet", "Wire", "DNS", "Policy", "Roles", "LinuxSystem", "EventLoop", "Relaying", "PacketRelaying",
        "Packets",
      ]),
    module(
      "HostNetwork",
      [
        "CLinux", "Inet", "Policy", "Wire", "Netfilter", "Netlink", "Packets", "LinuxSystem", "EventLoop",
        "PacketRelaying",
      ]),
    module("HostStatus", ["CLinux", "LinuxSystem", "EventLoop", "Relaying"]),
    module(
      "HostGateway",
      [
        "CLinux", "Inet", "Wire", "DNS", "Policy", "LinuxSystem", "EventLoop", "Relaying", "HostNetwork", "HostStatus",
        "Netlink", "PacketRelaying", "Packets", "LogText",
      ]),
    module(
      "PacketRelaying",
      ["CLinux", "Inet", "Netlink", "Packets", "Policy", "Wire", "LinuxSystem", "EventLoop", "Relaying"]),
    module("LogForwarding", ["CLinux", "Wire", "LinuxSystem", "EventLoop", "Relaying"]),
    module(
      "ServiceControl",
      [
        "CLinux", "EnclaveConfig", "Supervision", "Wire", "LinuxSystem", "EventLoop", "Capabilities", "LogForwarding",
        "Proxying", "Relaying", "Seccomp",
      ]),
    module(
      "LocalRunning",
      [
        "CLinux", "Inet", "Policy", "DNS", "BootPlanning", "EnclaveConfig", "Supervision", "LinuxSystem", "EventLoop",
        "Relaying",
        "HostGateway",
        "HostNetwork", "LogText",
      ]),
    module("VhostVsock", ["CLinux", "LinuxSystem"]),

    module(
      "Imaging",
      [
        "SystemText", "CDecompress", "CLinux", "EnclaveConfig", "LinuxSystem",
        .product(name: "Crypto", package: "swift-crypto"), .product(name: "SwiftASN1", package: "swift-asn1"),
      ]),

    module(
      "MachineRunning",
      [
        "CLinux", "Inet", "Policy", "BootPlanning", "LinuxSystem", "EventLoop", "Relaying", "HostGateway",
        "HostNetwork",
        "VhostVsock", "Imaging", "LogText",
      ]),

    // Programs
    .executableTarget(
      name: "tombolo-init",
      dependencies: [
        "SystemText", "CLinux", "Inet", "Wire", "EnclaveConfig", "BootPlanning", "LinuxSystem", "EventLoop",
        "Capabilities",
        "Digests",
        "Relaying", "Roles", "Seccomp",
        "Netlink", "Proxying", "LogForwarding", "Booting", "ServiceControl",
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict, linkerSettings: staticLink),
    .executableTarget(
      name: "tombolo",
      dependencies: [
        "SystemText", "CLinux", "Inet", "Policy", "EnclaveConfig", "BootPlanning", "LinuxSystem", "EventLoop",
        "Relaying",
        "HostGateway",
        "HostStatus", "HostNetwork", "LocalRunning", "MachineRunning", "Imaging", "Netlink", "VhostVsock", "LogText",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: strict, linkerSettings: staticLink + foundationEssentials),

    // The engine of raw mode between two TUN devices and nothing else: Tests/bench compares it with others.
    .executableTarget(
      name: "tombolo-packet-bench",
      dependencies: ["CLinux", "Inet", "Packets", "PacketRelaying", "Wire", "LinuxSystem", "EventLoop", "Relaying"],
      path: "Tests/bench/PacketBench", swiftSettings: strict, linkerSettings: staticLink + foundationEssentials),

    // Tests
    tests("BootTests", ["VhostVsock", "CLinux", "LinuxSystem"]),
    tests("VhostVsockTests", ["VhostVsock", "CLinux", "LinuxSystem"]),
    tests("RawModeTests", []),
    tests("HostNetworkTests", ["HostNetwork", "Netfilter", "Inet"]),
    tests("PacketsTests", ["Packets", "Policy", "Inet"]),
    tests(
      "PacketRelayingTests",
      [
        "PacketRelaying", "Packets", "Policy", "CLinux", "EventLoop", "LinuxSystem", "Inet", "Netlink", "Netfilter",
        "Relaying",
        "Wire", "HostNetwork", "Proxying",
      ]),
    tests("InetTests", ["Inet"]),
    tests("SystemTextTests", ["SystemText"]),
    tests("PolicyTests", ["Policy", "Inet"]),
    tests("WireTests", ["Wire", "Inet"]),
    tests("LogTextTests", ["LogText", "Wire"]),
    tests("DNSTests", ["DNS", "Inet"]),
    tests("SupervisionTests", ["Supervision"]),
    tests("EnclaveConfigTests", ["EnclaveConfig", "Inet", "Policy"]),
    tests("BootPlanningTests", ["BootPlanning", "EnclaveConfig"]),
    tests("HostGatewayTests", ["HostGateway", "Wire"]),
    tests("SeccompTests", ["Seccomp"]),
    tests("RolesTests", ["Roles", "Proxying", "Policy", "Inet", "LinuxSystem", "Relaying", "Wire"]),
    tests("ServiceControlTests", ["ServiceControl", "CLinux", "EventLoop", "LinuxSystem", "Relaying", "Wire"]),
    tests("HostStatusTests", ["HostStatus", "CLinux", "EventLoop", "LinuxSystem"]),
    tests("LocalRunningTests", ["LocalRunning", "BootPlanning", "LinuxSystem"]),
    tests("RelayingTests", ["Relaying", "EventLoop", "LinuxSystem", "CLinux", "Inet", "Wire"]),
    tests("LogForwardingTests", ["LogForwarding", "Relaying", "EventLoop", "LinuxSystem", "Wire"]),
    tests("EndToEndTests", []),
    tests("DifferencesTests", []),
    tests("NetfilterTests", ["Netfilter", "Inet"]),
    tests("NetlinkTests", ["Netlink", "Netfilter", "CLinux", "Inet"]),
    tests(
      "ImagingTests",
      ["CDecompress", "Imaging", "CLinux", "LinuxSystem", .product(name: "Crypto", package: "swift-crypto")]),
    tests(
      "NetworkNamespaceTests",
      ["Netlink", "Netfilter", "CLinux", "LinuxSystem", "EventLoop", "Relaying", "Wire", "Inet"]),
  ],
  cxxLanguageStandard: .cxx17
)
