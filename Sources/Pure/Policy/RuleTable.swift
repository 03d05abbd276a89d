import Inet

/// What a rule is asked for, which decides what it means where it does not say its transport.
public enum RuleUse: Sendable {
  /// Without a transport it is for TCP.
  case allow
  /// Without a transport it is for every one; where a port is not known, a rule with ports holds.
  case deny
  /// Lifts a denial that is built in: for every transport; where a port is not known, only a rule for all ports holds.
  case lift
}

extension DestinationRule {
  /// Whether its transport and its ports cover a flow; its target is not looked at.
  /// - Parameter port: nil where it is not known, or where there is none.
  public func covers(_ transport: FlowTransport, _ port: UInt16?, as use: RuleUse) -> Bool {
    guard transport == (self.transport ?? (use == .allow ? .tcp : transport)) else { return false }
    guard let ports else { return true }
    guard let port else { return use == .deny && transport.hasPorts }
    return ports.contains(port)
  }
}

/// Rules in the order in which they were written, and found by what they name: the narrowest first, of equal ones the first.
public struct RuleTable: Equatable, Sendable {
  public let rules: [DestinationRule]
  private let names: RuleTree
  private let v4: RuleTree
  private let v6: RuleTree
  private let sets: [Int]

  public init(_ rules: [DestinationRule] = []) {
    self.rules = rules
    var names: [RuleTree.Key] = []
    var v4: [RuleTree.Key] = []
    var v6: [RuleTree.Key] = []
    var sets: [Int] = []
    for (index, rule) in rules.enumerated() {
      switch rule.target {
      case .name(let name), .below(let name):
        let key = name.fromRoot
        names.append(.init(bytes: key, bits: key.count * 8, rule: index))
      case .prefix(let prefix):
        let bits = Int(prefix.length)
        let key = RuleTree.Key(bytes: Array(prefix.network.bytes.prefix((bits + 7) / 8)), bits: bits, rule: index)
        if case .v4 = prefix.address { v4.append(key) } else { v6.append(key) }
      case .set: sets.append(index)
      }
    }
    self.names = RuleTree(names)
    self.v4 = RuleTree(v4)
    self.v6 = RuleTree(v6)
    self.sets = sets
  }

  public static func == (a: RuleTable, b: RuleTable) -> Bool { a.rules == b.rules }

  public var isEmpty: Bool { rules.isEmpty }
  public var hasNames: Bool { !names.isEmpty }

  /// The narrowest rule that names the address and covers the flow. Allocates nothing.
  /// - Parameters:
  ///   - sets: in which the address is.
  ///   - bits: rules for wider prefixes do not count.
  func rule(
    for address: IPAddress, in sets: AddressSets, _ transport: FlowTransport, _ port: UInt16?, as use: RuleUse,
    atLeast bits: Int = 0
  ) -> DestinationRule? {
    rule(for: address, in: sets, atLeast: bits) { $0.covers(transport, port, as: use) }
  }

  /// The narrowest rule that names the address. Allocates nothing.
  /// - Parameter isWanted: whether its transport and ports are wanted.
  func rule(
    for address: IPAddress, in sets: AddressSets, atLeast bits: Int = 0, where isWanted: (DestinationRule) -> Bool
  ) -> DestinationRule? {
    func wanted(_ rule: Int, _ length: Int) -> Bool { length >= bits && isWanted(rules[rule]) }
    let found =
      switch address {
      case .v4(let four): withUnsafeBytes(of: four.rawValue.bigEndian) { v4.first($0, where: wanted) }
      case .v6(let six):
        withUnsafeBytes(of: (six.high.bigEndian, six.low.bigEndian)) { v6.first($0, where: wanted) }
      }
    if let found { return rules[found] }
    for index in self.sets {
      guard case .set(let set) = rules[index].target, !sets.isDisjoint(with: set) else { continue }
      if isWanted(rules[index]) { return rules[index] }
    }
    return nil
  }

  /// The narrowest rule that names the name.
  /// - Parameter isWanted: whether its transport and ports are wanted.
  public func rule(for name: DomainName, where isWanted: (DestinationRule) -> Bool) -> DestinationRule? {
    guard !names.isEmpty else { return nil }
    let key = name.fromRoot
    let found = key.withUnsafeBytes { bytes in
      names.first(bytes) { rule, bits in
        let isWhole = bits == key.count * 8
        switch rules[rule].target {
        case .name: return isWhole && isWanted(rules[rule])
        case .below: return !isWhole && isWanted(rules[rule])
        case .prefix, .set: return false
        }
      }
    }
    return found.map { rules[$0] }
  }
}

/// `[egress]` as a value: what is denied, what is allowed, and what is done with the rest.
public struct EgressRules: Equatable, Sendable {
  /// What no rule names is allowed: `default = "allow"`.
  public let isOpen: Bool
  public let allow: RuleTable
  /// Wins.
  public let deny: RuleTable

  public init(isOpen: Bool = true, allow: [DestinationRule] = [], deny: [DestinationRule] = []) {
    self.isOpen = isOpen
    self.allow = RuleTable(allow)
    self.deny = RuleTable(deny)
  }

  /// Whether an ordinary address needs no look at the rules.
  public var isPlain: Bool { isOpen && deny.isEmpty }

  /// Whether a rule names a name.
  public var hasNames: Bool { allow.hasNames || deny.hasNames }

  /// Whether it must be known which names an address is the answer for.
  public func needsNames(_ sni: SNISettings) -> Bool { hasNames || sni.check != .off || sni.checksQUIC }

  /// Whether raw mode has to judge flows: for less, a look at each packet's address does.
  public func needsFlows(_ sni: SNISettings) -> Bool { !isPlain || needsNames(sni) }

  /// What decides about a name.
  public enum NameVerdict: Equatable, Sendable, CustomStringConvertible {
    /// nil: by default.
    case allowed(by: DestinationRule?)
    /// nil: no rule names it.
    case denied(by: DestinationRule?)

    public var isAllowed: Bool { if case .allowed = self { true } else { false } }

    /// `egress.allow has "10.0.0.0/8"`.
    public var description: String {
      switch self {
      case .allowed(let rule?): "egress.allow has \"\(rule)\""
      case .allowed(nil): "egress.default is \"allow\""
      case .denied(let rule?): "egress.deny has \"\(rule)\""
      case .denied(nil): "no rule of egress.allow names it"
      }
    }
  }

  /// Whether a name may be asked for: some port of it may be reached, by some transport.
  public func verdict(on name: DomainName) -> NameVerdict {
    if let rule = deny.rule(for: name, where: { $0.ports == nil && $0.transport == nil }) { return .denied(by: rule) }
    if let rule = allow.rule(for: name, where: { _ in true }) { return .allowed(by: rule) }
    return isOpen ? .allowed(by: nil) : .denied(by: nil)
  }

  /// Whether a flow to an address of the name may be opened.
  public func verdict(on name: DomainName, _ transport: FlowTransport, _ port: UInt16?) -> NameVerdict {
    if let rule = deny.rule(for: name, where: { $0.covers(transport, port, as: .deny) }) { return .denied(by: rule) }
    if let rule = allow.rule(for: name, where: { $0.covers(transport, port, as: .allow) }) { return .allowed(by: rule) }
    return isOpen ? .allowed(by: nil) : .denied(by: nil)
  }
}
