import Inet
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
  /// What is done with datagrams to port 443; nil where no file has said it.
  public var quic: QUICAction?
  private var connections = SNISettings()

  public enum QUICAction: String, CaseIterable, Sendable {
    case deny, check, allow
  }

  public init() {}

  /// Whether nobody has said what is done with what no rule names.
  public var isUnsaid: Bool { defaultAction == nil && !hasSection }

  /// Where names are known anyway, QUIC is no way round them.
  public var quicAction: QUICAction {
    quic
      ?? (connections.check != .off || allow.contains(where: \.isByName) || deny.contains(where: \.isByName)
        ? .check : .allow)
  }

  public var sni: SNISettings {
    get {
      var sni = connections
      sni.checksQUIC = quicAction == .check
      return sni
    }
    set { connections = newValue }
  }

  public var isOpen: Bool { (defaultAction ?? (hasSection ? .deny : .allow)) == .allow }
  public var rules: EgressRules { EgressRules(isOpen: isOpen, allow: allow, deny: allDenied) }

  /// The rules of `deny`, and those that `quic` stands for.
  public var allDenied: [DestinationRule] { quicAction == .deny ? deny + Self.withoutQUIC : deny }

  /// What `quic = "deny"` stands for.
  static let withoutQUIC = [
    IPPrefix(.v4(IPv4Address(rawValue: 0)), clamping: 0), IPPrefix(.v6(IPv6Address(high: 0, low: 0)), clamping: 0),
  ]
  .map { DestinationRule(.prefix($0), ports: 443...443, transport: .udp) }

  /// - Parameter isAddition: what a command line adds to a file's section is no section by itself.
  mutating func read(_ table: inout TableReader, isAddition: Bool) throws(ConfigurationError) {
    if !isAddition { hasSection = true }
    try readRules(&table)
    connections.check =
      try table.value("sni", "\"off\", \"check\" or \"require\"") { .init(rawValue: $0) } ?? connections.check
    if let ports = try table.integers("sni_ports", in: 1...65535) { connections.ports = ports.map { UInt16($0) } }
  }

  mutating func readRules(_ table: inout TableReader) throws(ConfigurationError) {
    defaultAction =
      try table.value("default", "\"allow\" or \"deny\"") { Action(rawValue: $0) } ?? defaultAction
    Self.add(try Self.rules(&table, "allow"), to: &allow)
    Self.add(try Self.rules(&table, "deny"), to: &deny)
    quic = try table.value("quic", "\"deny\", \"check\" or \"allow\"") { QUICAction(rawValue: $0) } ?? quic
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
