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
    _ published: [PublishedPort], _ ranges: [IPPrefix], _ firewall: Configuration.Firewall, mtu: UInt16? = nil
  ) throws -> HostTunnel {
    let backend: PacketFilter? =
      switch firewall {
      case .auto: nil
      case .nftables: .nfTables
      case .xtables: .xtables
      }
    return try HostTunnel(
      ranges: ranges, published: published.map { Publication(listen: $0.listen, port: $0.enclavePort) },
      firewall: backend, mtu: mtu
    ) { sentence in
      _ = try? writeAll(2, Array("tombolo: \(sentence)\n".utf8))
    }
  }

  /// Gives a local enclave addresses of its own, unless its configuration has others than the default, and makes the
  /// host's side ready.
  /// - Returns: what the enclave's configuration must say.
  static func configure(_ tunnel: HostTunnel, _ configuration: inout Configuration) throws -> String {
    var raw = configuration.raw
    if let suggested = tunnel.suggestedAddresses {
      if raw.asksForAddress || raw.address == RawNetwork.defaultAddress { raw.address = suggested.v4 }
      if raw.asksForAddress6 || raw.address6 == RawNetwork.defaultAddress6 { raw.address6 = suggested.v6 }
    }
    configuration.raw = raw
    let queues = raw.queueCount(processors: processorCount())
    try tunnel.configure(
      .init(
        address4: raw.address, address6: raw.address6, mtu: UInt16(clamping: raw.mtu), queues: UInt8(clamping: queues)))
    return """
      [network]
      mode = "raw"
      address = "\(raw.asksForAddress ? "host" : raw.address.description)"
      address6 = "\(raw.asksForAddress6 ? "host" : raw.address6.description)"
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

  @Option(
    help: ArgumentHelp(
      "With --raw, the MTU of an enclave that asks for its addresses: 1280 to 65535; its own if that is smaller.",
      valueName: "bytes"))
  var rawMtu: Int?

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
      if rawMtu != nil { throw Misuse("--raw-mtu: expected --raw with it") }
      if rawFirewall != .auto { throw Misuse("--raw-firewall: expected --raw with it") }
      return nil
    }
    let mtu = try rawMtu.map { number in
      guard let mtu = UInt16(exactly: number), mtu >= 1280 else {
        throw Misuse("--raw-mtu: found \(number), expected 1280 to 65535")
      }
      return mtu
    }
    return try RawMode.tunnel(published, HostTunnel.defaultRanges + ranges, rawFirewall, mtu: mtu)
  }
}
