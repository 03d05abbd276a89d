/// Addresses on which the enclave's side and the host's agree without asking each other. They are written nowhere else.
public enum AgreedAddresses {
  /// The name server that enclaves have unless they were given another. Any address that is not loopback would do in TCP
  /// mode, since port 53 of all of them leads to the forwarder; this one is link-local (RFC 3927), so that nobody takes it
  /// for a server of theirs. With an interface of its own the enclave finds the host's server at it, on every link.
  public static let nameServer = IPv4Address(169, 254, 53, 53)

  /// The IPv6 address besides ::1 that an enclave in TCP mode has on `lo`: a unique local one (RFC 4193) that nobody else
  /// can reach. The middle of it spells "Tombo".
  public static let loopback6 = IPv6Address(high: 0xfd54_6f6d_626f_0000, low: 1)

  /// The addresses of an enclave's interface in TCP mode. Nobody else can have 192.0.0.0/29: it is for hosts that have no IPv4
  /// address of their own and reach IPv4 through a translator (RFC 7335). The IPv6 one is unique local. So programs that sort a
  /// name's addresses (RFC 6724) do what they do on a machine with private addresses: those of IPv6 that are unique local come
  /// first, then IPv4, then the rest of IPv6 (rule 5, its label is another one).
  public static let packets4 = IPPrefix(.v4(IPv4Address(192, 0, 0, 2)), clamping: 29)
  public static let packets6 = IPPrefix(.v6(IPv6Address(high: first6OfLink, low: 2)), clamping: 64)

  /// Where connections are accepted before the host has connected (`network.connect = "early"`, `egress.sni`), the IPv6 one is
  /// what 6to4 made of the other (RFC 3056), which nobody can have either. Programs then try IPv4 before all of IPv6, because no
  /// destination has 6to4's label: such a connection leaves them no second try.
  public static let earlyPackets6 = IPPrefix(.v6(IPv6Address(high: 0x2002_c000_0002_0000, low: 2)), clamping: 64)

  /// On that interface, clients of published UDP ports that have no address which a packet could come from there.
  public static let gateway4 = IPv4Address(192, 0, 0, 1)

  /// - Parameter prefix: `packets6` or `earlyPackets6`.
  public static func gateway6(of prefix: IPPrefix) -> IPv6Address {
    if case .v6(let own) = prefix.address { IPv6Address(high: own.high, low: 1) } else { IPv6Address.loopback }
  }

  /// The first of those on that interface which nobody has: connections seem to come from them to the proxy (`HeldConnections`).
  public static let virtual4 = IPv4Address(192, 0, 0, 3)
  public static let virtualCount = 4
  private static let first6OfLink: UInt64 = 0xfd54_6f6d_626f_0001

  /// - Parameter prefix: `packets6` or `earlyPackets6`.
  public static func virtual6(of prefix: IPPrefix) -> IPv6Address {
    if case .v6(let own) = prefix.address { IPv6Address(high: own.high, low: 0x100) } else { IPv6Address.loopback }
  }

  /// Raw mode: where enclaves have their addresses unless somebody says otherwise. Private (RFC 1918, RFC 4193), and nothing
  /// else is known to use them.
  public static let links4 = IPPrefix(.v4(first4), clamping: 16)
  public static let links6 = IPPrefix(.v6(first6), clamping: 48)
  private static let first4 = IPv4Address(10, 118, 0, 0)
  private static let first6 = IPv6Address(high: 0xfd74_6f6d_626f_0000, low: 0)
  public static let links = [links4, links6]

  /// The bits of an enclave's own network in them; it has the second address of it.
  public static let linkLength4: UInt8 = 30
  public static let linkLength6: UInt8 = 64

  /// - Parameter number: of the network, modulo how many there are.
  public static func link4(_ number: UInt32) -> IPPrefix {
    let offset = (number % (1 << UInt32(linkLength4 - links4.length))) << UInt32(32 - linkLength4)
    return IPPrefix(.v4(IPv4Address(rawValue: first4.rawValue | offset | 2)), clamping: linkLength4)
  }

  public static func link6(_ number: UInt32) -> IPPrefix {
    let offset = UInt64(number % (1 << UInt32(linkLength6 - links6.length)))
    return IPPrefix(.v6(IPv6Address(high: first6.high | offset, low: 2)), clamping: linkLength6)
  }
}
