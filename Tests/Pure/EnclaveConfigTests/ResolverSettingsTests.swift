import EnclaveConfig
import Testing

struct ResolverSettingsTests {
  private static func problem(_ text: String) -> String? {
    do {
      _ = try Configuration(toml: text, file: "t")
      return nil
    } catch { return "\(error)" }
  }

  @Test func theConfigurationGoesOverTheMachines() throws {
    let machine = ResolverSettings(search: ["m.example"], options: ["rotate"])
    let none = try Configuration(toml: "", file: "t").resolver
    #expect(none.resolvConf(nameServer: "192.0.2.1") == "nameserver 192.0.2.1\n")
    #expect(
      none.resolvConf(nameServer: "192.0.2.1", machine: machine)
        == "nameserver 192.0.2.1\nsearch m.example\noptions rotate\n")
    let said = try Configuration(
      toml: "[dns]\nsearch = [\"a.example\", \"b_c.example.\"]\noptions = [\"ndots:2\", \"no-aaaa\"]", file: "t"
    ).resolver
    #expect(
      said.resolvConf(nameServer: "192.0.2.1", machine: machine)
        == "nameserver 192.0.2.1\nsearch a.example b_c.example.\noptions ndots:2 no-aaaa\n")
    let empty = try Configuration(toml: "[dns]\nsearch = []\noptions = []", file: "t").resolver
    #expect(empty.resolvConf(nameServer: "192.0.2.1", machine: machine) == "nameserver 192.0.2.1\n")
  }

  /// Nothing of the configuration becomes another line of the file, and nothing is clamped.
  @Test func mistakesAreSaid() {
    for domain in ["", ".", "a b", "a\\nnameserver 1.2.3.4", "a..b", "-\u{e9}", String(repeating: "a", count: 64)] {
      let found = Self.problem("[dns]\nsearch = [\"\(domain)\"]")
      #expect(found?.hasPrefix("t:2: dns.search: found \"") == true, "\(domain): \(found ?? "nothing")")
    }
    for option in ["", "ndots", "ndots:16", "ndots:-1", "timeout:0", "attempts:6", "rotate:1", "a b", "x:y", "edns0:"] {
      let found = Self.problem("[dns]\noptions = [\"\(option)\"]")
      #expect(found?.hasPrefix("t:2: dns.options: found \"\(option)\"") == true, "\(option): \(found ?? "nothing")")
    }
    let many = (0..<33).map { "\"d\($0)\"" }.joined(separator: ", ")
    #expect(Self.problem("[dns]\nsearch = [\(many)]")?.contains("found 33 domains, expected at most 32") == true)
    #expect(
      Self.problem("[dns]\nservers = []")?.contains(
        "known here: ca_file, cache, denied, hold, hosts, options, search, upstream") == true)
  }
}
