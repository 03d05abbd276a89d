/// An IPv4 address, in host byte order.
public struct IPv4Address: Hashable, Sendable, CustomStringConvertible {
  public var rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) {
    rawValue = UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d)
  }

  /// Reads the strict dotted form of RFC 6943 section 3.1.1: four decimal numbers, no leading zeros.
  public init?(_ text: some StringProtocol) {
    var value: UInt32 = 0
    var parts = 0
    for part in text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false) {
      guard parts < 4, (1...3).contains(part.count), part.count == 1 || part.first != UInt8(ascii: "0") else {
        return nil
      }
      var number: UInt32 = 0
      for digit in part {
        guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
        number = number * 10 + UInt32(digit - UInt8(ascii: "0"))
      }
      guard number <= 255 else { return nil }
      value = value << 8 | number
      parts += 1
    }
    guard parts == 4 else { return nil }
    rawValue = value
  }

  public static let any = IPv4Address(rawValue: 0)
  public static let loopback = IPv4Address(127, 0, 0, 1)

  /// The four bytes in network order.
  public var bytes: [UInt8] {
    [UInt8(rawValue >> 24), UInt8(rawValue >> 16 & 0xff), UInt8(rawValue >> 8 & 0xff), UInt8(rawValue & 0xff)]
  }

  public var description: String {
    var text: [UInt8] = []
    for shift: UInt32 in [24, 16, 8, 0] {
      if shift < 24 { text.append(UInt8(ascii: ".")) }
      text.append(UInt8(rawValue >> shift & 0xff), radix: 10)
    }
    return String(decoding: text, as: UTF8.self)
  }
}

/// An IPv6 address as two halves in host byte order.
public struct IPv6Address: Hashable, Sendable, CustomStringConvertible {
  public var high: UInt64
  public var low: UInt64

  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  public static let any = IPv6Address(high: 0, low: 0)
  public static let loopback = IPv6Address(high: 0, low: 1)

  /// Reads the forms of RFC 4291 section 2.2 (no zone identifier).
  public init?(_ text: some StringProtocol) {
    var groups: [UInt16] = []
    var gap: Int?
    var rest = Substring(text)
    guard !rest.isEmpty else { return nil }
    if rest.hasPrefix("::") {
      gap = 0
      rest = rest.dropFirst(2)
    }
    while !rest.isEmpty {
      let end = rest.firstIndex(of: ":") ?? rest.endIndex
      let part = rest[..<end]
      if part.contains(".") {
        guard end == rest.endIndex, let four = IPv4Address(part) else { return nil }
        groups += [UInt16(four.rawValue >> 16), UInt16(four.rawValue & 0xffff)]
        rest = ""
        break
      }
      guard (1...4).contains(part.utf8.count), part.utf8.allSatisfy(Self.isHexDigit),
        let group = UInt16(part, radix: 16)
      else { return nil }
      groups.append(group)
      guard groups.count <= 8 else { return nil }
      rest = rest[end...]
      if rest.hasPrefix("::") {
        guard gap == nil else { return nil }
        gap = groups.count
        rest = rest.dropFirst(2)
      } else if rest.hasPrefix(":") {
        rest = rest.dropFirst()
        guard !rest.isEmpty else { return nil }
      }
    }
    if let gap {
      guard groups.count < 8 else { return nil }
      groups.insert(contentsOf: repeatElement(0, count: 8 - groups.count), at: gap)
    }
    guard groups.count == 8 else { return nil }
    high = groups[..<4].reduce(0) { $0 << 16 | UInt64($1) }
    low = groups[4...].reduce(0) { $0 << 16 | UInt64($1) }
  }

  private static func isHexDigit(_ c: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(c) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(c | 0x20)
  }

  /// The sixteen bytes in network order.
  public var bytes: [UInt8] {
    [high, low].flatMap { half in (0..<8).map { UInt8(truncatingIfNeeded: half >> UInt64(56 - 8 * $0)) } }
  }

  /// The canonical text of RFC 5952 (IPv4-mapped addresses in mixed notation).
  public var description: String {
    if high == 0, low >> 32 == 0xffff {
      return "::ffff:\(IPv4Address(rawValue: UInt32(truncatingIfNeeded: low)))"
    }
    let groups = [high, low].flatMap { half in
      (0..<4).map { UInt16(truncatingIfNeeded: half >> UInt64(48 - 16 * $0)) }
    }
    var best = 0..<0
    var start: Int?
    for index in 0...8 {
      if index < 8, groups[index] == 0 {
        if start == nil { start = index }
      } else if let run = start {
        if index - run > best.count, index - run > 1 { best = run..<index }
        start = nil
      }
    }
    var text: [UInt8] = []
    for (index, group) in groups.enumerated() where !best.contains(index) {
      if index > 0, index != best.upperBound { text.append(UInt8(ascii: ":")) }
      if index == best.upperBound, !best.isEmpty { text += [UInt8(ascii: ":"), UInt8(ascii: ":")] }
      text.append(group, radix: 16)
    }
    if best.upperBound == 8 { text += [UInt8(ascii: ":"), UInt8(ascii: ":")] }
    return String(decoding: text, as: UTF8.self)
  }
}

extension [UInt8] {
  /// Digits without leading zeros. By hand, because addresses are written at every boot, and String's own ways make up a
  /// good part of what that executes.
  fileprivate mutating func append(_ number: some FixedWidthInteger & UnsignedInteger, radix: Int) {
    let start = count
    var rest = Int(number)
    repeat {
      let digit = UInt8(truncatingIfNeeded: rest % radix)
      append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10)
      rest /= radix
    } while rest > 0
    self[start...].reverse()
  }
}

/// An address of either family.
public enum IPAddress: Hashable, Sendable, CustomStringConvertible {
  case v4(IPv4Address)
  case v6(IPv6Address)

  public init?(_ text: some StringProtocol) {
    if let four = IPv4Address(text) {
      self = .v4(four)
    } else if let six = IPv6Address(text) {
      self = .v6(six)
    } else {
      return nil
    }
  }

  /// Four bytes are IPv4, sixteen IPv6, in network order; any other count is nil.
  public init?(bytes: some Collection<UInt8>) {
    func number(_ part: some Collection<UInt8>) -> UInt64 { part.reduce(0) { $0 << 8 | UInt64($1) } }
    switch bytes.count {
    case 4: self = .v4(IPv4Address(rawValue: UInt32(number(bytes))))
    case 16: self = .v6(IPv6Address(high: number(bytes.prefix(8)), low: number(bytes.dropFirst(8))))
    default: return nil
    }
  }

  /// 32 or 128.
  public var bitCount: Int {
    switch self {
    case .v4: 32
    case .v6: 128
    }
  }

  public var bytes: [UInt8] {
    switch self {
    case .v4(let four): four.bytes
    case .v6(let six): six.bytes
    }
  }

  /// The IPv4 address inside an IPv4-mapped IPv6 one (RFC 4291 section 2.5.5.2); every other address as it is.
  public var unmapped: IPAddress {
    if case .v6(let six) = self, six.high == 0, six.low >> 32 == 0xffff {
      return .v4(IPv4Address(rawValue: UInt32(truncatingIfNeeded: six.low)))
    }
    return self
  }

  /// 127.0.0.0/8 (RFC 1122 section 3.2.1.3) or ::1.
  public var isLoopback: Bool {
    switch unmapped {
    case .v4(let four): four.rawValue >> 24 == 127
    case .v6(let six): six == .loopback
    }
  }

  public var description: String {
    switch self {
    case .v4(let four): four.description
    case .v6(let six): six.description
    }
  }
}

/// An address and a port.
public struct IPEndpoint: Hashable, Sendable, CustomStringConvertible {
  public var address: IPAddress
  public var port: UInt16

  public init(_ address: IPAddress, _ port: UInt16) {
    self.address = address
    self.port = port
  }

  /// Reads `1.2.3.4:80` and `[2001:db8::1]:80`.
  public init?(_ text: some StringProtocol) {
    guard let colon = text.lastIndex(of: ":"), let port = decimalPort(text[text.index(after: colon)...]) else {
      return nil
    }
    var host = Substring(text[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") {
      host = host.dropFirst().dropLast()
      guard let six = IPv6Address(host) else { return nil }
      self.init(.v6(six), port)
    } else {
      guard let four = IPv4Address(host) else { return nil }
      self.init(.v4(four), port)
    }
  }

  public var description: String {
    switch address {
    case .v4: "\(address):\(port)"
    case .v6: "[\(address)]:\(port)"
    }
  }
}

/// A port as decimal digits only, 0 to 65535; nil otherwise.
public func decimalPort(_ text: some StringProtocol) -> UInt16? {
  guard (1...5).contains(text.utf8.count),
    text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
  else { return nil }
  return UInt16(text)
}

/// A network prefix such as 10.0.0.0/8: an address whose first `length` bits count.
public struct IPPrefix: Hashable, Sendable, CustomStringConvertible {
  public var address: IPAddress
  /// 0 to 32 (IPv4) or 128 (IPv6).
  public var length: UInt8

  /// nil where the length is longer than the address.
  public init?(_ address: IPAddress, _ length: UInt8) {
    guard Int(length) <= address.bytes.count * 8 else { return nil }
    self.address = address
    self.length = length
  }

  /// A length that is longer than the address counts as all of it.
  public init(_ address: IPAddress, clamping length: UInt8) {
    self.address = address
    self.length = min(length, UInt8(address.bytes.count * 8))
  }

  /// Reads `10.0.0.0/8`; an address alone is a prefix of its full length.
  public init?(_ text: some StringProtocol) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard let first = parts.first, parts.count <= 2, let address = IPAddress(first) else { return nil }
    guard parts.count == 2 else {
      self.init(address, UInt8(address.bytes.count * 8))
      return
    }
    guard let length = decimalPort(parts[1]), length <= 128 else { return nil }
    self.init(address, UInt8(length))
  }

  /// Addresses of the other family are in no prefix.
  public func contains(_ other: IPAddress) -> Bool {
    switch (address, other) {
    case (.v4(let mine), .v4(let theirs)):
      return (mine.rawValue ^ theirs.rawValue) & mask4 == 0
    case (.v6(let mine), .v6(let theirs)):
      return (mine.high ^ theirs.high) & mask6.high == 0 && (mine.low ^ theirs.low) & mask6.low == 0
    default: return false
    }
  }

  /// Its first address: all bits behind `length` are zero.
  public var network: IPAddress {
    switch address {
    case .v4(let four): .v4(IPv4Address(rawValue: four.rawValue & mask4))
    case .v6(let six): .v6(IPv6Address(high: six.high & mask6.high, low: six.low & mask6.low))
    }
  }

  // A shift by all bits gives zero.
  private var mask4: UInt32 { ~0 << (32 - Int(length)) }
  private var mask6: (high: UInt64, low: UInt64) {
    (length >= 64 ? ~0 : ~0 << (64 - Int(length)), length <= 64 ? 0 : ~0 << (128 - Int(length)))
  }

  public var description: String { "\(address)/\(length)" }
}
