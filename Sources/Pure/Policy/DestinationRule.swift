import Inet

/// What a flow is carried by.
public enum FlowTransport: String, Hashable, Sendable, CaseIterable {
  case tcp, udp, icmp
  /// Every other protocol of IP; no rule names one.
  case other

  /// Whether it has ports.
  public var hasPorts: Bool { self == .tcp || self == .udp }
}

/// A rule that names destinations: `api.example.com`, `*.example.com:443`, `10.0.0.0/8:5432`, `[2001:db8::1]:8000-8999`,
/// `udp://time.example.com:123`, `icmp://10.0.0.0/8`, `private`.
public struct DestinationRule: Hashable, Sendable, CustomStringConvertible {
  public enum Target: Hashable, Sendable {
    case name(DomainName)
    /// Every name below, with one label more or several.
    case below(DomainName)
    /// Without bits behind its length.
    case prefix(IPPrefix)
    /// One set.
    case set(AddressSets)
  }

  public var target: Target
  /// nil: all of them.
  public var ports: ClosedRange<UInt16>?
  /// nil where the rule does not say: TCP where it allows, every one where it denies or lifts a denial that is built in.
  public var transport: FlowTransport?

  public init(_ target: Target, ports: ClosedRange<UInt16>? = nil, transport: FlowTransport? = nil) {
    self.target = target
    self.ports = ports
    self.transport = transport
  }

  /// - Parameter prefix: without bits behind its length.
  public init(_ prefix: IPPrefix, ports: ClosedRange<UInt16>? = nil) { self.init(.prefix(prefix), ports: ports) }

  public var isByName: Bool {
    switch target {
    case .name, .below: true
    case .prefix, .set: false
    }
  }

  /// What completes "expected …".
  public static let form =
    "a name, an address, a prefix or a set, with or without ports, such as \"api.example.com\", \"*.example.com:443\", "
    + "\"10.0.0.0/8\", \"10.1.2.3:8000-8999\", \"[2001:db8::]/32:443\", \"udp://time.example.com:123\" or \"private\""

  /// - Throws: what completes "found "…", ": the reason, or what was expected.
  public init(_ text: String) throws(DestinationRuleError) {
    var rest = Substring(text)
    if let scheme = rest.firstRange(ofBytes: "://") {
      let word = rest[..<scheme.lowerBound]
      guard let transport = FlowTransport(rawValue: String(word)), transport != .other else {
        throw DestinationRuleError(reason: "expected \"tcp://\", \"udp://\" or \"icmp://\" in front, or nothing")
      }
      self.transport = transport
      rest = rest[scheme.upperBound...]
    }
    guard !rest.isEmpty else { throw DestinationRuleError(reason: "expected " + Self.form) }
    target = try Self.target(&rest)
    if rest.utf8.first == UInt8(ascii: ":") {
      guard let range = PortRanges.range(rest.dropFirst()) else {
        throw DestinationRuleError(reason: "expected a port from 1 to 65535, or a range of them, behind the last colon")
      }
      guard transport != .icmp else { throw DestinationRuleError(reason: "expected no port: ICMP has none") }
      ports = range
      rest = ""
    }
    guard rest.isEmpty else { throw DestinationRuleError(reason: "expected " + Self.form) }
  }

  /// Takes the target off the front.
  private static func target(_ rest: inout Substring) throws(DestinationRuleError) -> Target {
    if rest.utf8.first == UInt8(ascii: "[") {
      guard let end = rest.firstIndex(of: "]"), let six = IPv6Address(rest[rest.index(after: rest.startIndex)..<end])
      else { throw DestinationRuleError(reason: "expected an IPv6 address between \"[\" and \"]\"") }
      rest = rest[rest.index(after: end)...]
      return .prefix(try prefix(.v6(six), &rest))
    }
    // Without brackets an IPv6 address reaches to the slash, or to the end: its own colons are none of a port.
    let slash = rest.firstIndex(of: "/") ?? rest.endIndex
    if let six = IPv6Address(rest[..<slash]) {
      rest = rest[slash...]
      return .prefix(try prefix(.v6(six), &rest))
    }
    let end = rest.firstIndex { $0 == "/" || $0 == ":" } ?? rest.endIndex
    let word = rest[..<end]
    rest = rest[end...]
    if let four = IPv4Address(word) { return .prefix(try prefix(.v4(four), &rest)) }
    if let set = AddressSets(name: String(word)) { return .set(set) }
    guard rest.utf8.first != UInt8(ascii: "/") else {
      throw DestinationRuleError(reason: "expected an address before the \"/\"")
    }
    let below = word.hasPrefix("*.")
    guard below || !word.utf8.contains(UInt8(ascii: "*")) else {
      throw DestinationRuleError(
        reason: word == "*"
          ? "expected a name; everything is allowed by default = \"allow\""
          : "expected \"*\" as the whole of the first label only")
    }
    do throws(DomainName.Defect) {
      let name = try DomainName(text: below ? word.dropFirst(2) : word)
      guard !below || name.labels.count <= DomainName.limit - 2 else {
        throw DomainName.Defect(description: "found a suffix that no name can be below")
      }
      return below ? .below(name) : .name(name)
    } catch {
      throw DestinationRuleError(reason: error.description)
    }
  }

  private static func prefix(_ address: IPAddress, _ rest: inout Substring) throws(DestinationRuleError) -> IPPrefix {
    var length = UInt8(address.bitCount)
    if rest.utf8.first == UInt8(ascii: "/") {
      rest = rest.dropFirst()
      let end = rest.firstIndex(of: ":") ?? rest.endIndex
      guard let number = decimalPort(rest[..<end]) else {
        throw DestinationRuleError(reason: "expected the number of the prefix's bits behind \"/\"")
      }
      guard number <= UInt16(length) else {
        throw DestinationRuleError(reason: "expected a prefix of at most \(length) bits")
      }
      length = UInt8(number)
      rest = rest[end...]
    }
    guard let prefix = IPPrefix(address, length) else { throw DestinationRuleError(reason: "expected " + form) }
    guard prefix.address == prefix.network else {
      throw DestinationRuleError(
        reason: "expected \(prefix.network)/\(length), or \(address) alone: there are bits behind the prefix")
    }
    return prefix
  }

  public var description: String {
    var text = transport.map { "\($0.rawValue)://" } ?? ""
    switch target {
    case .name(let name): text += named(name.description)
    case .below(let name): text += "*." + name.description
    case .set(let set): text += set.name
    case .prefix(let prefix):
      let isWhole = Int(prefix.length) == prefix.address.bitCount
      var address = prefix.address.description
      if ports != nil, case .v6 = prefix.address { address = "[\(address)]" }
      text += address + (isWhole ? "" : "/\(prefix.length)")
    }
    guard let ports else { return text }
    return text + ":\(ports.lowerBound)" + (ports.count == 1 ? "" : "-\(ports.upperBound)")
  }

  /// A host that is named as a set is needs its last dot.
  private func named(_ name: String) -> String { AddressSets(name: name) == nil ? name : name + "." }
}

extension Substring {
  /// `range(of:)` is Foundation's.
  fileprivate func firstRange(ofBytes word: StaticString) -> Range<Index>? {
    var start = startIndex
    let length = word.utf8CodeUnitCount
    while let end = utf8.index(start, offsetBy: length, limitedBy: endIndex) {
      let matches = word.withUTF8Buffer { utf8[start..<end].elementsEqual($0) }
      if matches { return start..<end }
      start = utf8.index(after: start)
    }
    return nil
  }
}

public struct DestinationRuleError: Error, Equatable, Sendable, CustomStringConvertible {
  public var reason: String
  public init(reason: String) { self.reason = reason }
  public var description: String { reason }
}
