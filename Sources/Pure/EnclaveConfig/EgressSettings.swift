import Policy

/// `[egress]`: where the program may go.
public struct EgressSettings: Equatable, Sendable {
  public enum Action: String, CaseIterable, Sendable {
    case allow, deny
  }

  /// What is done with what no rule names; nil where no file has said it.
  public var defaultAction: Action?
  /// Whether a file has the section, by which it says that it names what is allowed.
  public var hasSection = false
  public var allow: [DestinationRule] = []
  public var deny: [DestinationRule] = []
  public var sni = SNISettings()

  public init() {}

  /// Whether nobody has said what is done with what no rule names.
  public var isUnsaid: Bool { defaultAction == nil && !hasSection }
  public var isOpen: Bool { (defaultAction ?? (hasSection ? .deny : .allow)) == .allow }
  public var rules: EgressRules { EgressRules(isOpen: isOpen, allow: allow, deny: deny) }

  /// - Parameter isAddition: what a command line adds to a file's section is no section by itself.
  mutating func read(_ table: inout TableReader, isAddition: Bool) throws(ConfigurationError) {
    if !isAddition { hasSection = true }
    try readRules(&table)
    sni.check = try table.value("sni", "\"off\", \"check\" or \"require\"") { .init(rawValue: $0) } ?? sni.check
    if let ports = try table.integers("sni_ports", in: 1...65535) { sni.ports = ports.map { UInt16($0) } }
  }

  mutating func readRules(_ table: inout TableReader) throws(ConfigurationError) {
    defaultAction =
      try table.value("default", "\"allow\" or \"deny\"") { Action(rawValue: $0) } ?? defaultAction
    Self.add(try Self.rules(&table, "allow"), to: &allow)
    Self.add(try Self.rules(&table, "deny"), to: &deny)
  }

  private static func add(_ rules: [DestinationRule], to known: inout [DestinationRule]) {
    if known.isEmpty { return known = rules }
    for rule in rules where !known.contains(rule) { known.append(rule) }
  }

  private static func rules(_ table: inout TableReader, _ key: String) throws(ConfigurationError) -> [DestinationRule] {
    try table.values(key) { (text) throws(DestinationRuleError) in try DestinationRule(text) } ?? []
  }

  /// Whether names have to be known, and so who asks for them.
  public var needsNames: Bool { rules.needsNames(sni) }
}
