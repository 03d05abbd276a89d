// swift-tools-version: 6.2
import PackageDescription

// The list of modules, and what each one is. A module's layer is its folder below Sources/; its tests are below Tests/ in the
// same one. Imports go downwards only: C → Pure → Kernel → Streams → Enclave or Host → Tools → Programs (Tests/lint checks
// that; docs/architecture.md says what a layer may touch).

/// For what other packages may import: SwiftPM takes no target with unsafe flags from a dependency.
let shared: [SwiftSetting] = [
  .treatAllWarnings(as: .error), .swiftLanguageMode(.v6), .enableUpcomingFeature("MemberImportVisibility"),
]

// MemberImportVisibility, because ArgumentParser imports Foundation: without it a `contains` or `range(of:)` anywhere above
// is silently Foundation's, which makes the static program 40 MB larger.
// _GNU_SOURCE, because libc's headers must look the same to every Clang module (Glibc's own, CLinux, CMnl): otherwise
// debug builds fail on types such as fd_set that have two definitions.
let strict: [SwiftSetting] = shared + [.unsafeFlags(["-Xcc", "-D_GNU_SOURCE"])]

/// For what no byte of data passes: a boot has to unpack and page in all of it.
let small: [SwiftSetting] = [.unsafeFlags(["-Osize"], .when(configuration: .release))]

/// The programs are fully static files that may be loaded anywhere, with nothing writable that only has to be relocated;
/// stripped. lld, because gold knows no --no-dynamic-linker; relocations packed, because there are 30,000 of 24 bytes.
/// Functions of the same code are one (240 KB): nothing here compares functions by their addresses.
/// No tables for unwinding (rootfs/no-unwinding.ld).
/// `Tests/binaries` reads the files back.
let staticLink: [LinkerSetting] = [
  .unsafeFlags(["-L/usr/local/lib"]),
  // Not in debug builds: without dead code stripped, ArgumentParser pulls all of Foundation and ICU in.
  .unsafeFlags(
    [
      "-static-executable", "-use-ld=lld", "-Xclang-linker", "--ld-path=\(Context.packageDirectory)/rootfs/ld",
      "-Xclang-linker", "-static-pie", "-Xlinker", "-s",
      "-Xlinker", "--pack-dyn-relocs=relr", "-Xlinker", "--icf=all",
      "-Xlinker", "-T", "-Xlinker", "\(Context.packageDirectory)/rootfs/no-unwinding.ld",
      "-Xlinker", "-z", "-Xlinker", "relro", "-Xlinker", "-z", "-Xlinker", "now",
      "-Xlinker", "-z", "-Xlinker", "noexecstack",
    ], .when(configuration: .release)),
]

/// For our own C: a stack that was overwritten, or a buffer of known size, ends the process. Not in debug builds:
/// _FORTIFY_SOURCE needs the optimiser.
let hardened = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"]
let hardenedC: [CSetting] = [.unsafeFlags(hardened, .when(configuration: .release))]
let hardenedCXX: [CXXSetting] = [.unsafeFlags(hardened + ["-fno-exceptions"], .when(configuration: .release))]

/// What the Foundation import of ArgumentParser needs and static linking does not find by itself.
let foundationEssentials: [LinkerSetting] = [
  .linkedLibrary("FoundationEssentials", .when(configuration: .release)),
  .linkedLibrary("_FoundationCollections", .when(configuration: .release)),
  .linkedLibrary("_FoundationCShims", .when(configuration: .release)),
  .linkedLibrary("swiftSynchronization", .when(configuration: .release)),
]

func library(_ path: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name(path), dependencies: dependencies, path: "Sources/\(path)", swiftSettings: shared)
}

func module(_ path: String, _ dependencies: [Target.Dependency] = [], forSize: Bool = false) -> Target {
  .target(
    name: name(path), dependencies: dependencies, path: "Sources/\(path)",
    swiftSettings: strict + (forSize ? small : []))
}

func tests(_ path: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(
    name: name(path), dependencies: dependencies, path: "Tests/\(path)", swiftSettings: strict,
    linkerSettings: [.unsafeFlags(["-L/usr/local/lib"])])
}

func name(_ path: String) -> String { String(path.split(separator: "/")[1]) }

let package = Package(
  name: "tombolo",
  products: [
    .executable(name: "tombolo-init", targets: ["tombolo-init"]),
    .executable(name: "tombolo", targets: ["tombolo"]),
    .executable(name: "tombolo-dns", targets: ["tombolo-dns"]),
    .executable(name: "tombolo-attest", targets: ["tombolo-attest"]),
    // What verifies an attestation document, for other programs.
    .library(name: "NitroAttestation", targets: ["NitroAttestation"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
    .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
  ],
  targets: [
    // C
    // Calls and constants that glibc's Swift module lacks; everything between fork and exec; what runs before Swift does.
    .target(name: "CLinux", path: "Sources/C/CLinux", cSettings: hardenedC),
    // libmnl, libcap and libmd.
    .systemLibrary(name: "CMnl", path: "Sources/C/CMnl"),
    .systemLibrary(name: "CCap", path: "Sources/C/CCap"),
    .systemLibrary(name: "CMd", path: "Sources/C/CMd"),
    .target(
      name: "CDecompress", path: "Sources/C/CDecompress", cSettings: hardenedC,
      linkerSettings: [.linkedLibrary("z"), .linkedLibrary("lzma"), .linkedLibrary("zstd")]),
    // toml++ comes from libtomlplusplus-dev: headers only.
    .target(name: "CToml", path: "Sources/C/CToml", cxxSettings: hardenedCXX),
    // libyaml's events.
    .target(
      name: "CYaml", path: "Sources/C/CYaml", cSettings: hardenedC, linkerSettings: [.linkedLibrary("yaml")]),
    // TLS clients over OpenSSL, and DNS over HTTPS over nghttp2: of `tombolo-dns` alone.
    .target(
      name: "CTLS", path: "Sources/C/CTLS", cSettings: hardenedC,
      linkerSettings: [.linkedLibrary("ssl"), .linkedLibrary("crypto")]),
    .target(
      name: "CHTTP2", path: "Sources/C/CHTTP2", cSettings: hardenedC, linkerSettings: [.linkedLibrary("nghttp2")]),
    // Key pairs over OpenSSL: of `tombolo-attest` alone.
    .target(
      name: "CKeys", path: "Sources/C/CKeys", cSettings: hardenedC, linkerSettings: [.linkedLibrary("crypto")]),

    // Pure
    // Addresses, endpoints, prefixes; what an address is for.
    module("Pure/Inet"),
    // Text that stands for any bytes: arguments, variables and file names that are not UTF-8.
    module("Pure/SystemText"),
    // The part of CBOR (RFC 8949) that Nitro Enclaves use.
    library("Pure/CBORCodec"),
    // Hello, answer, session, frames, log records.
    module("Pure/Wire", ["Inet"]),
    // Messages, resolv.conf.
    module("Pure/DNS", ["Inet"]),
    // The allowlist of AWS's vsock-proxy.
    module("Pure/Allowlist", ["CYaml", "Inet"]),
    // What may pass.
    module("Pure/Policy", ["Inet"]),
    // The formats of the log's lines, written and read; what makes foreign text harmless; how often a complaint is repeated.
    module("Pure/LogText", ["Inet", "Policy", "Wire"]),
    // What happens to queries and responses: policy, fixed answers, cache, addresses learned.
    module("Pure/NameService", ["DNS", "Inet", "Policy"]),
    // The first message of a TLS client.
    module("Pure/TLS", ["Inet"], forSize: true),
    // The life of an enclave's services as a state machine.
    module("Pure/Supervision", forSize: true),
    // What PID 1 hands to processes of its own, and what these say to each other.
    module("Pure/Roles", ["Policy"], forSize: true),
    // Mounts as their process carries them out: its document, what NFS's kernel client is told, a server's sign of life.
    module("Pure/Volumes", ["DNS", "EnclaveConfig", "Inet", "Roles"], forSize: true),
    // Which name server is asked what, and until when.
    module("Pure/Upstreams", ["DNS"], forSize: true),
    // Filters of system calls, as instructions.
    module("Pure/Seccomp", forSize: true),
    // HTTP/1.1 for a server of small answers; hexadecimal digits, base64, texts in JSON.
    module("Pure/HTTP", forSize: true),
    // What is said over /dev/nsm, and a security module in memory.
    module("Pure/SecurityModule", ["CBORCodec", "CMd"], forSize: true),
    // What clients of the attestation service ask for, and what they are answered.
    module("Pure/AttestationCalls", ["HTTP", "SecurityModule"], forSize: true),
    // The configuration, users and groups, units.
    module("Pure/EnclaveConfig", ["SystemText", "Inet", "Policy", "CToml"], forSize: true),
    // Rulesets as values; their bytes for nf_tables and for legacy xtables.
    module("Pure/Netfilter", ["Inet"], forSize: true),
    // A start as data: what is asked, the plan, its text.
    module("Pure/BootPlanning", ["EnclaveConfig", "Inet", "Netfilter", "Policy", "SystemText"], forSize: true),
    // What may be in a packet of raw mode.
    module("Pure/Packets", ["Inet", "Policy"]),
    // TCP mode: connections that wait for the host's answer, and the addresses that their packets get afterwards.
    module("Pure/HeldConnections", ["Inet", "Packets"]),
    // The first packets of QUIC's clients, and which datagrams go on.
    module("Pure/QUIC", ["CMd", "Inet", "TLS"], forSize: true),
    // Which flows may be open: by name, and by what a client asks its server for.
    module("Pure/Flows", ["Inet", "Packets", "Policy", "QUIC", "TLS"]),

    // Kernel
    // Owned descriptors, errors, files, mounts, processes, sockets; the only module that imports Glibc.
    module("Kernel/LinuxSystem", ["SystemText", "CLinux", "Inet"]),
    // epoll, timers, turns; looking before sleeping.
    module("Kernel/EventLoop", ["CLinux", "LinuxSystem"]),
    // Routes and nf_tables over libmnl; legacy xtables over setsockopt.
    module("Kernel/Netlink", ["CLinux", "CMnl", "Inet", "LinuxSystem", "Netfilter"], forSize: true),
    // Capability sets over libcap.
    module("Kernel/Capabilities", ["CCap", "CLinux", "LinuxSystem"], forSize: true),
    // SHA-384 over libmd.
    module("Kernel/Digests", ["CMd"]),

    // Streams
    // Relays, listeners, opening and serving streams, message streams.
    module("Streams/Relaying", ["CLinux", "Inet", "Wire", "LinuxSystem", "EventLoop"]),
    // Raw mode's data path: a TUN queue, or packet queues and raw sockets, joined to a stream or to shared memory.
    module(
      "Streams/PacketRelaying",
      ["CLinux", "Flows", "Inet", "Netlink", "Packets", "Policy", "Wire", "LinuxSystem", "EventLoop", "Relaying"]),
    // A device and a path in memory, for tests of the packet path without a kernel's device or a stream.
    module(
      "Streams/PacketTwins", ["CLinux", "Packets", "PacketRelaying", "LinuxSystem", "EventLoop"]),

    // Enclave
    // Mounts, and their ends.
    module(
      "Enclave/Mounting", ["CLinux", "DNS", "EnclaveConfig", "Inet", "LinuxSystem", "Volumes"], forSize: true),
    // Finds out what a start has to know, and carries out its plan's steps.
    module(
      "Enclave/Booting",
      [
        "CLinux", "SystemText", "EnclaveConfig", "Inet", "Wire", "LinuxSystem", "EventLoop", "BootPlanning",
        "Capabilities", "Digests", "Mounting", "Netfilter", "Netlink", "Policy", "Relaying", "Roles", "Proxying",
        "Volumes",
      ], forSize: true),
    // The proxy inside: egress, ingress, DNS.
    module(
      "Enclave/Proxying",
      [
        "CLinux", "Flows", "HeldConnections", "Inet", "Wire", "DNS", "NameService", "Policy", "Roles", "TLS",
        "LinuxSystem",
        "EventLoop", "Relaying", "PacketRelaying", "Packets",
      ]),
    // The enclave's end of the log.
    module("Enclave/LogForwarding", ["CLinux", "Wire", "LinuxSystem", "EventLoop", "Relaying"]),
    // PID 1's work: how each service is started, signals, readiness, the reaper.
    module(
      "Enclave/ServiceControl",
      [
        "CLinux", "BootPlanning", "EnclaveConfig", "Supervision", "Wire", "LinuxSystem", "EventLoop", "Capabilities",
        "LogForwarding", "Policy", "Proxying", "Relaying", "Roles", "Seccomp", "Volumes",
      ], forSize: true),
    // Asks name servers over TCP, TLS and HTTPS, on connections that the proxy makes.
    module(
      "Enclave/DNSClient",
      [
        "CTLS", "CHTTP2", "DNS", "Inet", "LogText", "Policy", "Roles", "Upstreams", "LinuxSystem", "EventLoop",
        "Relaying",
      ],
      forSize: true),

    // The attestation service: the security module over HTTP.
    module(
      "Enclave/Attesting",
      ["AttestationCalls", "CKeys", "HTTP", "Roles", "SecurityModule", "LinuxSystem", "EventLoop", "Relaying"],
      forSize: true),

    // Host
    // Raw mode on the host: its TUN device or its share of the host's ports, rules, settings, and their undoing.
    module(
      "Host/HostNetwork",
      [
        "CLinux", "Flows", "Inet", "Policy", "Wire", "Netfilter", "Netlink", "Packets", "LinuxSystem", "EventLoop",
        "PacketRelaying",
      ]),
    // What a host side keeps of its rights, and the process that does what needs more.
    module("Host/HostRights", ["CLinux", "LinuxSystem", "Capabilities", "Seccomp"]),
    // What a host side says of itself, and how it is asked.
    module("Host/HostStatus", ["CLinux", "LinuxSystem", "EventLoop", "Relaying"]),
    // The host side: sessions, connections, resolver, published ports, log sink.
    module(
      "Host/HostGateway",
      [
        "CLinux", "Inet", "Wire", "DNS", "NameService", "Policy", "LinuxSystem", "EventLoop", "Relaying", "HostNetwork",
        "HostStatus", "Netlink", "PacketRelaying", "Packets", "LogText", "HostRights", "Capabilities",
        "Seccomp",
      ]),

    // Tools
    // A local enclave, seen from outside.
    module(
      "Tools/LocalRunning",
      [
        "CLinux", "Inet", "Policy", "DNS", "BootPlanning", "EnclaveConfig", "Supervision", "LinuxSystem", "EventLoop",
        "Relaying", "HostGateway", "HostNetwork", "HostRights", "LogText",
      ]),
    // A vhost-user vsock device for QEMU.
    module("Tools/VhostVsock", ["CLinux", "LinuxSystem"]),
    // Trees and archives to initramfs and EIF.
    module(
      "Tools/Imaging",
      [
        "CBORCodec", "SystemText", "CDecompress", "CLinux", "EnclaveConfig", "LinuxSystem",
        .product(name: "Crypto", package: "swift-crypto"), .product(name: "SwiftASN1", package: "swift-asn1"),
      ]),
    // Attestation documents: what they say, and whether that is to be believed.
    library(
      "Tools/NitroAttestation",
      [
        "CBORCodec", .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "SwiftASN1", package: "swift-asn1"), .product(name: "X509", package: "swift-certificates"),
      ]),
    // An image in QEMU, seen from outside: the command line, the console, the vsock device's thread.
    module(
      "Tools/MachineRunning",
      [
        "CLinux", "Inet", "Policy", "BootPlanning", "LinuxSystem", "EventLoop", "Relaying", "HostGateway",
        "HostNetwork", "HostRights", "VhostVsock", "Imaging", "LogText",
      ]),

    // Programs: command lines, and which parts go together
    .executableTarget(
      name: "tombolo-init",
      dependencies: [
        "SystemText", "CLinux", "Inet", "Wire", "EnclaveConfig", "BootPlanning", "Supervision", "LinuxSystem",
        "EventLoop",
        "Digests", "Relaying", "Roles", "Seccomp", "PacketRelaying", "Proxying", "LogForwarding", "Booting",
        "ServiceControl", "Mounting", "Volumes",
        .product(name: "Logging", package: "swift-log"),
      ],
      path: "Sources/Programs/tombolo-init", swiftSettings: strict + small, linkerSettings: staticLink),
    .executableTarget(
      name: "tombolo-dns",
      dependencies: ["CLinux", "DNSClient", "LinuxSystem", "EventLoop", "Roles", "Seccomp", "Wire"],
      path: "Sources/Programs/tombolo-dns", swiftSettings: strict + small, linkerSettings: staticLink),
    .executableTarget(
      name: "tombolo-attest",
      dependencies: [
        "CLinux", "AttestationCalls", "Attesting", "LinuxSystem", "EventLoop", "Roles", "Seccomp", "Wire",
      ],
      path: "Sources/Programs/tombolo-attest", swiftSettings: strict + small, linkerSettings: staticLink),
    .executableTarget(
      name: "tombolo",
      dependencies: [
        "Allowlist",
        "SystemText", "CLinux", "DNS", "Inet", "Policy", "Wire", "EnclaveConfig", "BootPlanning", "LinuxSystem",
        "EventLoop",
        "Capabilities", "Relaying", "Digests", "HostGateway", "HostRights", "HostStatus", "HostNetwork", "LocalRunning",
        "MachineRunning", "Imaging", "NitroAttestation", "Roles", "SecurityModule",
        "Netlink", "Seccomp",
        "VhostVsock", "LogText",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "Sources/Programs/tombolo", swiftSettings: strict, linkerSettings: staticLink + foundationEssentials),

    // The engine of raw mode between two TUN devices and nothing else: Tests/bench compares it with others.
    .executableTarget(
      name: "tombolo-packet-bench",
      dependencies: ["CLinux", "Inet", "Packets", "PacketRelaying", "Wire", "LinuxSystem", "EventLoop", "Relaying"],
      path: "Tests/bench/PacketBench", swiftSettings: strict, linkerSettings: staticLink + foundationEssentials),

    // Tests
    tests("Programs/BootTests", ["VhostVsock", "CLinux", "LinuxSystem"]),
    tests("Tools/VhostVsockTests", ["VhostVsock", "CLinux", "LinuxSystem"]),
    tests("Programs/RawModeTests", []),
    tests("Host/HostNetworkTests", ["HostNetwork", "Netfilter", "Inet"]),
    tests("Pure/PacketsTests", ["Packets", "Policy", "Inet"]),
    tests("Pure/HeldConnectionsTests", ["HeldConnections", "Inet", "Packets"]),
    tests("Pure/QUICTests", ["QUIC", "Inet", .product(name: "Crypto", package: "swift-crypto")]),
    tests("Pure/FlowsTests", ["Flows", "Packets", "Policy", "QUIC", "Inet", "TLS"]),
    tests(
      "Streams/PacketRelayingTests",
      [
        "PacketRelaying", "PacketTwins", "Packets", "Policy", "CLinux", "EventLoop", "LinuxSystem", "Inet", "Netlink",
        "Netfilter", "Relaying", "Wire", "HostNetwork", "Proxying",
      ]),
    tests("Pure/InetTests", ["Inet"]),
    tests("Pure/SystemTextTests", ["SystemText"]),
    tests("Pure/PolicyTests", ["Policy", "Inet"]),
    tests("Pure/AllowlistTests", ["Allowlist", "Inet"]),
    tests("Pure/CBORCodecTests", ["CBORCodec"]),
    tests("Pure/HTTPTests", ["HTTP"]),
    tests("Pure/SecurityModuleTests", ["SecurityModule", "CBORCodec"]),
    tests("Pure/AttestationCallsTests", ["AttestationCalls", "HTTP", "SecurityModule"]),
    tests(
      "Enclave/AttestingTests",
      [
        "Attesting", "AttestationCalls", "CBORCodec", "HTTP", "Roles", "SecurityModule", "EventLoop", "LinuxSystem",
        "CLinux",
      ]),
    tests("Pure/WireTests", ["Wire", "Inet"]),
    tests("Pure/LogTextTests", ["LogText", "Inet", "Policy", "Wire"]),
    tests("Pure/DNSTests", ["DNS", "Inet"]),
    tests("Pure/UpstreamsTests", ["Upstreams", "Roles", "DNS"]),
    tests("Pure/VolumesTests", ["Volumes", "DNS", "EnclaveConfig", "Inet"]),
    tests("Pure/NameServiceTests", ["NameService", "DNS", "Policy", "Inet"]),
    tests("Pure/TLSTests", ["TLS", "Inet"]),
    tests("Pure/SupervisionTests", ["Supervision"]),
    tests("Pure/EnclaveConfigTests", ["EnclaveConfig", "Inet", "Policy"]),
    tests("Pure/BootPlanningTests", ["BootPlanning", "EnclaveConfig"]),
    tests(
      "Host/HostGatewayTests",
      [
        "HostGateway", "CLinux", "DNS", "EventLoop", "HostStatus", "Inet", "LinuxSystem", "LogText", "Policy",
        "Relaying", "Wire",
      ]),
    tests("Pure/SeccompTests", ["Seccomp"]),
    tests("Enclave/RolesTests", ["Roles", "Proxying", "Policy", "Inet", "LinuxSystem", "Relaying", "Wire"]),
    tests(
      "Enclave/ProxyingTests",
      [
        "Proxying", "CLinux", "DNS", "EventLoop", "Inet", "LinuxSystem", "NameService", "PacketRelaying", "Policy",
        "Relaying", "Wire",
      ]),
    tests(
      "Enclave/BootingTests",
      [
        "Booting", "BootPlanning", "CLinux", "Digests", "EnclaveConfig", "EventLoop", "Inet", "LinuxSystem", "Proxying",
        "Relaying", "Wire",
      ]),
    tests(
      "Enclave/ServiceControlTests",
      [
        "ServiceControl", "BootPlanning", "CLinux", "EnclaveConfig", "EventLoop", "Inet", "LinuxSystem", "Proxying",
        "Relaying", "Supervision", "Wire",
      ]),
    tests("Host/HostStatusTests", ["HostStatus", "CLinux", "EventLoop", "LinuxSystem"]),
    tests("Kernel/CapabilitiesTests", ["Capabilities", "BootPlanning", "LinuxSystem"]),
    tests("Tools/MachineRunningTests", ["MachineRunning", "LinuxSystem"]),
    tests(
      "Tools/NitroAttestationTests",
      [
        "NitroAttestation", "CBORCodec", .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "SwiftASN1", package: "swift-asn1"), .product(name: "X509", package: "swift-certificates"),
      ]),
    tests("Tools/LocalRunningTests", ["LocalRunning", "BootPlanning", "LinuxSystem"]),
    tests("Streams/RelayingTests", ["Relaying", "EventLoop", "LinuxSystem", "CLinux", "Inet", "Wire"]),
    tests("Enclave/LogForwardingTests", ["LogForwarding", "Relaying", "EventLoop", "LinuxSystem", "Wire"]),
    tests("Programs/EndToEndTests", []),
    tests("Programs/DifferencesTests", []),
    tests("Pure/NetfilterTests", ["Netfilter", "Inet"]),
    tests("Kernel/NetlinkTests", ["Netlink", "Netfilter", "CLinux", "Inet"]),
    tests(
      "Tools/ImagingTests",
      ["CDecompress", "Imaging", "CLinux", "LinuxSystem", .product(name: "Crypto", package: "swift-crypto")]),
    tests(
      "Kernel/NetworkNamespaceTests",
      ["Netlink", "Netfilter", "CLinux", "LinuxSystem", "EventLoop", "Relaying", "Wire", "Inet"]),
  ],
  cxxLanguageStandard: .cxx17
)

// Tests/fuzz: every module with coverage counters, and one program that has all harnesses. Only when it asks, so that nothing
// else is built another way.
if Context.environment["TOMBOLO_FUZZ"] != nil {
  for target in package.targets where target.type == .regular {
    if target.swiftSettings == nil {
      target.cSettings = (target.cSettings ?? []) + [.unsafeFlags(["-fsanitize=fuzzer-no-link"])]
      target.cxxSettings = (target.cxxSettings ?? []) + [.unsafeFlags(["-fsanitize=fuzzer-no-link"])]
    } else {
      target.swiftSettings?.append(.unsafeFlags(["-sanitize=fuzzer"]))
    }
  }
  package.targets.append(
    .executableTarget(
      name: "tombolo-fuzz",
      dependencies: package.targets.filter { $0.type == .regular }.map { .byName(name: $0.name) },
      path: "Tests/fuzz/Sources", swiftSettings: strict,
      linkerSettings: [.unsafeFlags(["-L/usr/local/lib"]), .linkedLibrary("stdc++")]))
}

// Tests/fuzz/sanitizers: what it runs, and nothing that takes minutes to build.
if Context.environment["TOMBOLO_SANITIZE"] != nil {
  var wanted = package.targets.filter { target in
    let path = target.path ?? ""
    return target.type == .test
      && (path.hasPrefix("Tests/Pure/") || path.hasPrefix("Tests/Streams/")
        || ["LogForwardingTests", "VhostVsockTests"].contains(target.name))
  }
  var index = 0
  while index < wanted.count {
    let names = wanted[index].dependencies.compactMap { if case .byNameItem(let name, _) = $0 { name } else { nil } }
    for name in names where !wanted.contains(where: { $0.name == name }) {
      wanted += package.targets.filter { $0.name == name }
    }
    index += 1
  }
  package.targets = wanted
  package.products = []
}
