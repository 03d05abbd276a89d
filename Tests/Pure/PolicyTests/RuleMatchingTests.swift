import Inet
import Policy
import Testing

/// The fast way to find a rule beside the obvious one, which goes through all of them.
struct RuleMatchingTests {
  private static func random(_ count: Int) -> Int { Int.random(in: 0..<count) }

  /// Few different labels, so that names meet rules.
  private static func labels(_ most: Int) -> [String] {
    (0..<random(most) + 1).map { _ in ["a", "b", "c", "ab", "a-b", "com", "xn--a"].randomElement() ?? "a" }
  }

  private static func address() -> IPAddress {
    if Bool.random() {
      let bits: UInt32 = [0x0a00_0000, 0xa9fe_a9fe, 0x0808_0808, 0x7f00_0001, 0xc0a8_0001].randomElement() ?? 0
      return .v4(IPv4Address(rawValue: bits ^ (UInt32(random(256)) << UInt32(random(25)))))
    }
    let high: UInt64 = [0x2606_4700_0000_0000, 0xfd00_0ec2_0000_0000, 0x0064_ff9b_0000_0000, 0].randomElement() ?? 0
    return .v6(
      IPv6Address(
        high: high ^ (UInt64(random(16)) << UInt64(random(61))),
        low: [0, 1, 0xffff_0a00_0001, 0x0a00_0001].randomElement() ?? 0))
  }

  private static func rule() -> DestinationRule {
    let ports: ClosedRange<UInt16>? = Bool.random() ? nil : UInt16(random(3) + 1)...UInt16(random(3) + 4)
    let transport: FlowTransport? = Bool.random() ? nil : [.tcp, .udp].randomElement() ?? .tcp
    switch random(5) {
    case 0, 1:
      guard let name = try? DomainName(text: labels(4).joined(separator: ".")) else { return rule() }
      return DestinationRule(Bool.random() ? .name(name) : .below(name), ports: ports, transport: transport)
    case 2:
      let sets: [AddressSets] = [.private, .linkLocal, .loopback, .multicast, .metadata, .reserved]
      return DestinationRule(.set(sets.randomElement() ?? .private), ports: ports, transport: transport)
    default:
      let address = address()
      guard let long = IPPrefix(address, UInt8(random(address.bitCount + 1))),
        let prefix = IPPrefix(long.network, long.length)
      else { return rule() }
      return DestinationRule(.prefix(prefix), ports: ports, transport: transport)
    }
  }

  private static func covers(_ rule: DestinationRule, _ transport: FlowTransport, _ port: UInt16, _ use: RuleUse)
    -> Bool
  {
    let carried = rule.transport == transport || rule.transport == nil && (use != .allow || transport == .tcp)
    return carried && (rule.ports?.contains(port) ?? true)
  }

  private static func names(_ rule: DestinationRule, _ name: DomainName) -> Bool {
    let text = "." + name.description
    switch rule.target {
    case .name(let own): return own.description == name.description
    case .below(let own): return text.hasSuffix("." + own.description) && text != "." + own.description
    case .prefix, .set: return false
    }
  }

  private static func names(_ rule: DestinationRule, _ address: IPAddress) -> Bool {
    switch rule.target {
    case .prefix(let prefix):
      guard prefix.address.bitCount == address.bitCount else { return false }
      return zip(prefix.address.bytes, address.bytes).enumerated().allSatisfy { index, pair in
        let kept = min(max(Int(prefix.length) - index * 8, 0), 8)
        return (pair.0 ^ pair.1) & (kept == 0 ? 0 : 0xff << UInt8(8 - kept)) == 0
      }
    case .set(let set): return address.sets.contains(set)
    case .name, .below: return false
    }
  }

  /// By the document's words and nothing else.
  private static func slow(
    _ isOpen: Bool, _ allow: [DestinationRule], _ deny: [DestinationRule], _ address: IPAddress, _ port: UInt16,
    _ transport: FlowTransport, _ known: [DomainName]
  ) -> Bool {
    let plain = address.unmapped
    var meant = [plain]
    if case .v6(let six) = plain { meant += six.embedded.map { .v4($0) } }
    for one in meant {
      let special = one.sets.intersection(Destinations.denied)
      if let range = SpecialRange.why(one, special), !special.isEmpty {
        let lifted = allow.contains { rule in
          guard covers(rule, transport, port, .lift), names(rule, one) else { return false }
          switch rule.target {
          case .prefix(let prefix): return prefix.length >= range.prefix.length
          case .set(let set): return !range.sets.isDisjoint(with: set)
          case .name, .below: return false
          }
        }
        if !lifted { return false }
      }
      if deny.contains(where: { covers($0, transport, port, .deny) && names($0, one) }) { return false }
    }
    if allow.contains(where: { covers($0, transport, port, .allow) && names($0, plain) }) { return true }
    func isGood(_ name: DomainName) -> Bool {
      if deny.contains(where: { covers($0, transport, port, .deny) && names($0, name) }) { return false }
      return isOpen || allow.contains { covers($0, transport, port, .allow) && names($0, name) }
    }
    return known.isEmpty ? isOpen : known.contains(where: isGood)
  }

  /// A million random questions about random rules.
  @Test func fastAndSlowAgree() throws {
    var allowed = 0
    for _ in 0..<5_000 {
      let allow = (0..<Self.random(9)).map { _ in Self.rule() }
      let deny = (0..<Self.random(5)).map { _ in Self.rule() }
      let isOpen = Self.random(4) == 0
      let rules = EgressRules(isOpen: isOpen, allow: allow, deny: deny)
      let destinations = Destinations(rules)
      let names = try (0..<10).map { _ in try DomainName(text: Self.labels(5).joined(separator: ".")) }
      for name in names {
        let denied = deny.contains { $0.ports == nil && $0.transport == nil && Self.names($0, name) }
        let expected = !denied && (isOpen || allow.contains { Self.names($0, name) })
        let found = if case .allowed = rules.verdict(on: name) { true } else { false }
        guard found == expected else {
          Issue.record("\(name): \(found) with \(isOpen) +\(allow) -\(deny)")
          return
        }
      }
      for _ in 0..<190 {
        let address = Self.address()
        let port = UInt16(Self.random(8) + 1)
        let transport: FlowTransport = Bool.random() ? .tcp : .udp
        let known = names.shuffled().prefix(Self.random(3))
        let expected = Self.slow(isOpen, allow, deny, address, port, transport, Array(known))
        let found = destinations.denial(of: address, port: port, transport, names: Array(known)) == nil
        guard found == expected else {
          Issue.record("\(transport)://\(address):\(port) \(known): \(found) with \(isOpen) +\(allow) -\(deny)")
          return
        }
        if found { allowed += 1 }
      }
    }
    // Both answers come often enough to mean something.
    #expect((100_000...900_000).contains(allowed), "\(allowed)")
  }

  /// With 100,000 rules a question takes not much longer than with ten. The bound is loose: machines are slow at times.
  @Test func manyRulesAreFast() throws {
    func time(_ count: Int) throws -> (name: Duration, address: Duration) {
      var allow: [DestinationRule] = []
      for index in 0..<count / 2 {
        allow.append(DestinationRule(.below(try DomainName(text: "d\(index).zone\(index % 97).example"))))
        let network = IPv4Address(rawValue: 0x0100_0000 &+ UInt32(truncatingIfNeeded: index) << 9)
        allow.append(DestinationRule(.prefix(try #require(IPPrefix(.v4(network), 24))), ports: 443...443))
      }
      let destinations = Destinations(EgressRules(isOpen: false, allow: allow))
      let names = try (0..<1000).map { try DomainName(text: "www.d\($0 * 37 % count).zone\($0 % 97).example") }
      var hits = 0
      let clock = ContinuousClock()
      let byName = clock.measure {
        for _ in 0..<20 {
          for name in names { if destinations.rules.verdict(on: name) != .denied(by: nil) { hits += 1 } }
        }
      }
      let byAddress = clock.measure {
        for index in 0..<20_000 {
          let address = IPAddress.v4(IPv4Address(rawValue: UInt32(truncatingIfNeeded: index &* 2_654_435_761)))
          if destinations.denial(of: address, port: 443) == nil { hits += 1 }
        }
      }
      #expect(hits > 0)
      return (byName / 20_000, byAddress / 20_000)
    }
    let (few, many) = (try time(10), try time(100_000))
    print(
      "a question: name \(few.name) with 10 rules, \(many.name) with 100,000; address \(few.address), \(many.address)")
    #expect(many.name < .microseconds(100) && many.address < .microseconds(100))
  }
}
