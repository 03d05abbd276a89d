extension IPv6Address {
  /// Whether the address has one of the forms of `embedded`. No allocation: asked for every packet.
  @inlinable
  public static func mayEmbed(_ high: UInt64, _ low: UInt64) -> Bool {
    // 64:ff9b::/32, Teredo, 6to4, ::/64 and ISATAP.
    high >> 32 == 0x0064_ff9b || high >> 32 == 0x2001_0000 || high >> 48 == 0x2002 || high == 0
      || low >> 32 & ~0x0200_0000 == 0x5efe
  }

  /// The IPv4 addresses for which it stands, where a translator or a tunnel on the way takes them out:
  /// - IPv4-mapped and IPv4-compatible (RFC 4291 section 2.5.5), and IPv4-translated (RFC 2765);
  /// - NAT64, 64:ff9b::/96 and the prefix for local use 64:ff9b:1::/48, in which an operator may have made prefixes of 48,
  ///   56, 64 or 96 bits (RFC 6052 section 2.2, RFC 8215);
  /// - 6to4 (RFC 3056), Teredo's server and client, the latter inverted (RFC 4380 section 4), ISATAP (RFC 5214).
  public var embedded: [IPv4Address] {
    var found: [IPv4Address] = []
    forEachEmbedded { found.append($0) }
    return found
  }

  /// The same without allocation.
  public func forEachEmbedded(_ body: (IPv4Address) -> Void) {
    guard Self.mayEmbed(high, low) else { return }
    func give(_ value: UInt64) { body(IPv4Address(rawValue: UInt32(truncatingIfNeeded: value))) }
    if high == 0 {
      // ::, ::1 are what they are.
      if low >> 32 == 0xffff || low >> 48 == 0xffff || (low >> 32 == 0 && low > 1) { give(low) }
    } else if high == 0x0064_ff9b_0000_0000, low >> 32 == 0 {
      give(low)
    } else if high >> 16 == 0x0064_ff9b_0001 {
      give(Self.local(high, low))
    } else if high >> 48 == 0x2002 {
      give(high >> 16)
    } else if high >> 32 == 0x2001_0000 {
      give(high)
      give(~low)
    }
    if low >> 32 & ~0x0200_0000 == 0x5efe { give(low) }
  }

  /// Of the forms that a prefix for local use may have the first that can be meant: bits 64 to 71 and all behind the IPv4
  /// address are zero, and that is in no 0.0.0.0/8.
  private static func local(_ high: UInt64, _ low: UInt64) -> UInt64 {
    guard low >> 56 == 0 else { return low }
    let of48 = high << 16 & 0xffff_0000 | low >> 40 & 0xffff
    if low & 0xff_ffff_ffff == 0, of48 >> 24 != 0 { return of48 }
    let of56 = high << 24 & 0xff00_0000 | low >> 32 & 0xff_ffff
    if low & 0xffff_ffff == 0, of56 >> 24 != 0 { return of56 }
    let of64 = low >> 24 & 0xffff_ffff
    return low & 0xff_ffff == 0 && of64 >> 24 != 0 ? of64 : low
  }
}
