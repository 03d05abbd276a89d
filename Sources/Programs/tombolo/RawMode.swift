import ArgumentParser
import EnclaveConfig
import HostGateway
import HostNetwork
import Inet
import LinuxSystem
import Netlink

extension Configuration.Firewall: ExpressibleByArgument {}
extension RawNetwork.Capture: ExpressibleByArgument {}

/// Raw mode on the command line.
enum RawMode {
  /// The usual ranges, and the very addresses that an operator has written into the configuration.
  static func ranges(_ raw: RawNetwork) -> [IPPrefix] {
    HostTunnel.defaultRanges + [raw.address, raw.address6]
  }

  static func rawGateway(
    _ published: [PublishedPort], _ ranges: [IPPrefix], _ firewall: Configuration.Firewall, mtu: UInt16? = nil,
    hostPorts: PortRanges, isQuiet: Bool
  ) throws -> HostTunnel {
    try HostTunnel(
      ranges: ranges, published: published.map { Publication($0) }, firewall: backend(firewall), mtu: mtu,
      hostPorts: hostPorts, log: { say($0) }, note: { if !isQuiet { say($0) } })
  }

  private static func backend(_ firewall: Configuration.Firewall) -> PacketFilter? {
    switch firewall {
    case .auto: nil
    case .nftables: .nfTables
    case .xtables: .xtables
    }
  }

  static func sharedAddressGateway(
    _ published: [PublishedPort], _ configuration: Configuration, isQuiet: Bool
  ) throws -> SharedAddressGateway {
    let raw = configuration.raw
    let asks = raw.asksForAddress || raw.address == RawNetwork.defaultAddress
    return try sharedAddressGateway(
      published, raw.sharedPorts, sharing: asks ? nil : raw.address.address, configuration.firewall, isQuiet: isQuiet)
  }

  static func sharedAddressGateway(
    _ published: [PublishedPort], _ ports: PortRanges, sharing address: IPAddress?, _ firewall: Configuration.Firewall,
    isQuiet: Bool
  ) throws -> SharedAddressGateway {
    try SharedAddressGateway(
      ports: ports, sharing: address, published: published.map { Publication($0) }, firewall: backend(firewall),
      log: { say($0) }, note: { if !isQuiet { say($0) } })
  }

  /// Gives a local enclave this machine's own addresses, and makes the host's side ready.
  /// - Returns: what the enclave's configuration must say.
  static func configure(_ rawGateway: SharedAddressGateway, _ configuration: inout Configuration) throws -> String {
    let raw = configuration.raw
    guard let v4 = rawGateway.addresses.v4 else {
      throw Misuse("capture = \"nfqueue\": \(rawGateway.link) has no IPv4 address to share")
    }
    let v6 = raw.lacksIPv6 ? nil : rawGateway.addresses.v6
    let queues = min(raw.queueCount(processors: processorCount()), RawNetwork.captureQueueLimit)
    let mtu = min(raw.mtu, Int(rawGateway.linkMTU))
    try rawGateway.configure(
      .init(
        address4: IPPrefix(v4.address, 32), address6: v6.flatMap { IPPrefix($0.address, 128) },
        mtu: UInt16(clamping: mtu), queues: UInt8(clamping: queues)))
    let ports = raw.sharedPorts.ranges.map { "\"\($0.lowerBound)-\($0.upperBound)\"" }.joined(separator: ", ")
    return """
      [network]
      mode = "raw"
      capture = "nfqueue"
      shared_ports = [\(ports)]
      address = "\(v4.address)"
      address6 = "\(v6?.address.description ?? "none")"
      mtu = \(mtu)
      queues = \(queues)

      """
  }

  /// Gives a local enclave addresses of its own, unless its configuration has others than the default, and makes the
  /// host's side ready.
  /// - Returns: what the enclave's configuration must say.
  static func configure(_ rawGateway: HostTunnel, _ configuration: inout Configuration) throws -> String {
    var raw = configuration.raw
    let chooses4 = raw.asksForAddress || raw.address == RawNetwork.defaultAddress
    let chooses6 = raw.asksForAddress6 || raw.address6 == RawNetwork.defaultAddress6
    if chooses4 || chooses6 {
      let chosen = try rawGateway.chooseAddresses()
      if chooses4, let address = chosen.v4 { raw.address = address }
      if chooses6, let address = chosen.v6 { raw.address6 = address }
    }
    configuration.raw = raw
    let queues = raw.queueCount(processors: processorCount())
    try rawGateway.configure(
      .init(
        address4: raw.address, address6: raw.lacksIPv6 ? nil : raw.address6, mtu: UInt16(clamping: raw.mtu),
        queues: UInt8(clamping: queues)))
    return """
      [network]
      mode = "raw"
      address = "\(raw.asksForAddress ? "host" : raw.address.description)"
      address6 = "\(raw.lacksIPv6 ? "none" : raw.asksForAddress6 ? "host" : raw.address6.description)"
      queues = \(queues)

      """
  }
}

extension Publication {
  fileprivate init(_ port: PublishedPort) {
    self.init(listen: port.listen, port: port.enclavePort, transport: port.transport)
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
      "With --raw, tun (the enclave has an address of its own) or nfqueue (this machine's, and some of its ports).",
      valueName: "way"))
  var rawCapture = RawNetwork.Capture.tun
  @Option(
    help: ArgumentHelp(
      "With --raw-capture nfqueue, the enclave's ports, as in its network.shared_ports (default: 80,443,1024-61439).",
      valueName: "ports"))
  var rawPorts: String?
  @Option(
    help: ArgumentHelp(
      "With --raw-capture nfqueue, the address to share (default: that of the link of the default route).",
      valueName: "address"))
  var rawAddress: String?

  @Option(
    help: ArgumentHelp(
      "With --raw, the MTU of an enclave that asks for its addresses: 1280 to 65535; its own if that is smaller.",
      valueName: "bytes"))
  var rawMtu: Int?

  /// nil without --raw.
  /// - Parameter isQuiet: says only what somebody needs to act on.
  func rawGateway(
    _ published: [PublishedPort], _ gateway: GatewayOptions, isQuiet: Bool = false
  ) throws -> (any RawGateway)? {
    let ranges = try rawRange.map { text in
      guard let prefix = IPPrefix(text) else {
        throw Misuse("--raw-range: found \"\(text)\", expected a prefix such as 10.0.0.0/8")
      }
      return prefix
    }
    guard raw else {
      if !ranges.isEmpty { throw Misuse("--raw-range: expected --raw with it") }
      if rawMtu != nil { throw Misuse("--raw-mtu: expected --raw with it") }
      if rawCapture != .tun { throw Misuse("--raw-capture: expected --raw with it") }
      if rawFirewall != .auto { throw Misuse("--raw-firewall: expected --raw with it") }
      return nil
    }
    let mtu = try rawMtu.map { number in
      guard let mtu = UInt16(exactly: number), mtu >= 1280 else {
        throw Misuse("--raw-mtu: found \(number), expected 1280 to 65535")
      }
      return mtu
    }
    if rawCapture == .nfqueue {
      if !ranges.isEmpty { throw Misuse("--raw-range: the enclave has this machine's address with nfqueue") }
      if mtu != nil { throw Misuse("--raw-mtu: with nfqueue it is that of the link that has the address") }
      try gateway.refuseHostPorts()
      return try RawMode.sharedAddressGateway(
        published, sharedPorts(), sharing: sharedAddress(), rawFirewall, isQuiet: isQuiet)
    }
    for (option, given) in [("--raw-ports", rawPorts), ("--raw-address", rawAddress)] where given != nil {
      throw Misuse("\(option): expected --raw-capture nfqueue with it")
    }
    return try RawMode.rawGateway(
      published, HostTunnel.defaultRanges + ranges, rawFirewall, mtu: mtu, hostPorts: gateway.hostPorts(),
      isQuiet: isQuiet)
  }

  private func sharedPorts() throws -> PortRanges {
    guard let rawPorts else { return RawNetwork.defaultSharedPorts }
    let ranges = try rawPorts.split(separator: ",").map { text in
      guard let range = PortRanges.range(text) else {
        throw Misuse("--raw-ports: found \"\(text)\", expected ports such as 80,443,1024-61439")
      }
      return range
    }
    let ports = PortRanges(ranges)
    if let reason = RawNetwork.defect(ofSharedPorts: ports) {
      throw Misuse("--raw-ports: found \"\(rawPorts)\", \(reason)")
    }
    return ports
  }

  private func sharedAddress() throws -> IPAddress? {
    try rawAddress.map { text in
      guard let address = IPAddress(text) else {
        throw Misuse("--raw-address: found \"\(text)\", expected an IP address")
      }
      return address
    }
  }
}
