import Inet

/// Networks for the links of enclaves, numbered: 10.118.0.0/30, 10.118.0.4/30 and so on; fd74:6f6d:626f::/64,
/// fd74:6f6d:626f:1::/64 and so on. An enclave has the second address of its network.
enum FreeNetwork {
  /// How many networks of each family there are.
  static let count4: UInt32 = 1 << UInt32(AgreedAddresses.linkLength4 - AgreedAddresses.links4.length)
  static let count6: UInt32 = 1 << UInt32(AgreedAddresses.linkLength6 - AgreedAddresses.links6.length)

  /// The first network from `number` on in which this machine has no address and no route.
  /// - Parameter taken: the machine's addresses with their networks, and the destinations of its routes.
  static func first4(from number: UInt32, taken: [IPPrefix]) -> IPPrefix? {
    first(number, count4, AgreedAddresses.link4, taken)
  }

  /// The same for IPv6.
  static func first6(from number: UInt32, taken: [IPPrefix]) -> IPPrefix? {
    first(number, count6, AgreedAddresses.link6, taken)
  }

  private static func first(
    _ number: UInt32, _ count: UInt32, _ network: (UInt32) -> IPPrefix, _ taken: [IPPrefix]
  ) -> IPPrefix? {
    for step in 0..<count {
      let candidate = network(number &+ step)
      if conflict(candidate, taken) == nil { return candidate }
    }
    return nil
  }

  /// The first of `taken` that has addresses of that network.
  ///
  /// A network that is wider than /16, of IPv6 /48, and has the wanted one in it, such as the 10.0.0.0/8 of a company, does
  /// not count: any private address would be taken then. An address of the machine itself does, wherever it is: it is a
  /// route of its own.
  static func conflict(_ wanted: IPPrefix, _ taken: [IPPrefix]) -> IPPrefix? {
    let bytes = wanted.address.bytes.count
    let widest = bytes == 4 ? 16 : 48
    return taken.first { other in
      guard other.address.bytes.count == bytes else { return false }
      if other.length >= wanted.length { return wanted.contains(other.address) }
      return other.length > widest && other.contains(wanted.address)
    }
  }
}
