// Theory of operation.
//
// Every room that asks what an address is for asks here. `AddressSets` answers by integer comparisons, without allocation:
// it is asked for every packet of raw mode. `SpecialRange.all` has the same as a table with names and sources, for
// sentences and for rules that name a range; a test holds the two together. An IPv6 address that stands for an IPv4 one
// (`IPv6Address.embedded`) is also judged by that.

/// The sets that a policy names, and in which an address may be. An address in none of them is an ordinary one.
@frozen
public struct AddressSets: OptionSet, Hashable, Sendable {
  public let rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// Networks of one organisation: RFC 1918, RFC 4193, RFC 6598, and NAT64's prefix for local use (RFC 8215).
  @inlinable public static var `private`: AddressSets { .init(rawValue: 1) }
  @inlinable public static var linkLocal: AddressSets { .init(rawValue: 2) }
  @inlinable public static var loopback: AddressSets { .init(rawValue: 4) }
  @inlinable public static var multicast: AddressSets { .init(rawValue: 8) }
  /// Where clouds answer a machine's questions, often with its credentials.
  @inlinable public static var metadata: AddressSets { .init(rawValue: 16) }
  /// The machine's own, which no address tells by itself.
  @inlinable public static var host: AddressSets { .init(rawValue: 32) }
  /// Everything else that is no machine's on the internet: unspecified, broadcast, documentation, benchmarking and so on.
  @inlinable public static var reserved: AddressSets { .init(rawValue: 64) }

  /// Names as rules have them, in the order in which a sentence names one of several.
  static let names: [(AddressSets, String)] = [
    (.host, "host"), (.metadata, "metadata"), (.linkLocal, "link-local"), (.loopback, "loopback"),
    (.multicast, "multicast"), (.reserved, "reserved"), (.private, "private"),
  ]

  /// A set by its name: `metadata`.
  public init?(name: String) {
    guard let found = Self.names.first(where: { $0.1 == name }) else { return nil }
    self = found.0
  }

  /// The name of the first set that it has.
  public var name: String { Self.names.first { !isDisjoint(with: $0.0) }?.1 ?? "ordinary" }
}

extension AddressSets {
  /// Of an IPv4 address in host byte order.
  @inlinable
  public init(v4 address: UInt32) {
    switch address >> 24 {
    case 10: self = .private
    case 0, 240...255: self = .reserved
    case 127: self = .loopback
    case 224...239: self = .multicast
    case 100:
      // 100.64.0.0/10
      self = address >> 22 == 0x6440_0000 >> 22 ? .private : []
      if address == 0x6464_64c8 { insert(.metadata) }
    case 168: self = address == 0xa83f_8110 ? .metadata : []
    case 169:
      guard address >> 16 == 0xa9fe else {
        self = []
        return
      }
      self = .linkLocal
      switch address & 0xffff {
      // .169.254, .170.2, .170.23, .0.23, .10.10, .42.42
      case 0xa9fe, 0xaa02, 0xaa17, 0x0017, 0x0a0a, 0x2a2a: insert(.metadata)
      default: break
      }
    case 172: self = address >> 20 == 0xac1 ? .private : []
    case 192:
      switch address >> 8 {
      // 192.0.0.0/24, 192.0.2.0/24, 192.88.99.0/24
      case 0xc0_0000, 0xc0_0002, 0xc0_5863: self = address == 0xc000_00c0 ? [.reserved, .metadata] : .reserved
      default: self = address >> 16 == 0xc0a8 ? .private : []
      }
    // 198.18.0.0/15, 198.51.100.0/24
    case 198: self = address >> 17 == 0xc612 >> 1 || address >> 8 == 0xc6_3364 ? .reserved : []
    case 203: self = address >> 8 == 0xcb_0071 ? .reserved : []
    default: self = []
    }
  }

  /// Of an IPv6 address as two halves in host byte order, by itself: what it may stand for is not looked at.
  @inlinable
  public init(v6High high: UInt64, _ low: UInt64) {
    switch high >> 61 {
    case 1:
      // 2000::/3, the one block from which addresses are given out. In it are 2001::/23, 2001:db8::/32 and 3fff::/20.
      if high >> 41 == 0x2001_0000 >> 9 {
        self = Self.protocolAssignment(high)
      } else {
        self = high >> 32 == 0x2001_0db8 || high >> 44 == 0x3fff0 ? .reserved : []
      }
    case 7:
      switch high >> 56 {
      case 0xfc: self = .private
      case 0xfd: self = Self.isMetadata(high, low) ? [.private, .metadata] : .private
      case 0xff: self = .multicast
      case 0xfe where high >> 54 == 0x3fa:
        // fe80::a9fe:a9fe
        self = high & 0x3f_ffff_ffff_ffff == 0 && low == 0xa9fe_a9fe ? [.linkLocal, .metadata] : .linkLocal
      default: self = .reserved
      }
    case 0:
      if high == 0 {
        self = low == 1 ? .loopback : .reserved
      } else if high == 0x0064_ff9b_0000_0000, low >> 32 == 0 {
        self = []
      } else {
        self = high >> 16 == 0x0064_ff9b_0001 ? .private : .reserved
      }
    default: self = .reserved
    }
  }

  /// In 2001::/23: Teredo, AMT and AS112 are ways to machines; the rest are not, identifiers (ORCHID, DET) among them.
  @inlinable
  static func protocolAssignment(_ high: UInt64) -> AddressSets {
    let group = high >> 32 & 0xffff
    if group == 0 || group == 3 { return [] }
    return high >> 16 == 0x2001_0004_0112 ? [] : .reserved
  }

  @inlinable
  static func isMetadata(_ high: UInt64, _ low: UInt64) -> Bool {
    switch high {
    case 0xfd20_00ce_0000_0000: low == 0x254
    case 0xfd00_00c1_0000_0000: low == 0xa9fe_a9fe
    case 0xfd00_a9fe_a9fe_0000: low == 1
    case 0xfd00_0042_0000_0000: low == 0x42
    case 0xfd00_0100_0000_0000: low == 0x100_0200
    default: high >> 32 == 0xfd00_0ec2
    }
  }
}

extension IPv4Address {
  /// Whether a packet can come from it: not 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4, 240.0.0.0/4.
  @inlinable @inline(__always)
  public static func isUnicast(_ address: UInt32) -> Bool {
    let first = address >> 24
    return first != 0 && first != 127 && first < 224
  }
}

extension IPv6Address {
  /// Whether a packet of another link can come from it: not ::/64 (unspecified, loopback, IPv4-mapped), fe80::/10, ff00::/8
  /// (RFC 4291 section 2.4).
  @inlinable @inline(__always)
  public static func isUnicast(high: UInt64) -> Bool {
    high != 0 && high >> 54 != 0x3fa && high >> 56 != 0xff
  }
}

extension IPAddress {
  /// What the address is by itself; an IPv4-mapped one is the IPv4 address (to a socket they are the same).
  public var sets: AddressSets {
    switch unmapped {
    case .v4(let four): AddressSets(v4: four.rawValue)
    case .v6(let six): AddressSets(v6High: six.high, six.low)
    }
  }

  /// Whether a machine can have it as its own beyond one link. In laboratories that may be one for documentation.
  public var canBeOwn: Bool {
    switch self {
    case .v4(let four): IPv4Address.isUnicast(four.rawValue) && !sets.contains(.linkLocal)
    case .v6(let six): IPv6Address.isUnicast(high: six.high)
    }
  }
}
