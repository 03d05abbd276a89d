import Inet
import Policy

extension Configuration {
  /// What may leave, as lines: the same ones for two configurations that mean the same, whatever the order and spelling of
  /// their rules. Who wants to compare policies compares the SHA-384 of these lines, each with its newline.
  public var policyLines: [String] {
    guard networkMode != .none else { return ["network none"] }
    var lines = ["network \(networkMode.rawValue)", "default \(egress.isOpen ? "allow" : "deny")"]
    lines += Self.sorted(egress.deny.map { "deny \($0)" })
    lines += Self.sorted(egress.allow.map { "allow \($0)" })
    if egress.sni.check != .off {
      let ports = Set(egress.sni.ports).sorted().map { String($0) }
      lines.append("sni \(egress.sni.check.rawValue) \(ports.joined(separator: " "))")
    }
    lines += Self.sorted(
      resolver.names.hosts.map { host in
        "host \(host.name) \(host.addresses.map(\.description).joined(separator: " "))"
      })
    return lines
  }

  private static func sorted(_ lines: [String]) -> [String] { Array(Set(lines)).sorted() }
}
