import Inet

/// A rule that names destinations by address: `10.0.0.0/8`, `10.0.0.0/8:5432`, `169.254.169.254:80`,
/// `[2001:db8::1]:8000-8999`, `[2001:db8::]/32`.
public struct DestinationRule: Hashable, Sendable, CustomStringConvertible {
  public var prefix: IPPrefix
  /// nil: all of them.
  public var ports: ClosedRange<UInt16>?

  /// - Parameter prefix: without bits behind its length.
  public init(_ prefix: IPPrefix, ports: ClosedRange<UInt16>? = nil) {
    self.prefix = prefix
    self.ports = ports
  }

  /// What completes "expected …".
  public static let form =
    "an address or a prefix, with or without a port or a range of ports, such as \"10.0.0.0/8\", "
    + "\"169.254.169.254:80\", \"10.1.2.3:8000-8999\" or \"[2001:db8::]/32:443\""

  /// - Throws: what completes "found "…", ": the reason, or what was expected.
  public init(_ text: String) throws(DestinationRuleError) {
    let unknown = DestinationRuleError(reason: "expected " + Self.form)
    var rest = Substring(text)
    var address: IPAddress?
    if rest.hasPrefix("[") {
      guard let end = rest.firstIndex(of: "]"), let six = IPv6Address(rest[rest.index(after: rest.startIndex)..<end])
      else { throw unknown }
      address = .v6(six)
      rest = rest[rest.index(after: end)...]
    } else {
      // Without brackets an IPv6 address reaches to the slash, or to the end: its own colons are none of a port.
      let slash = rest.firstIndex(of: "/") ?? rest.endIndex
      if let six = IPv6Address(rest[..<slash]) {
        address = .v6(six)
        rest = rest[slash...]
      } else {
        let end = rest.firstIndex { $0 == "/" || $0 == ":" } ?? rest.endIndex
        address = IPv4Address(rest[..<end]).map { .v4($0) }
        rest = rest[end...]
      }
    }
    guard let address else { throw unknown }
    var length = UInt8(address.bytes.count * 8)
    if rest.hasPrefix("/") {
      rest = rest.dropFirst()
      let end = rest.firstIndex(of: ":") ?? rest.endIndex
      guard let number = decimalPort(rest[..<end]) else { throw unknown }
      guard number <= UInt16(length) else {
        throw DestinationRuleError(reason: "expected a prefix of at most \(length) bits")
      }
      length = UInt8(number)
      rest = rest[end...]
    }
    var ports: ClosedRange<UInt16>?
    if rest.hasPrefix(":") {
      guard let range = PortRanges.range(rest.dropFirst()) else {
        throw DestinationRuleError(reason: "expected a port from 1 to 65535, or a range of them, behind the last colon")
      }
      ports = range
      rest = ""
    }
    guard rest.isEmpty, let prefix = IPPrefix(address, length) else { throw unknown }
    guard prefix.address == prefix.network else {
      throw DestinationRuleError(
        reason: "expected \(prefix.network)/\(length), or \(address) alone: there are bits behind the prefix")
    }
    self.init(prefix, ports: ports)
  }

  /// - Parameter port: nil where it is not known; then only a rule for every port holds.
  public func matches(_ address: IPAddress, port: UInt16?) -> Bool {
    guard prefix.contains(address) else { return false }
    guard let ports else { return true }
    return port.map { ports.contains($0) } ?? false
  }

  public var description: String {
    let isWhole = Int(prefix.length) == prefix.address.bytes.count * 8
    let length = isWhole ? "" : "/\(prefix.length)"
    guard let ports else { return "\(prefix.address)\(length)" }
    let numbers = ports.count == 1 ? "\(ports.lowerBound)" : "\(ports.lowerBound)-\(ports.upperBound)"
    if case .v6 = prefix.address { return "[\(prefix.address)]\(length):\(numbers)" }
    return "\(prefix.address)\(length):\(numbers)"
  }
}

public struct DestinationRuleError: Error, Equatable, Sendable, CustomStringConvertible {
  public var reason: String
  public var description: String { reason }
}
