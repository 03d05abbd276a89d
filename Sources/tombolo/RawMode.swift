import ArgumentParser
import EnclaveConfig
import HostGateway
import HostNetwork
import Inet
import LinuxSystem
import Netlink

extension Configuration.Firewall: ExpressibleByArgument {}

/// Raw mode on the command line.
enum RawMode {
  /// The usual ranges, and the very addresses that an operator has written into the configuration.
  static func ranges(_ raw: RawNetwork) -> [IPPrefix] {
    HostTunnel.defaultRanges + [raw.address, raw.address6]
  }

  static func tunnel(
    _ published: [PublishedPort], _ ranges: [IPPrefix], _ firewall: Configuration.Firewall
  ) throws -> HostTunnel {
    let backend: PacketFilter? =
      switch firewall {
      case .auto: nil
      case .nftables: .nfTables
      case .xtables: .xtables
      }
    return try HostTunnel(
      ranges: ranges, published: published.map { Publication(listen: $0.listen, port: $0.enclavePort) },
      firewall: backend
    ) { sentence in
      _ = try? writeAll(2, Array("tombolo: \(sentence)\n".utf8))
    }
  }

  /// Gives a local enclave addresses of its own, unless its configuration has others than the default, and makes the
  /// host's side ready.
  /// - Returns: what the enclave's configuration must say.
  static func configure(_ tunnel: HostTunnel, _ configuration: inout Configuration) throws -> String {
    if let suggested = tunnel.suggestedAddresses {
      if configuration.raw.address == RawNetwork.defaultAddress { configuration.raw.address = suggested.v4 }
      if configuration.raw.address6 == RawNetwork.defaultAddress6 { configuration.raw.address6 = suggested.v6 }
    }
    let raw = configuration.raw
    let queues = raw.queueCount(processors: processorCount())
    try tunnel.configure(
      .init(
        address4: raw.address, address6: raw.address6, mtu: UInt16(clamping: raw.mtu), queues: UInt8(clamping: queues)))
    return """
      [network]
      mode = "raw"
      address = "\(raw.address)"
      address6 = "\(raw.address6)"
      queues = \(queues)

      """
  }
}

/// What the commands that wait for an enclave, instead of making one, say of raw mode.
struct RawOptions: ParsableArguments {
  @Flag(help: "Let an enclave in raw mode into this machine's network; needs root.")
  var raw = false
  @Option(
    help: ArgumentHelp(
      "With --raw, a range in which the enclave's address may be, besides the usual ones.", valueName: "prefix"))
  var rawRange: [String] = []
  @Option(help: ArgumentHelp("With --raw, what its rules are made with: auto, nftables or xtables.", valueName: "kind"))
  var rawFirewall = Configuration.Firewall.auto

  /// nil without --raw.
  func tunnel(_ published: [PublishedPort]) throws -> HostTunnel? {
    let ranges = try rawRange.map { text in
      guard let prefix = IPPrefix(text) else {
        throw Misuse("--raw-range: found \"\(text)\", expected a prefix such as 10.0.0.0/8")
      }
      return prefix
    }
    guard raw else {
      if !ranges.isEmpty { throw Misuse("--raw-range: expected --raw with it") }
      if rawFirewall != .auto { throw Misuse("--raw-firewall: expected --raw with it") }
      return nil
    }
    return try RawMode.tunnel(published, HostTunnel.defaultRanges + ranges, rawFirewall)
  }
}
