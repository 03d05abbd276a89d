import Inet

/// Why a ruleset cannot be given to a kernel: where, and what is wrong there.
public struct RulesetError: Error, Equatable, CustomStringConvertible, Sendable {
  /// `table ip tombolo chain output_nat rule 3`, as far as it is known.
  public var place: String
  public var reason: String
  public var description: String { "\(place): \(reason)" }
}

extension Ruleset {
  /// The same rules for both back ends, so that a ruleset either works on all kernels or on none.
  public func validate() throws(RulesetError) {
    try Self.checkName(name, limit: 16) { "table" }
    // In xtables the chain `a_b_c` must be that of one ruleset only.
    guard !name.utf8.contains(UInt8(ascii: "_")) else {
      throw RulesetError(place: "table", reason: "\"\(name)\" has a _")
    }
    for table in tables {
      // Put together only where there is something to say: every boot passes here.
      let place = { "table \(table.family) \(name)" }
      guard tables.count(where: { $0.family == table.family }) == 1 else {
        throw RulesetError(place: place(), reason: "more than one table of this family")
      }
      for chain in table.chains {
        let place = { "\(place()) chain \(chain.name)" }
        // Together they are the name of a chain in xtables: at most 28 bytes for iptables(8).
        try Self.checkName(chain.name, limit: 27 - name.utf8.count, place)
        guard table.chains.count(where: { $0.name == chain.name }) == 1 else {
          throw RulesetError(place: place(), reason: "more than one chain of this name")
        }
        if chain.kind == .nat, chain.hook == .forward {
          throw RulesetError(place: place(), reason: "there is no NAT in the forward hook")
        }
        if chain.kind == .filter, chain.hook == .prerouting || chain.hook == .postrouting {
          throw RulesetError(place: place(), reason: "legacy xtables has no filter in the \(chain.hook.rawValue) hook")
        }
        if chain.kind == .nat, chain.priority <= -200 {
          throw RulesetError(place: place(), reason: "NAT must come after conntrack (priority -200)")
        }
        for (index, rule) in chain.rules.enumerated() {
          if let reason = rule.defect(in: chain, of: table.family) {
            let place = "\(place()) rule \(index + 1) (\(rule.description(in: table.family)))"
            throw RulesetError(place: place, reason: reason)
          }
        }
      }
    }
  }

  private static func checkName(_ name: String, limit: Int, _ place: () -> String) throws(RulesetError) {
    let legal = name.utf8.allSatisfy {
      switch $0 {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "_"),
        UInt8(ascii: "0")...UInt8(ascii: "9"):
        true
      default: false
      }
    }
    let startsWithDigit = name.utf8.first.map { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } ?? true
    guard legal, (1...limit).contains(name.utf8.count), !startsWithDigit else {
      throw RulesetError(
        place: place(), reason: "\"\(name)\" is not 1 to \(limit) letters, digits and _, starting with no digit")
    }
  }
}

extension Ruleset.Rule {
  /// What is wrong with the rule, or nil.
  fileprivate func defect(in chain: Ruleset.Chain, of family: Ruleset.Family) -> String? {
    var transport: Ruleset.Transport?
    for (index, match) in matches.enumerated() {
      if matches[..<index].contains(where: { $0.field == match.field }) { return "the same field twice" }
      switch match {
      case .transport(let number):
        if number == .icmp, family == .ip6 { return "icmp is the protocol of the other family" }
        if number == .icmpv6, family == .ip { return "icmpv6 is the protocol of the other family" }
        transport = number
      case .source(let prefix, let negated), .destination(let prefix, let negated):
        if prefix.family != family { return "\(prefix) is of the other family" }
        if prefix.length == 0, negated { return "nothing is outside \(prefix)" }
      case .sourcePorts, .destinationPorts:
        if transport?.hasPorts != true { return "a port needs tcp or udp before it" }
      case .input(let name, _):
        if chain.hook == .output || chain.hook == .postrouting { return "no input interface in this hook" }
        if !Self.isInterfaceName(name) { return "\"\(name)\" is no interface name" }
      case .output(let name, _):
        if chain.hook == .input || chain.hook == .prerouting { return "no output interface in this hook" }
        if !Self.isInterfaceName(name) { return "\"\(name)\" is no interface name" }
      case .state(let state):
        if state.isEmpty || state.nftText.isEmpty { return "no connection state" }
      case .icmpType:
        if transport != .icmp, transport != .icmpv6 { return "an ICMP type needs icmp or icmpv6 before it" }
      case .hasSocket:
        if chain.hook != .input && chain.hook != .prerouting { return "no look for a socket in this hook" }
      case .destinationIsLocal:
        if chain.hook == .postrouting { return "no look at the destination's kind in this hook" }
      }
    }
    switch verdict {
    case .accept, .drop, .return: return nil
    case .redirect, .dnat:
      if chain.kind != .nat || (chain.hook != .prerouting && chain.hook != .output) {
        return "only in a nat chain of the prerouting or output hook"
      }
      if case .redirect(0) = verdict { return "no port" }
      if case .dnat(let address, let port) = verdict {
        if port == 0 { return "no port" }
        if IPPrefix(address, 0)?.family != family { return "\(address) is of the other family" }
        if port == nil { return nil }
      }
      return transport?.hasPorts == true ? nil : "a port needs tcp or udp before it"
    case .masquerade:
      return chain.kind == .nat && chain.hook == .postrouting ? nil : "only in a nat chain of the postrouting hook"
    case .reject(let rejection):
      if chain.kind != .filter { return "only in a filter chain" }
      return rejection != .tcpReset || transport == .tcp ? nil : "a TCP reset needs tcp before it"
    case .queue(let range, _):
      // The kernel has 65536 queues and 16 bits for their number.
      if range.count > Int(UInt16.max) { return "more than 65535 queues" }
      return chain.kind == .filter ? nil : "only in a filter chain"
    }
  }

  /// dev_valid_name of net/core/dev.c, and no quotation mark because nft(8) could not read it back.
  private static func isInterfaceName(_ text: String) -> Bool {
    let name = text.hasSuffix("*") ? text.dropLast() : text[...]
    return (1...15).contains(name.utf8.count) && name != "." && name != ".."
      && name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && !"/:\"*".utf8.contains($0) }
  }
}

extension Ruleset.Match {
  /// Which part of the packet it looks at; a rule of xtables can look at each once.
  fileprivate var field: Int {
    switch self {
    case .transport: 0
    case .source: 1
    case .destination: 2
    case .sourcePorts: 3
    case .destinationPorts: 4
    case .input: 5
    case .output: 6
    case .state: 7
    case .destinationIsLocal: 8
    case .icmpType: 9
    case .hasSocket: 10
    }
  }
}
