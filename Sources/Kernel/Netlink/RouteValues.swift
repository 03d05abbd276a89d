import CLinux
import Inet

/// A network interface (the kernel calls it link in rtnetlink).
public struct Link: Hashable, Sendable {
  public var index: UInt32
  public var name: String
  /// IFF_UP: switched on by the administrator.
  public var isUp: Bool
  /// IFF_LOOPBACK
  public var isLoopback: Bool
  /// In bytes.
  public var mtu: UInt32

  init?(_ message: ReceivedMessage) {
    guard message.type == UInt16(RTM_NEWLINK), let header = message.header(as: ifinfomsg.self) else { return nil }
    let attributes = message.attributes(after: MemoryLayout<ifinfomsg>.size)
    guard let name = attributes.string(IFLA_IFNAME), header.ifi_index > 0 else { return nil }
    index = UInt32(header.ifi_index)
    self.name = name
    isUp = header.ifi_flags & UInt32(IFF_UP) != 0
    isLoopback = header.ifi_flags & UInt32(IFF_LOOPBACK) != 0
    mtu = attributes.number(IFLA_MTU) ?? 0
  }
}

/// An address of a link.
public struct LinkAddress: Hashable, Sendable {
  public var link: UInt32
  public var prefix: IPPrefix

  init?(_ message: ReceivedMessage) {
    guard message.type == UInt16(RTM_NEWADDR), let header = message.header(as: ifaddrmsg.self) else { return nil }
    let attributes = message.attributes(after: MemoryLayout<ifaddrmsg>.size)
    // IFA_LOCAL is the own address, IFA_ADDRESS the peer's on point-to-point links; IPv6 often has only the latter.
    guard let bytes = attributes.bytes(IFA_LOCAL) ?? attributes.bytes(IFA_ADDRESS),
      let address = IPAddress(bytes: bytes), let prefix = IPPrefix(address, header.ifa_prefixlen)
    else { return nil }
    link = header.ifa_index
    self.prefix = prefix
  }
}

public enum AddressFamily: Hashable, Sendable, CaseIterable {
  case ip, ip6

  var number: UInt8 { UInt8(self == .ip ? AF_INET : AF_INET6) }

  init?(number: UInt8) {
    switch Int32(number) {
    case AF_INET: self = .ip
    case AF_INET6: self = .ip6
    default: return nil
    }
  }

  init(_ address: IPAddress) {
    switch address {
    case .v4: self = .ip
    case .v6: self = .ip6
    }
  }
}

/// A route.
public struct Route: Hashable, Sendable, CustomStringConvertible {
  public enum Kind: Hashable, Sendable {
    /// To a neighbour or a gateway.
    case unicast
    /// Delivered to the machine itself: every address in it is its own.
    case local
  }

  public var family: AddressFamily
  /// nil is everything.
  public var destination: IPPrefix?
  public var kind: Kind
  public var link: UInt32
  public var gateway: IPAddress?
  /// The source address of packets whose socket is bound to none.
  public var preferredSource: IPAddress?
  /// RT_TABLE_MAIN unless said otherwise.
  public var table: UInt32

  public init(
    _ family: AddressFamily, to destination: IPPrefix? = nil, kind: Kind = .unicast, link: UInt32,
    gateway: IPAddress? = nil, preferredSource: IPAddress? = nil, table: UInt32 = 254
  ) {
    self.family = family
    self.destination = destination
    self.kind = kind
    self.link = link
    self.gateway = gateway
    self.preferredSource = preferredSource
    self.table = table
  }

  /// nil for other kinds (multicast, unreachable…) and routes with several next hops.
  init?(_ message: ReceivedMessage) {
    guard message.type == UInt16(RTM_NEWROUTE), let header = message.header(as: rtmsg.self),
      let family = AddressFamily(number: header.rtm_family)
    else { return nil }
    let attributes = message.attributes(after: MemoryLayout<rtmsg>.size)
    guard let link: UInt32 = attributes.number(RTA_OIF.rawValue) else { return nil }
    switch UInt32(header.rtm_type) {
    case UInt32(RTN_UNICAST): kind = .unicast
    case UInt32(RTN_LOCAL): kind = .local
    default: return nil
    }
    self.family = family
    self.link = link
    destination = attributes.bytes(RTA_DST.rawValue).flatMap { IPAddress(bytes: $0) }
      .flatMap { IPPrefix($0, header.rtm_dst_len) }
    // The kernel leaves the destination out only where it is everything.
    guard destination != nil || header.rtm_dst_len == 0 else { return nil }
    gateway = attributes.bytes(RTA_GATEWAY.rawValue).flatMap { IPAddress(bytes: $0) }
    preferredSource = attributes.bytes(RTA_PREFSRC.rawValue).flatMap { IPAddress(bytes: $0) }
    table = attributes.number(RTA_TABLE.rawValue) ?? UInt32(header.rtm_table)
  }

  /// As ip(8) writes it, with the link's number for its name.
  public var description: String { description(link: "#\(link)") }

  func description(link: String) -> String {
    (kind == .local ? "local " : "") + (destination.map { "\($0)" } ?? (family == .ip ? "default" : "default (IPv6)"))
      + (gateway.map { " via \($0)" } ?? "") + " dev \(link)" + (preferredSource.map { " src \($0)" } ?? "")
      + (table == 254 ? "" : " table \(table)")
  }
}
