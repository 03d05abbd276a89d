import Inet
import Policy

extension Configuration {
  /// What may leave, as lines: the same ones for two configurations that mean the same, whatever the order and spelling of
  /// their rules. Who wants to compare policies compares the SHA-384 of these lines, each with its newline.
  public var policyLines: [String] {
    guard networkMode != .none else { return ["network none"] + Self.sorted(forwardLines) }
    var lines = ["network \(networkMode.rawValue)", "default \(egress.isOpen ? "allow" : "deny")"]
    lines += Self.sorted(egress.allDenied.map { "deny \($0)" })
    lines += Self.sorted(egress.allow.map { "allow \($0)" })
    if egress.sni.check != .off {
      var last: UInt16 = 0
      var line = "sni \(egress.sni.check.rawValue)"
      for port in egress.sni.ports.sorted() where port != last {
        line += " \(port)"
        last = port
      }
      lines.append(line)
    }
    if networkMode != .none, egress.sni.checksQUIC { lines.append("quic check") }
    lines += Self.sorted(forwardLines)
    // In their order, which counts.
    lines += resolver.names.upstreams.map { "upstream \($0)" }
    lines += Self.sorted(
      resolver.names.hosts.map { host in host.addresses.reduce("host \(host.name)") { $0 + " \($1)" } })
    // Only where names decide: for how long an answer's address may be reached.
    if networkMode == .tcp ? !egress.isOpen || !egress.allDenied.isEmpty : egress.needsNames,
      resolver.names.hold != NameSettings().hold
    {
      lines.append("hold \(resolver.names.hold)s")
    }
    return lines
  }

  /// Without a set and joined(separator:), whose first use looks through every conformance of the program: a boot does this.
  private static func sorted(_ lines: [String]) -> [String] {
    var result: [String] = []
    for line in lines.sorted() where result.last != line { result.append(line) }
    return result
  }
}
