import Inet

// The syntax of nft(8).
extension Ruleset: CustomStringConvertible {
  public var description: String { description(including: nil) }

  /// One family's part, or all.
  func description(including family: Family?) -> String {
    tables.filter { family == nil || $0.family == family }
      .map { table in
        let chains = table.chains.map { chain in
          "  chain \(chain.name) {\n"
            + "    type \(chain.kind.rawValue) hook \(chain.hook.rawValue) priority \(chain.priority); policy accept;\n"
            + chain.rules.map { "    \($0.description(in: table.family))\n" }.joined() + "  }\n"
        }
        return "table \(table.family) \(name) {\n\(chains.joined())}\n"
      }.joined()
  }
}

extension Ruleset.Rule {
  /// One line as `nft list ruleset` prints it.
  public func description(in family: Ruleset.Family) -> String {
    var words: [String] = []
    // `tcp dport 53` says the protocol by itself; without a port after it, the protocol needs words of its own.
    var transport: Ruleset.Transport?
    let ports = matches.contains {
      switch $0 {
      case .sourcePorts, .destinationPorts, .icmpType: true
      default: false
      }
    }
    for match in matches {
      switch match {
      case .transport(let number):
        transport = number
        if !ports { words.append("meta l4proto \(number.nftName)") }
      case .source(let prefix, let negated): words.append("\(family) saddr \(negated ? "!= " : "")\(prefix.nftText)")
      case .destination(let prefix, let negated):
        words.append("\(family) daddr \(negated ? "!= " : "")\(prefix.nftText)")
      case .sourcePorts(let range): words.append("\(transport?.nftName ?? "th") sport \(range.nftText)")
      case .destinationPorts(let range): words.append("\(transport?.nftName ?? "th") dport \(range.nftText)")
      case .input(let name, let negated): words.append("iifname \(negated ? "!= " : "")\"\(name)\"")
      case .output(let name, let negated): words.append("oifname \(negated ? "!= " : "")\"\(name)\"")
      case .state(let state): words.append("ct state \(state.nftText)")
      case .destinationIsLocal: words.append("fib daddr type local")
      // 0 or 1 where there is one, nothing where there is none.
      case .hasSocket: words.append("socket transparent <= 1")
      case .icmpType(let number):
        words.append("\(transport == .icmpv6 ? "icmpv6" : "icmp") type \(Self.icmpName(number, transport))")
      }
    }
    if counter { words.append("counter") }
    words.append(verdict.description(in: family))
    return words.joined(separator: " ")
  }
}

extension Ruleset.Rule {
  /// The error messages, by the names that nft(8) prints; others by number.
  private static func icmpName(_ number: UInt8, _ transport: Ruleset.Transport?) -> String {
    switch (number, transport) {
    case (3, .icmp), (1, .icmpv6): "destination-unreachable"
    case (2, .icmpv6): "packet-too-big"
    case (11, .icmp), (3, .icmpv6): "time-exceeded"
    case (12, .icmp), (4, .icmpv6): "parameter-problem"
    default: "\(number)"
    }
  }
}

extension Ruleset.Verdict {
  func description(in family: Ruleset.Family) -> String {
    switch self {
    case .accept: return "accept"
    case .drop: return "drop"
    case .return: return "return"
    case .redirect(let port): return "redirect to :\(port)"
    case .dnat(let address, nil): return "dnat to \(address)"
    case .dnat(let address, let port?): return "dnat to \(IPEndpoint(address, port))"
    case .masquerade: return "masquerade"
    case .reject(.adminProhibited): return "reject with \(family == .ip ? "icmp" : "icmpv6") admin-prohibited"
    case .reject(.tcpReset): return "reject with tcp reset"
    case .queue(let range, let flags):
      var names: [String] = []
      if flags.contains(.bypass) { names.append("bypass") }
      if flags.contains(.fanout) { names.append("fanout") }
      return "queue " + (names.isEmpty ? "" : "flags \(names.joined(separator: ",")) ") + "to \(range.nftText)"
    }
  }
}

extension Ruleset.Transport {
  var nftName: String {
    switch self {
    case .tcp: "tcp"
    case .udp: "udp"
    case .icmp: "icmp"
    case .icmpv6: "ipv6-icmp"
    }
  }
}

extension Ruleset.ConnectionState {
  /// In the order in which nft(8) prints them.
  private static let names: [(Self, String)] = [
    (.invalid, "invalid"), (.established, "established"), (.related, "related"), (.new, "new"),
    (.untracked, "untracked"),
  ]
  var nftText: String { Self.names.filter { contains($0.0) }.map(\.1).joined(separator: ",") }
}

extension IPPrefix {
  /// An address alone when the prefix is as long as it.
  fileprivate var nftText: String { Int(length) == address.bytes.count * 8 ? "\(address)" : description }
}

extension ClosedRange<UInt16> {
  fileprivate var nftText: String { lowerBound == upperBound ? "\(lowerBound)" : "\(lowerBound)-\(upperBound)" }
}
