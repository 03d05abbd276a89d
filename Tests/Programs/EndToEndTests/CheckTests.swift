import Foundation
import XCTest

/// `tombolo check`: what an operator learns of a configuration before it is in an image.
final class CheckTests: XCTestCase {
  private func check(_ configuration: String, _ options: String = "") -> Outcome {
    let file = "/tmp/tombolo-check-\(World.id).toml"
    return bash(
      "cat > \(file) <<'X'\n\(configuration)\nX\n\(World.tombolo) check \(options) \(file); s=$?; rm -f \(file); exit $s"
    )
  }

  private static let policy = """
    [egress]
    default = "deny"
    allow = ["API.example.com.:443", "*.example.net", "10.0.0.0/8:5432"]
    deny = ["10.66.0.0/16", "evil.example.net"]
    sni = "require"
    """

  func testTheEffectivePolicy() {
    let outcome = check(Self.policy)
    XCTAssertEqual(outcome.status, 0, outcome.errors)
    let lines = outcome.output.split(separator: "\n").map(String.init)
    XCTAssertEqual(
      Array(lines.dropLast()),
      [
        "network tcp", "default deny", "deny 10.66.0.0/16", "deny evil.example.net", "allow *.example.net",
        "allow 10.0.0.0/8:5432", "allow api.example.com:443", "sni require 443",
      ])
    let digest = bash("printf '%s\\n' \(lines.dropLast().map { "'\($0)'" }.joined(separator: " ")) | sha384sum").output
    XCTAssertEqual(lines.last, "digest \(digest.prefix(96))")
    // Another order and spelling, and keys that have nothing to do with it.
    let same = check(
      """
      hostname = "other"
      [egress]
      sni_ports = [443, 443]
      sni = "require"
      deny = ["evil.example.net", "10.66.0.0/16"]
      allow = ["10.0.0.0/8:5432", "*.example.net", "api.example.com:443", "api.example.com:443"]
      """)
    XCTAssertEqual(same.output, outcome.output)
  }

  func testWould() {
    let outcome = check(
      Self.policy,
      "--would api.example.com:443 --would a.b.example.net --would 10.1.2.3:5432 --would api.example.com:80 --would 10.66.0.1:5432 "
        + "--would evil.example.net:443 --would 169.254.169.254:80 --would udp://10.1.2.3:5432 --would 8.8.8.8:443")
    XCTAssertEqual(outcome.status, 1)
    XCTAssertTrue(
      outcome.output.hasPrefix(
        """
        api.example.com:443: allowed: egress.allow has "api.example.com:443"
        a.b.example.net: allowed: egress.allow has "*.example.net"
        10.1.2.3:5432: allowed: egress.allow has "10.0.0.0/8:5432"
        api.example.com:80: denied: no rule of egress.allow names it
        10.66.0.1:5432: denied: egress.deny has "10.66.0.0/16"
        evil.example.net:443: denied: egress.deny has "evil.example.net"
        169.254.169.254:80: denied: built-in rule "metadata": it is in 169.254.169.254/32,
        """), outcome.output)
    XCTAssertTrue(
      outcome.output.hasSuffix(
        """
        udp://10.1.2.3:5432: denied: network.mode is "tcp", which carries TCP alone
        8.8.8.8:443: denied: no rule of egress.allow names it

        """), outcome.output)
    XCTAssertEqual(check(Self.policy, "--would a.example.net:443").status, 0)
    XCTAssertEqual(check("", "--would 8.8.8.8:443").output, "8.8.8.8:443: allowed: egress.default is \"allow\"\n")
  }

  /// The rules of a host: the same language, and only what a host can hold an enclave to.
  func testAsHost() {
    let outcome = check("[egress]\nallow = [\"a.test:443\"]", "--as host --would a.test:443 --would b.test:443")
    XCTAssertEqual(outcome.status, 1)
    XCTAssertEqual(
      outcome.output,
      "a.test:443: allowed: egress.allow has \"a.test:443\"\nb.test:443: denied: no rule of egress.allow names it\n")
    XCTAssertTrue(check("", "--as host").output.hasPrefix("network tcp\ndefault deny\ndigest "))
    for (text, sentence) in [
      ("[egress]\nsni = \"check\"", "egress.sni: unknown key; known here: allow, default, deny"),
      ("[program]\ncommand = [\"x\"]", "program: unknown key; known here: dns, egress"),
    ] {
      let outcome = check(text, "--as host")
      XCTAssertEqual(outcome.status, 125)
      XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors)
    }
  }

  func testMistakes() {
    for (text, options, sentence) in [
      ("[egress]\nallow = [\"a.test\",\n \"exa mple\"]", "", ":3:2: egress.allow: found \"exa mple\", expected labels"),
      ("[egress]\nalow = []", "", ":2: egress.alow: unknown key"),
      ("", "--would private", "--would: found \"private\", expected a name or an address"),
      ("", "--would 10.0.0.1", "--would: found \"10.0.0.1\", expected a port behind an address"),
      ("", "--would a.test:1-2", "--would: found \"a.test:1-2\", expected one port"),
    ] {
      let outcome = check(text, options)
      XCTAssertEqual(outcome.status, 125, outcome.errors)
      XCTAssertTrue(outcome.errors.contains(sentence), "\(sentence): \(outcome.errors)")
    }
  }
}
