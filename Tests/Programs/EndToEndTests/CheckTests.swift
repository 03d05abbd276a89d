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
        "allow 10.0.0.0/8:5432", "allow api.example.com:443", "sni require 443", "quic check",
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
        udp://10.1.2.3:5432: denied: no rule of egress.allow names it
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
      ("[egress]\nsni = \"check\"", "egress.sni: unknown key; known here: allow, default, deny, quic"),
      ("[program]\ncommand = [\"x\"]", "program: unknown key; known here: dns, egress"),
    ] {
      let outcome = check(text, "--as host")
      XCTAssertEqual(outcome.status, 125)
      XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors)
    }
  }

  /// Every key of what may leave has its own error, with its line; a rule and an address with their columns too.
  func testEveryKeyHasItsErrorWithItsPlace() {
    for (text, sentence) in [
      ("[egress]\ndefault = \"maybe\"", ":2: egress.default: found \"maybe\", expected \"allow\" or \"deny\""),
      (
        "[egress]\nallow = [\n  \"ok.test\",\n  \"10.0.0.1/8\"]",
        ":4:3: egress.allow: found \"10.0.0.1/8\", expected 10.0.0.0/8"
      ),
      ("[egress]\nallow = \"ok.test\"", ":2: egress.allow: found \"ok.test\", expected an array of strings"),
      ("[egress]\nallow = [\"ok.test\", 7]", ":2: egress.allow: found"),
      ("[egress]\ndeny = [\"ok.test\", \"a..b\"]", ":2:20: egress.deny: found \"a..b\", found an empty label"),
      ("[egress]\ndeny = [\"tls://ok.test\"]", ":2:9: egress.deny: found \"tls://ok.test\", expected \"tcp://\""),
      (
        "[egress]\ndeny = [\"1.2.3.256\"]",
        ":2:9: egress.deny: found \"1.2.3.256\", expected a name, whose last label is no number"
      ),
      ("[egress]\nsni = \"on\"", ":2: egress.sni: found \"on\", expected \"off\", \"check\" or \"require\""),
      (
        "[egress]\nsni_ports = [443, 0]",
        ":2: egress.sni_ports: found [443, 0], expected an array of numbers from 1 to 65535"
      ),
      ("[dns]\ncache = -1", ":2: dns.cache: found -1, expected a number from 0 to 1000000"),
      ("[dns]\nhold = \"1500ms\"", ":2: dns.hold: found \"1500ms\", expected a duration of whole seconds"),
      ("[dns]\ndenied = \"drop\"", ":2: dns.denied: found \"drop\", expected \"refused\" or \"nxdomain\""),
      ("[dns]\nsearch = [\"a b\"]", ":2: dns.search: found \"a b\", expected a domain name"),
      ("[dns]\noptions = [\"ndots:x\"]", ":2: dns.options: found \"ndots:x\", expected an option"),
      ("[dns]\nupstreams = []", ":2: dns.upstreams: unknown key"),
      (
        "[dns.hosts]\n\n\"a.b\" = [\"10.0.0.5\",\n \"10.0.0.500\"]",
        ":4:2: dns.hosts.a.b: found \"10.0.0.500\", expected an address"
      ),
      ("[dns]\nhosts = { \"a.b\" = [\"x\"] }", ":2:20: dns.hosts.a.b: found \"x\", expected an address"),
      ("[dns.hosts]\n\"a b\" = [\"10.0.0.5\"]", ":2: dns.hosts.a b: found \"a b\", expected labels"),
      ("[egress\n", ":1: not TOML:"),
    ] {
      let outcome = check(text)
      XCTAssertEqual(outcome.status, 125, outcome.output)
      XCTAssertTrue(outcome.errors.contains(".toml" + sentence), "\(sentence): \(outcome.errors)")
    }
    for (text, sentence) in [
      ("[egress]\nallow = [\"a.test:0\"]", ":2:10: egress.allow: found \"a.test:0\", expected a port from 1 to 65535"),
      ("[dns]\nhold = \"25h\"", ":2: dns.hold: found \"25h\""), ("[dns]\ncache = 5", ":2: dns.cache: unknown key"),
    ] {
      let outcome = check(text, "--as host")
      XCTAssertEqual(outcome.status, 125, outcome.output)
      XCTAssertTrue(outcome.errors.contains(".toml" + sentence), "\(sentence): \(outcome.errors)")
    }
  }

  /// In raw mode there are datagrams and pings, which TCP mode does not carry.
  func testWouldInRawMode() {
    let outcome = check(
      "[network]\nmode = \"raw\"\n[egress]\nallow = [\"udp://10.0.0.0/8:53\", \"icmp://10.0.0.0/8\", \"10.0.0.1:443\"]",
      "--would udp://10.1.1.1:53 --would udp://10.1.1.1:54 --would icmp://10.1.1.1 --would icmp://8.8.8.8 --would 10.0.0.1:443 --would udp://10.0.0.1:443"
    )
    XCTAssertEqual(outcome.status, 1)
    XCTAssertEqual(
      outcome.output,
      """
      udp://10.1.1.1:53: allowed: egress.allow has "udp://10.0.0.0/8:53"
      udp://10.1.1.1:54: denied: no rule of egress.allow names it
      icmp://10.1.1.1: allowed: egress.allow has "icmp://10.0.0.0/8"
      icmp://8.8.8.8: denied: no rule of egress.allow names it
      10.0.0.1:443: allowed: egress.allow has "10.0.0.1:443"
      udp://10.0.0.1:443: denied: no rule of egress.allow names it

      """)
  }

  /// What is no line of the proxy counts for nothing, whatever the program writes into it.
  func testALogThatTheProgramWritesInto() {
    func read(_ log: [String], _ option: String) -> Outcome {
      let file = "/tmp/tombolo-check-\(World.id).log"
      return bash(
        "cat > \(file) <<'X'\n\(log.joined(separator: "\n"))\nX\n\(World.tombolo) check \(option) \(file); s=$?; rm -f \(file); exit $s"
      )
    }
    let used = "egress to 10.0.0.1:443 (ok.test) allowed: egress.default is \"allow\""
    let forged = "egress to 10.0.0.6:443 (evil.test) allowed: egress.default is \"allow\""
    let time = "2026-11-27T21:29:31.281Z 2026-11-27T21:29:31.280Z"
    let text = read(
      [
        "\(time) 3 16/proxy | \(used)", "\(time) 4 stdout | \(forged)",
        "\(time) 5 stderr | \(time) 6 proxy | \(forged)",
        "\(time) 7 init | \(forged)", "tombolo: connection to 10.0.0.7:1 denied: x",
      ], "--seen")
    XCTAssertEqual(text.output, "used ok.test:443: egress.default is \"allow\"\ndenied 10.0.0.7:1: x\n", text.errors)
    func json(_ source: String, _ line: String) -> String {
      "{\"sequence\":1,\"source\":\"\(source)\",\"line\":\"\(line.replacingOccurrences(of: "\"", with: "\\\""))\"}"
    }
    let objects = read(
      [json("proxy", used), json("stdout", forged), json("stdout", json("proxy", forged))], "--suggest")
    XCTAssertTrue(objects.output.hasSuffix("allow = [\n  \"ok.test:443\",\n]\n"), objects.output)
    XCTAssertEqual(objects.errors, "")
    let raw = read(["tombolo proxy: \(used)", "tombolo proxy: \(used)", forged], "--seen")
    XCTAssertEqual(raw.output, "used ok.test:443 (2 times): egress.default is \"allow\"\n")
    XCTAssertTrue(raw.errors.contains("the program can have written any of these lines"), raw.errors)
    XCTAssertTrue(read([], "--suggest").output.hasSuffix("[egress]\ndefault = \"deny\"\nallow = [\n]\n"))
    XCTAssertEqual(bash("\(World.tombolo) check --seen /nowhere/log").status, 125)
    for words in ["--seen a --suggest b", "--seen a b", "--suggest a --would b", ""] {
      let outcome = bash("\(World.tombolo) check \(words)")
      XCTAssertEqual(outcome.status, 125)
      XCTAssertTrue(outcome.errors.contains("expected"), outcome.errors)
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
