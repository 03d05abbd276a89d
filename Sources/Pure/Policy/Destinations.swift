import Inet

// Theory of operation.
//
// Where a connection or a packet may go, asked in this order:
//
//   1. What is denied without a rule: the special addresses that are no ordinary machine's (link-local ones, those of
//      clouds' metadata, multicast, what is reserved, loopback), and on the host the machine's own. A rule of `allow` lifts
//      such a denial only where it names it: it must be no wider than the range for which the address is denied. So
//      `0.0.0.0/0` opens no metadata service, and `10.0.0.0/8` none of the machine's own addresses in it.
//   2. A rule of `deny` by address, which wins over every other rule.
//   3. A rule of `allow` by address.
//   4. The names for which the address was the answer: one of them must be allowed.
//   5. The default.
//
// An address that stands for another (IPv4-mapped, NAT64, 6to4, Teredo, ISATAP) is denied where the other one is, by 1 and
// by 2; it is allowed by what it is itself.

/// Which destinations may be reached, for one side.
public struct Destinations: Equatable, Sendable {
  /// Denied unless a rule names them.
  public static let denied: AddressSets = [.linkLocal, .loopback, .multicast, .metadata, .reserved, .host]

  public var rules: EgressRules
  /// The machine's own addresses; empty inside, where they are the program's own business.
  public var own: Set<IPAddress>
  /// Ports of the machine's own addresses that may be reached all the same.
  public var ownPorts: PortRanges

  public init(_ rules: EgressRules, own: Set<IPAddress> = [], ownPorts: PortRanges = PortRanges([])) {
    self.rules = rules
    self.own = own
    self.ownPorts = ownPorts
  }

  /// Everything is allowed but what is denied without a rule.
  public init(allowed: [DestinationRule] = [], own: Set<IPAddress> = [], ownPorts: PortRanges = PortRanges([])) {
    self.init(EgressRules(allow: allowed), own: own, ownPorts: ownPorts)
  }

  /// The rules of `allow`.
  public var allowed: [DestinationRule] {
    get { rules.allow.rules }
    set { rules = EgressRules(isOpen: rules.isOpen, allow: newValue, deny: rules.deny.rules) }
  }

  /// Why a destination is denied.
  public struct Denial: Sendable, CustomStringConvertible {
    public enum Reason: Sendable {
      /// The range is nil for the machine's own addresses.
      case builtIn(AddressSets, SpecialRange?)
      /// A rule of `deny`.
      case rule(DestinationRule)
      /// The default is to deny, and no rule of `allow` names the flow.
      case unnamed
    }

    public var destination: IPAddress
    /// The address that it stands for; otherwise the same.
    public var meant: IPAddress
    public var reason: Reason

    /// The built-in rule; empty where another one decided.
    public var rule: AddressSets {
      if case .builtIn(let sets, _) = reason { sets } else { [] }
    }

    /// Nobody can have that address: to a machine without these rules it is one that no route leads to.
    public var isOfNobody: Bool { rule == .reserved }

    /// `built-in rule "metadata": it stands for 169.254.169.254, in …`
    public var description: String {
      let other = meant.unmapped == destination.unmapped ? nil : "it stands for \(meant)"
      switch reason {
      case .builtIn(let sets, let range):
        let why = range.map { "in \($0.prefix), \($0.name) (\($0.source))" } ?? "an address of this machine"
        return "built-in rule \"\(sets.name)\": \(other.map { $0 + ", " } ?? "it is ")\(why)"
      case .rule(let rule): return "egress.deny has \"\(rule)\"" + (other.map { ": " + $0 } ?? "")
      case .unnamed: return "no rule of egress.allow names it"
      }
    }
  }

  /// Allocates nothing where no names are given: it may be asked for every packet.
  /// - Parameters:
  ///   - port: nil where it is not known, or where there is none.
  ///   - names: those for which the address was the answer.
  /// - Returns: nil for a destination that may be reached.
  public func denial(
    of address: IPAddress, port: UInt16?, _ transport: FlowTransport = .tcp, names: [DomainName] = []
  ) -> Denial? {
    let plain = address.unmapped
    var denial = judge(plain, port, transport, as: address)
    if denial == nil, case .v6(let six) = plain {
      six.forEachEmbedded { four in
        if denial == nil { denial = judge(.v4(four), port, transport, as: address) }
      }
    }
    if denial != nil || rules.isPlain { return denial }
    if !rules.allow.isEmpty, rules.allow.rule(for: plain, in: sets(plain), transport, port, as: .allow) != nil {
      return nil
    }
    var reason = Denial.Reason.unnamed
    for name in names {
      switch rules.verdict(on: name, transport, port) {
      case .allowed: return nil
      case .denied(let rule): if let rule { reason = .rule(rule) }
      }
    }
    return rules.isOpen && names.isEmpty ? nil : Denial(destination: address, meant: plain, reason: reason)
  }

  /// Whether no flow to the address may be opened, whatever its name and port: what an answer must not contain.
  public func isBarred(_ address: IPAddress) -> Bool {
    let plain = address.unmapped
    var found = isBarredItself(plain)
    if !found, case .v6(let six) = plain { six.forEachEmbedded { if isBarredItself(.v4($0)) { found = true } } }
    return found
  }

  private func isBarredItself(_ address: IPAddress) -> Bool {
    let special = address.sets.intersection(Self.denied)
    if !special.isEmpty {
      let range = SpecialRange.why(address, special)
      let length = range.map { Int($0.prefix.length) } ?? address.bitCount
      if rules.allow.rule(for: address, in: range?.sets ?? special, atLeast: length, where: { _ in true }) == nil {
        return true
      }
    }
    return rules.deny.rule(for: address, in: sets(address)) { $0.ports == nil && $0.transport == nil } != nil
  }

  /// Whether some flow to the address is allowed by a rule that names it.
  public func hasRule(allowing address: IPAddress) -> Bool {
    rules.allow.rule(for: address.unmapped, in: sets(address.unmapped)) { _ in true } != nil
  }

  /// The rule of `allow` that names the address and covers the flow.
  public func rule(allowing address: IPAddress, port: UInt16?, _ transport: FlowTransport = .tcp) -> DestinationRule? {
    rules.allow.rule(for: address.unmapped, in: sets(address.unmapped), transport, port, as: .allow)
  }

  /// What is denied without a rule, and what a rule of `deny` has.
  private func judge(
    _ address: IPAddress, _ port: UInt16?, _ transport: FlowTransport, as destination: IPAddress
  ) -> Denial? {
    let special = address.sets.intersection(Self.denied)
    let isOwn = !own.isEmpty && own.contains(address)
    if isOwn, !(port.map { ownPorts.contains($0) } ?? false),
      !isLifted(address, port, transport, address.bitCount, .host)
    {
      return Denial(destination: destination, meant: address, reason: .builtIn(.host, nil))
    }
    if !special.isEmpty {
      // The narrowest range decides: who may reach link-local addresses may not yet reach the metadata among them.
      let range = SpecialRange.why(address, special)
      let length = range.map { Int($0.prefix.length) } ?? address.bitCount
      if !isLifted(address, port, transport, length, range?.sets ?? special) {
        return Denial(destination: destination, meant: address, reason: .builtIn(range?.sets ?? special, range))
      }
    }
    guard !rules.deny.isEmpty, let rule = rules.deny.rule(for: address, in: sets(address), transport, port, as: .deny)
    else { return nil }
    return Denial(destination: destination, meant: address, reason: .rule(rule))
  }

  private func sets(_ address: IPAddress) -> AddressSets {
    own.contains(address) ? address.sets.union(.host) : address.sets
  }

  /// - Parameter sets: for which the address is denied; the name of one of them lifts that.
  private func isLifted(
    _ address: IPAddress, _ port: UInt16?, _ transport: FlowTransport, _ length: Int, _ sets: AddressSets
  ) -> Bool {
    !rules.allow.isEmpty
      && rules.allow.rule(for: address, in: sets, transport, port, as: .lift, atLeast: length) != nil
  }
}
