import Allowlist
import Inet
import Testing

/// AWS's own file must be taken as it is, and whatever else a file has must not open more than it says.
struct AllowlistTests {
  private func service(_ host: String, _ port: UInt16) throws -> Allowlist.Service {
    .init(try #require(ForwardHost(host)), port)
  }

  /// The first lines of what the package aws-nitro-enclaves-cli installs, and its README's example.
  @Test func awsOwnFile() throws {
    let list = try Allowlist(
      yaml: """
        allowlist:
        - {address: kms.us-east-2.amazonaws.com, port: 443}
        - {address: kms-fips.us-east-2.amazonaws.com, port: 443}
        """)
    #expect(
      list.services == [
        try service("kms.us-east-2.amazonaws.com", 443), try service("kms-fips.us-east-2.amazonaws.com", 443),
      ])
    #expect(list.allows(try service("KMS.us-east-2.amazonaws.com", 443)))
    #expect(!list.allows(try service("kms.us-east-2.amazonaws.com", 80)))
    #expect(!list.allows(try service("us-east-2.amazonaws.com", 443)))
  }

  /// All spellings of YAML that say the same.
  @Test func otherSpellings() throws {
    let wanted = [try service("a.test", 443), try service("10.0.0.1", 80), try service("fd00::1", 22)]
    for text in [
      "allowlist:\n  - address: a.test\n    port: 443\n  - address: 10.0.0.1\n    port: 80\n  - address: fd00::1\n    port: 22\n",
      "---\n# ours\nallowlist: [{address: \"a.test\", port: 443}, {port: 80, address: '10.0.0.1'}, {address: 'fd00::1', port: 22}]\n",
      "version: 1\nallowlist:\n- address: >-\n    a.test\n  port: 443\n  note: [x, {y: z}]\n- {address: 10.0.0.1, port: 80}\n- {address: \"fd00:0::1\", port: 22}\n...\n",
    ] { #expect(try Allowlist(yaml: text).services == wanted, "\(text)") }
    for text in ["allowlist:\n", "allowlist: []\n", "allowlist: ~\n"] {
      #expect(try Allowlist(yaml: text).services == [])
    }
  }

  @Test func whatIsNoAllowlist() {
    for (text, problem) in [
      ("", "1: found nothing"),
      ("a", "1: expected a mapping with the key \"allowlist\""),
      ("whitelist: []", "1: expected the key \"allowlist\""),
      ("allowlist: x", "1: allowlist: expected a sequence of entries with \"address\" and \"port\""),
      ("allowlist:\n- x", "2: expected an entry with \"address\" and \"port\""),
      ("allowlist:\n- {port: 1}", "2: expected \"address\" with a name or an address"),
      ("allowlist:\n- {address: a b, port: 1}", "2: address: found \"a b\", expected a name or an address"),
      ("allowlist:\n- {address: a}", "2: expected \"port\" with a number"),
      ("allowlist:\n- address: a\n  port: \"1\"", "2: expected \"port\" with a number"),
      ("allowlist:\n- address: a\n  port: 65536", "3: port: found \"65536\", expected a number from 1 to 65535"),
      ("allowlist:\n- address: a\n  port: 0", "3: port: found \"0\", expected a number from 1 to 65535"),
      ("allowlist: []\nallowlist: []", "2: found \"allowlist\" twice"),
      ("a: &x 1\nallowlist: *x", "2: found an alias, expected what it stands for"),
      ("allowlist: []\n---\nallowlist: []", "2: found a second document, expected one"),
      (String(repeating: "[", count: 17), "1: found more than 16 levels"),
    ] {
      #expect(throws: Allowlist.Mistake.self, "\(text)") { try Allowlist(yaml: text) }
      do throws(Allowlist.Mistake) { _ = try Allowlist(yaml: text) } catch { #expect("\(error)" == problem, "\(text)") }
    }
    for text in ["a: [", "\t- x", "a: b: c", "%YAML 3.0\n--- a", "\"", "{a: b"] {
      do throws(Allowlist.Mistake) {
        _ = try Allowlist(yaml: text)
        Issue.record("taken: \(text)")
      } catch { #expect("\(error)".contains("not YAML: "), "\(text): \(error)") }
    }
  }

  @Test func anyTextGivesAListOrAMistake() {
    let pieces = [
      "allowlist", ":", " ", "\n", "-", "{", "}", "[", "]", "address", "port", "a.test", "443", "&x", "*x", "\"", "'",
      "|", ">", "#", "\t", ",", "?", "!", "%", "é", "\u{0}",
    ]
    for _ in 0..<20_000 {
      _ = try? Allowlist(yaml: (0..<Int.random(in: 0...24)).map { _ in pieces.randomElement() ?? "" }.joined())
    }
  }
}
