import Inet

/// The enclave's interface in raw mode.
public struct RawNetwork: Equatable, Sendable {
  /// The enclave's own addresses, each with its link's prefix; without meaning as long as it is to be asked for.
  public var address = defaultAddress
  public var address6 = defaultAddress6
  /// Whether the host gives the address: `"host"` in the configuration. False again when it has.
  public var asksForAddress = false
  public var asksForAddress6 = false
  /// The networks in which an address from the host may be, with the whole of its own network.
  public var allowed = defaultAllowed
  /// In bytes; what a path to the internet carries whole. Segmentation offload makes larger ones useless in bulk.
  public var mtu = 1500
  /// Of the TUN device, one stream each; nil: one per CPU, at most 4.
  public var queues: Int?
  /// How packets get to us.
  public var capture = Capture.tun
  /// With `nfqueue`, the ports of the host's address that are the enclave's.
  public var sharedPorts = defaultSharedPorts
  /// There is no IPv6 address: `"none"` in the configuration, or what a host with `nfqueue` said.
  public var lacksIPv6 = false

  public enum Capture: String, CaseIterable, Sendable {
    /// A TUN device with an address of its own.
    case tun
    /// nfnetlink_queue, with the host's own address.
    case nfqueue
  }

  /// What the host keeps: 1 to 1023 but for the web's two, and 61440 to 65535 for its own connections.
  public static let defaultSharedPorts = PortRanges([80...80, 443...443, 1024...61439])
  /// Each takes several descriptors of the proxy.
  public static let captureQueueLimit = 16

  public static let defaultAddress = AgreedAddresses.link4(0)
  public static let defaultAddress6 = AgreedAddresses.link6(0)
  public static let defaultAllowed = AgreedAddresses.links
  private static let smallestMTU = 1280

  public init() {}

  /// For a sentence: `10.118.0.2/30, fd74:6f6d:626f::2/64`.
  public var givenAddresses: String { "\(address)" + (lacksIPv6 ? "" : ", \(address6)") }

  public var asksHost: Bool { asksForAddress || asksForAddress6 }

  /// How many queues to open on a machine of that many CPUs.
  public func queueCount(processors: Int) -> Int { queues ?? max(1, min(4, processors)) }

  mutating func read(_ table: inout TableReader) throws(ConfigurationError) {
    capture =
      try table.value("capture", Capture.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: " or ")) {
        Capture(rawValue: $0)
      } ?? capture
    try readSharedPorts(&table)
    // The host alone knows the address that is to be shared.
    if capture == .nfqueue {
      if address == Self.defaultAddress { asksForAddress = true }
      if address6 == Self.defaultAddress6, !lacksIPv6 { asksForAddress6 = true }
    }
    if let given = try table.value(
      "address", "\"host\", or an IPv4 address and its prefix's length such as \"10.118.0.2/30\"",
      { text in given(text) { if case .v4 = $0.address { $0 } else { nil } } })
    {
      asksForAddress = given == .fromHost
      if case .fixed(let prefix) = given { address = prefix }
    }
    if let given = try table.value(
      "address6", "\"host\", \"none\", or an IPv6 address and its prefix's length such as \"fd74:6f6d:626f::2/64\"",
      { text in text == "none" ? .absent : given(text) { if case .v6 = $0.address { $0 } else { nil } } })
    {
      asksForAddress6 = given == .fromHost
      lacksIPv6 = given == .absent
      if case .fixed(let prefix) = given { address6 = prefix }
    }
    if let texts = try table.strings("allowed") {
      allowed = []
      for text in texts {
        guard let prefix = IPPrefix(text) else {
          throw table.error("allowed", "found \"\(text)\", expected networks such as \"10.118.0.0/16\"")
        }
        allowed.append(prefix)
      }
      for (asks, key, family, bytes) in [
        (asksForAddress, "address", "IPv4", 4), (asksForAddress6, "address6", "IPv6", 16),
      ] where asks && !allowed.contains(where: { $0.address.bytes.count == bytes }) {
        throw table.error("allowed", "found no \(family) network, expected one because of network.\(key) = \"host\"")
      }
    }
    mtu = try table.integer("mtu", in: Self.smallestMTU...65535) ?? mtu
    queues = try table.integer("queues", in: 1...(capture == .nfqueue ? Self.captureQueueLimit : 64)) ?? queues
  }

  private mutating func readSharedPorts(_ table: inout TableReader) throws(ConfigurationError) {
    guard let texts = try table.strings("shared_ports") else { return }
    guard capture == .nfqueue else {
      throw table.error("shared_ports", "only with capture = \"nfqueue\", where the enclave has the host's own address")
    }
    var ranges: [ClosedRange<UInt16>] = []
    for text in texts {
      guard let range = PortRanges.range(text) else {
        throw table.error("shared_ports", "found \"\(text)\", expected ports such as \"443\" or \"1024-61439\"")
      }
      ranges.append(range)
    }
    let ports = PortRanges(ranges)
    if let reason = Self.defect(ofSharedPorts: ports) {
      throw table.error("shared_ports", "found \(ports.description.isEmpty ? "nothing" : ports.description), \(reason)")
    }
    sharedPorts = ports
  }

  /// Why neither side could open connections of its own with these ports; nil where both can.
  public static func defect(ofSharedPorts ports: PortRanges) -> String? {
    let smallest = 256
    guard ports.widest?.count ?? 0 >= smallest else {
      return "expected a range of at least \(smallest), for the enclave's own connections"
    }
    return ports.rest.widest?.count ?? 0 >= smallest
      ? nil : "expected a range of at least \(smallest) from 1024 on left out, for the host's own connections"
  }

  private enum Given: Equatable {
    case absent
    case fromHost
    case fixed(IPPrefix)
  }

  private func given(_ text: String, _ ofFamily: (IPPrefix) -> IPPrefix?) -> Given? {
    if text == "host" { return .fromHost }
    if capture == .nfqueue {
      // No link, no prefix; one that is written all the same does no harm.
      let address = IPPrefix(text)?.address ?? IPAddress(text)
      guard let address, address.canBeOwn else { return nil }
      return IPPrefix(address, UInt8(address.bytes.count * 8)).flatMap(ofFamily).map { .fixed($0) }
    }
    guard let prefix = IPPrefix(text), !prefix.address.isLoopback, Self.isLinkLength(prefix) else { return nil }
    return ofFamily(prefix).map { .fixed($0) }
  }

  /// With room for the host's address beside the enclave's.
  private static func isLinkLength(_ prefix: IPPrefix) -> Bool {
    prefix.length >= 8 && Int(prefix.length) <= prefix.address.bytes.count * 8 - 2
  }

  // MARK: from the host

  /// What the host gave cannot be used.
  public struct OfferError: Error, Equatable, Sendable, CustomStringConvertible {
    public var description: String
  }

  /// Takes over what the host gave where it was asked for, after checking all of it; the host is not trusted. What was not
  /// asked for is not looked at.
  /// - Parameter mtu: in bytes; 0 where the host has no wish, never more than our own.
  public mutating func take(address4: IPPrefix?, address6: IPPrefix?, mtu offered: UInt16) throws(OfferError) {
    var taken = self
    if asksForAddress {
      taken.address = try checked(address4, "IPv4", "address")
      taken.asksForAddress = false
    }
    if asksForAddress6, capture == .nfqueue, address6 == nil {
      taken.lacksIPv6 = true
      taken.asksForAddress6 = false
    } else if asksForAddress6 {
      taken.address6 = try checked(address6, "IPv6", "address6")
      taken.asksForAddress6 = false
    }
    if offered != 0 {
      guard (Self.smallestMTU...mtu).contains(Int(offered)) else {
        throw OfferError(
          description: "the host gave an MTU of \(offered), expected \(Self.smallestMTU) to \(mtu) (network.mtu)")
      }
      taken.mtu = Int(offered)
    }
    self = taken
  }

  private func checked(_ offer: IPPrefix?, _ family: String, _ key: String) throws(OfferError) -> IPPrefix {
    guard let offer else {
      throw OfferError(description: "the host gave no \(family) address (network.\(key) = \"host\")")
    }
    func refuse(_ reason: String) -> OfferError {
      OfferError(description: "the host gave the address \(offer), \(reason)")
    }
    if capture == .nfqueue, allowed == Self.defaultAllowed {
      // The host's own address, wherever that is.
      guard offer.address.canBeOwn else { throw refuse("which no machine can have as its own") }
      return offer
    }
    guard capture == .nfqueue || Self.isLinkLength(offer) else {
      throw refuse("whose prefix is no link's: 8 to 30 bits, of IPv6 8 to 126")
    }
    guard offer.address.canBeOwn else { throw refuse("which no machine can have as its own") }
    guard capture == .nfqueue || Self.isHost(offer) else {
      throw refuse("which is its network's own address or its broadcast address")
    }
    guard allowed.contains(where: { $0.contains(offer.address) && (capture == .nfqueue || $0.length <= offer.length) })
    else {
      let ranges = allowed.map(\.description).joined(separator: ", ")
      throw refuse("which is outside what the image allows (network.allowed): \(ranges)")
    }
    return offer
  }

  /// Neither all zeros nor, in IPv4, all ones behind the prefix.
  private static func isHost(_ prefix: IPPrefix) -> Bool {
    var isZero = true
    var isOnes = true
    for (index, byte) in prefix.address.bytes.enumerated() {
      let kept = min(max(Int(prefix.length) - index * 8, 0), 8)
      let mask = UInt8(truncatingIfNeeded: 0xff >> kept)
      if byte & mask != 0 { isZero = false }
      if byte & mask != mask { isOnes = false }
    }
    if case .v6 = prefix.address { return !isZero }
    return !isZero && !isOnes
  }
}
