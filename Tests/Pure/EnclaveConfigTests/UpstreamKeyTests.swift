import EnclaveConfig
import Testing

/// `dns.upstream` and `dns.ca_file`: what is wrong has its place.
struct UpstreamKeyTests {
  private static func error(_ text: String) -> String {
    do {
      let configuration = try Configuration(toml: text, file: "c.toml")
      return configuration.defect ?? "taken: \(configuration.policyLines.filter { $0.hasPrefix("upstream") })"
    } catch {
      return "\(error)"
    }
  }

  @Test func whatIsTaken() {
    #expect(Self.error("[dns]\nupstream = \"host\"") == "taken: []")
    #expect(
      Self.error("[dns]\nupstream = [\"1.1.1.1\", \"tls://1.1.1.1#one.one.one.one\", \"https://1.1.1.1/dns-query\"]")
        == "taken: [\"upstream 1.1.1.1:53\", \"upstream tls://1.1.1.1:853#one.one.one.one\", "
        + "\"upstream https://1.1.1.1:443/dns-query#1.1.1.1\"]")
  }

  @Test(arguments: [
    (
      "upstream = [\"1.1.1.1\",\n\"tls://1.1.1.1\"]",
      "c.toml:3:1: dns.upstream: found \"tls://1.1.1.1\", expected \"#\""
    ),
    ("upstream = [\"dns.google\"]", "c.toml:2:13: dns.upstream: found \"dns.google\", expected the server's address"),
    ("upstream = [\"quic://1.1.1.1\"]", "c.toml:2:13: dns.upstream: found \"quic://1.1.1.1\", expected \"tls://\""),
    ("upstream = \"1.1.1.1\"", "c.toml:2: dns.upstream: found \"1.1.1.1\", expected \"host\" or an array"),
    ("upstream = []", "c.toml:2: dns.upstream: found no server"),
    ("upstream = [\"tls://1.1.1.1#a.test\", \"1.1.1.1\"]", "c.toml:2: dns.upstream: found \"1.1.1.1:53\" behind"),
    ("ca_file = \"ca.pem\"", "c.toml:2: dns.ca_file: found \"ca.pem\", expected an absolute path"),
    (
      "ca_file = \"/ca.pem\"",
      "dns.ca_file: found \"/ca.pem\", expected a server in dns.upstream that has a certificate"
    ),
    (
      "upstream = [\"1.1.1.1\"]\n[egress]\ndeny = [\"1.0.0.0/8\"]",
      "dns.upstream: found \"1.1.1.1:53\", which egress.deny has"
    ),
  ])
  func whatIsNot(_ text: String, _ sentence: String) {
    let error = Self.error("[dns]\n" + text)
    #expect(error.hasPrefix(sentence), "\(error)")
  }
}
