import Inet

/// The netfilter rules that Tombolo wants, as a value: nothing here touches the kernel.
///
/// Two encoders turn it into bytes: `NFTablesEncoder` for nf_tables, `XTablesTable` for legacy xtables. `description` is
/// the same in the syntax of nft(8), which `nft -f` reads back.
public struct Ruleset: Hashable, Sendable {
  /// The name of the nf_tables tables, one per family; in xtables the prefix of the chains that are ours.
  public var name: String
  public var tables: [Table]

  public init(name: String, tables: [Table]) {
    self.name = name
    self.tables = tables
  }

  /// `inet` tables are left out on purpose: NAT in them needs Linux 5.2.
  public enum Family: String, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    case ip, ip6

    /// As nft(8) says it. Without it, every "\(family)" would look the case's name up by reflection.
    public var description: String { rawValue }
  }

  /// The chains of one address family.
  public struct Table: Hashable, Sendable {
    public var family: Family
    public var chains: [Chain]

    public init(_ family: Family, _ chains: [Chain]) {
      self.family = family
      self.chains = chains
    }
  }

  public enum Kind: String, Hashable, Sendable { case nat, filter }

  public enum Hook: String, Hashable, Sendable, CaseIterable { case prerouting, input, forward, output, postrouting }

  /// A base chain with policy accept.
  public struct Chain: Hashable, Sendable {
    public var name: String
    public var kind: Kind
    public var hook: Hook
    /// Lower runs earlier. The kernel refuses NAT at or below -200, where conntrack sits. Legacy xtables has one fixed
    /// place for each table (linux/netfilter_ipv4.h, enum nf_ip_hook_priorities), so there this is not used.
    public var priority: Int32
    public var rules: [Rule]

    public init(_ name: String, _ kind: Kind, _ hook: Hook, priority: Int32, _ rules: [Rule]) {
      self.name = name
      self.kind = kind
      self.hook = hook
      self.priority = priority
      self.rules = rules
    }
  }

  /// What happens to a packet that passes every match.
  public struct Rule: Hashable, Sendable {
    public var matches: [Match]
    public var verdict: Verdict
    /// Counts packets and bytes (nf_tables; xtables always counts).
    public var counter: Bool

    public init(_ matches: [Match] = [], _ verdict: Verdict, counter: Bool = false) {
      self.matches = matches
      self.verdict = verdict
      self.counter = counter
    }
  }

  public enum Transport: Hashable, Sendable {
    case tcp, udp, icmp, icmpv6

    /// The number of the IANA protocol registry.
    public var number: UInt8 {
      switch self {
      case .tcp: 6
      case .udp: 17
      case .icmp: 1
      case .icmpv6: 58
      }
    }

    var hasPorts: Bool { self == .tcp || self == .udp }
  }

  public enum Match: Hashable, Sendable {
    case transport(Transport)
    case source(IPPrefix, negated: Bool = false)
    case destination(IPPrefix, negated: Bool = false)
    /// Only after `.transport(.tcp)` or `.transport(.udp)`.
    case sourcePorts(ClosedRange<UInt16>)
    /// Only after `.transport(.tcp)` or `.transport(.udp)`.
    case destinationPorts(ClosedRange<UInt16>)
    /// An interface name of 1 to 15 bytes (IFNAMSIZ); with `*` at its end all that begin so.
    case input(String, negated: Bool = false)
    case output(String, negated: Bool = false)
    case state(ConnectionState)
    /// To an address of the machine itself, whichever it has at that moment.
    case destinationIsLocal
    /// Only after `.transport(.icmp)` or `.transport(.icmpv6)`.
    case icmpType(UInt8)
    /// A socket of the machine takes such packets. While any rule asks this, the kernel puts fragments together before the
    /// rules see them (nf_defrag_ipv6_enable in net/netfilter/xt_socket.c and nft_socket.c); of IPv6 it otherwise does so
    /// behind them.
    case hasSocket

    public static func sourcePort(_ port: UInt16) -> Match { .sourcePorts(port...port) }
    public static func destinationPort(_ port: UInt16) -> Match { .destinationPorts(port...port) }
  }

  /// What conntrack says of a packet, with the bits of NF_CT_STATE_* (linux/netfilter/nf_conntrack_common.h).
  public struct ConnectionState: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let invalid = ConnectionState(rawValue: 1)
    public static let established = ConnectionState(rawValue: 1 << 1)
    public static let related = ConnectionState(rawValue: 1 << 2)
    public static let new = ConnectionState(rawValue: 1 << 3)
    public static let untracked = ConnectionState(rawValue: 1 << 6)
  }

  public enum Verdict: Hashable, Sendable {
    case accept
    case drop
    /// Past the rest of the chain, as if there were none: in legacy xtables `accept` would pass others' rules as well.
    case `return`
    /// To this port of the machine itself: 127.0.0.1 or ::1 for what the machine sends.
    case redirect(UInt16)
    /// To another address, and to another port too unless it is nil.
    case dnat(IPAddress, port: UInt16?)
    /// From the address of the interface through which the packet leaves.
    case masquerade
    case reject(Rejection)
    /// To a program, by nfnetlink_queue.
    case queue(ClosedRange<UInt16>, QueueFlags)
  }

  public enum Rejection: Hashable, Sendable {
    /// ICMP type 3 code 13 (RFC 1812), ICMPv6 type 1 code 1 (RFC 4443): EHOSTUNREACH or EACCES for the sender.
    case adminProhibited
    /// Only after `.transport(.tcp)`: ECONNREFUSED for the sender.
    case tcpReset
  }

  /// With the bits of NFT_QUEUE_FLAG_* (linux/netfilter/nf_tables.h).
  public struct QueueFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Accepts the packet when no program listens.
    public static let bypass = QueueFlags(rawValue: 1)
    /// Chooses the queue by the CPU instead of by the connection.
    public static let fanout = QueueFlags(rawValue: 2)
  }
}
