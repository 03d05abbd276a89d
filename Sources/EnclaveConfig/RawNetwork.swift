import Inet

/// The enclave's interface in raw mode.
public struct RawNetwork: Equatable, Sendable {
  /// The enclave's own addresses, each with its link's prefix.
  public var address = defaultAddress
  public var address6 = defaultAddress6
  /// In bytes; what a path to the internet carries whole. Segmentation offload makes larger ones useless in bulk.
  public var mtu = 1500
  /// Of the TUN device, one stream each; nil: one per CPU, at most 4.
  public var queues: Int?

  /// Private addresses (RFC 1918, RFC 4193) that nothing else is known to use.
  public static let defaultAddress = prefix(.v4(IPv4Address(10, 118, 0, 2)), 30)
  public static let defaultAddress6 = prefix(.v6(IPv6Address(high: 0xfd74_6f6d_626f_0000, low: 2)), 64)

  public init() {}

  /// How many queues to open on a machine of that many CPUs.
  public func queueCount(processors: Int) -> Int { queues ?? max(1, min(4, processors)) }

  mutating func read(_ table: inout TableReader) throws(ConfigurationError) {
    address =
      try table.value("address", "an IPv4 address and its prefix's length such as \"10.118.0.2/30\"") { text in
        Self.hostPrefix(text).flatMap { if case .v4 = $0.address { $0 } else { nil } }
      } ?? address
    address6 =
      try table.value("address6", "an IPv6 address and its prefix's length such as \"fd74:6f6d:626f::2/64\"") { text in
        Self.hostPrefix(text).flatMap { if case .v6 = $0.address { $0 } else { nil } }
      } ?? address6
    mtu = try table.integer("mtu", in: 1280...65535) ?? mtu
    queues = try table.integer("queues", in: 1...64) ?? queues
  }

  /// With room for the host's address beside the enclave's.
  private static func hostPrefix(_ text: String) -> IPPrefix? {
    guard let prefix = IPPrefix(text), !prefix.address.isLoopback, prefix.length >= 8 else { return nil }
    return Int(prefix.length) <= prefix.address.bytes.count * 8 - 2 ? prefix : nil
  }

  private static func prefix(_ address: IPAddress, _ length: UInt8) -> IPPrefix {
    guard let prefix = IPPrefix(address, length) else { preconditionFailure("\(length) bits of \(address)") }
    return prefix
  }
}
