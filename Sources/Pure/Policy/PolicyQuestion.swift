import Inet

/// Whether something would be allowed, as an operator asks: `api.example.com:443`, `udp://10.0.0.1:53`, `icmp://8.8.8.8`.
public struct PolicyQuestion: Equatable, Sendable {
  private let rule: DestinationRule

  /// - Throws: what completes "found "…", ".
  public init(_ text: String) throws(DestinationRuleError) {
    rule = try DestinationRule(text)
    switch rule.target {
    case .name: break
    case .prefix(let prefix) where Int(prefix.length) == prefix.address.bitCount: break
    default: throw DestinationRuleError(reason: "expected a name or an address, with or without a port")
    }
    guard rule.ports?.count ?? 1 == 1 else { throw DestinationRuleError(reason: "expected one port") }
    if case .prefix = rule.target, rule.ports == nil, rule.transport != .icmp {
      throw DestinationRuleError(reason: "expected a port behind an address")
    }
  }

  public var transport: FlowTransport { rule.transport ?? .tcp }

  /// - Returns: the answer, and what decides.
  public func answer(_ destinations: Destinations) -> (isAllowed: Bool, reason: String) {
    let port = rule.ports?.lowerBound
    switch rule.target {
    case .name(let name):
      // Without a port: whether it may be asked for at all.
      let verdict =
        port == nil && rule.transport == nil
        ? destinations.rules.verdict(on: name) : destinations.rules.verdict(on: name, transport, port)
      return (verdict.isAllowed, verdict.description)
    case .prefix(let prefix):
      if let denial = destinations.denial(of: prefix.address, port: port, transport) {
        return (false, denial.description)
      }
      let rule = destinations.rule(allowing: prefix.address, port: port, transport)
      return (true, EgressRules.NameVerdict.allowed(by: rule).description)
    case .below, .set: return (false, "")
    }
  }
}
