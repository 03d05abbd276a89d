import Foundation
import XCTest

/// Policy by name, with real servers of names and of TLS: what a rule names works for every client, and nothing else leaves.
final class NamePolicyTests: XCTestCase {
  private static let directory = World.directory
  private static let clients = #filePath.components(separatedBy: "/Programs/")[0] + "/clients"
  private static let dnsmasq = "10.9.0.3"
  private static let unbound = "10.9.0.5"

  override class func setUp() {
    World.setUp(bigFile: false)
    let made = bash(
      "ip netns exec \(World.server) bash \(clients)/name-world.sh \(directory) 10.9.0 fd09", timeout: 60)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() {
    bash("cd \(directory) && for f in names.pid unbound.pid talk.pid tls-*.pid; do kill $(cat $f); done")
    World.tearDown()
  }

  private func inEnclave(
    _ configuration: String, _ script: String, server: String = dnsmasq, options: String = "", watched: Bool = false
  ) -> Outcome {
    let run =
      "\(World.run) --dns \(server) --config \(Self.directory)/policy.toml \(options) -- bash \(Self.directory)/script.sh"
    return bash(
      """
      cat > \(Self.directory)/policy.toml <<'X'
      \(configuration)
      X
      cat > \(Self.directory)/script.sh <<'X'
      . \(Self.directory)/fetch.sh
      \(script)
      X
      \(watched ? "bash \(Self.clients)/watched.sh \(Self.directory) \(World.host) \(World.server) 10.9.0 \(run)" : run)
      """)
  }

  private static let names = """
    [egress]
    default = "deny"
    allow = ["ok.test:8080", "*.alias.test", "six.test:8080", "rebind.test", "big.test", "zero.test"]
    [dns]
    hold = "1s"
    """

  /// Each client that there is gets what a rule names and is refused the rest at once, whatever server it asks and however.
  func testNamesAreAllowedAndRefused() throws {
    let expected = try String(contentsOfFile: Self.clients + "/names.expected", encoding: .utf8)
    for server in [Self.dnsmasq, Self.unbound] {
      let outcome = inEnclave(
        Self.names, "bash \(Self.directory)/names.sh 10.9.0 fd09; dig +short localhost; dig +short -x 127.0.0.1",
        server: server)
      XCTAssertEqual(outcome.output, expected + "127.0.0.1\nlocalhost.\n", "\(server): \(outcome.errors)")
      for sentence in [
        "dns: other.test A denied: no rule of egress.allow names it",
        "egress to 10.9.0.2:8080 denied: no rule of egress.allow names it",
        "egress to 10.9.0.2:8081 (ok.test) denied: no rule of egress.allow names it",
        "dns: rebind.test A: taken out of the answer:",
      ] { XCTAssertTrue(outcome.errors.contains(sentence), "\(server): \(sentence): \(outcome.errors)") }
    }
  }

  /// `deny` wins; fixed answers are policy's too; a name that is denied may be said not to exist.
  func testDenyFixedAnswersAndNXDOMAIN() {
    let outcome = inEnclave(
      """
      [egress]
      default = "allow"
      deny = ["other.test", "10.9.0.2:8080"]
      [dns]
      denied = "nxdomain"
      hosts = { "fixed.test" = ["10.9.0.2", "fd09::2"] }
      """,
      """
      grep fixed /etc/hosts
      dig +short fixed.test; dig +short fixed.test AAAA; dig +short -x 10.9.0.2
      dig other.test | grep -o 'status: [A-Z]*'
      fetch -4 http://fixed.test:8080/file
      fetch -6 http://fixed.test:8080/file
      fetch -6 http://ok.test:8080/file
      """)
    XCTAssertEqual(
      outcome.output,
      """
      10.9.0.2 fixed.test
      fd09::2 fixed.test
      10.9.0.2
      fd09::2
      fixed.test.
      status: NXDOMAIN
      refused
      content-of-file
      content-of-file

      """, outcome.errors)
    XCTAssertTrue(outcome.errors.contains("dns: other.test A denied: egress.deny has \"other.test\""), outcome.errors)
    XCTAssertTrue(
      outcome.errors.contains("egress to 10.9.0.2:8080 (fixed.test) denied: egress.deny has \"10.9.0.2:8080\""),
      outcome.errors)
  }

  private static func sni(_ word: String) -> String {
    "[egress]\ndefault = \"deny\"\nallow = [\"ok.test\"]\nsni = \"\(word)\"\nsni_ports = [443, 8443, 8080]"
  }

  /// Another name at the same address is refused by what the client asks the server for; the bytes arrive as they were sent.
  func testTheNameThatAClientAsksFor() {
    let script = "bash \(Self.directory)/tls-names.sh 10.9.0"
    let required = inEnclave(Self.sni("require"), script)
    let lines = ["whole", "bytes", "records", "pq"].map { "\($0) ok.test handshake\n\($0) other.test reset\n" }.joined()
    XCTAssertEqual(
      required.output,
      "served\nserved\nserved\nrefused\nrefused\ncertificate\nnothing\nnothing\n" + lines
        + "whole - reset\nrefused\n220 ready\n", required.errors)
    for sentence in [
      "egress to 10.9.0.2:443 (other.test) denied: the client asks for other.test: no rule of egress.allow names it",
      "egress to 10.9.0.2:443 (ok.test) denied: the client names no server (egress.sni = \"require\")",
    ] { XCTAssertTrue(required.errors.contains(sentence), "\(sentence): \(required.errors)") }
    let checked = inEnclave(Self.sni("check"), script)
    XCTAssertEqual(
      checked.output,
      "served\nserved\nserved\nrefused\nserved\ncertificate\nnothing\ncertificate\n" + lines
        + "whole - handshake\ncontent-of-file\n220 ready\n", checked.errors)
  }

  /// The host is told for which name a connection is.
  func testTheHostLogsTheName() {
    let outcome = inEnclave(
      Self.names, "curl -sS --noproxy '*' http://ok.test:8080/nothing >/dev/null; curl -sS http://ok.test:8080/file",
      options: "-vv")
    XCTAssertTrue(outcome.output.hasSuffix("content-of-file\n"), outcome.errors)
    // As outside: a unique local address comes before IPv4 (RFC 6724).
    XCTAssertTrue(outcome.errors.contains("connection to [fd09::2]:8080 (ok.test)"), outcome.errors)
  }

  /// One allowed name, and somebody inside, root, who knows Tombolo and tries everything: no byte of it is on the wire, but what
  /// goes to that name.
  func testNothingGoesRound() {
    let outcome = inEnclave(
      "[egress]\ndefault = \"deny\"\nallow = [\"ok.test:8080\"]", "python3 \(Self.directory)/attack.py 10.9.0 fd09",
      watched: true)
    XCTAssertEqual(outcome.status, 0, outcome.errors)
    XCTAssertEqual(
      outcome.output, "tried enough: True\nallowed: HTTP/1.1 404\nheard: 0\nmarks: 0\nallowed: 1\n", outcome.errors)
  }

  /// The parent's owner bounds an enclave that allows itself everything, by name and by address; each side's log says that it
  /// was that side.
  func testTheHostHasRulesOfItsOwn() {
    let outcome = bash(
      """
      cat > \(Self.directory)/host.toml <<'X'
      [egress]
      default = "deny"
      allow = ["ok.test:8080"]
      [dns]
      denied = "nxdomain"
      X
      \(World.run) --dns \(Self.dnsmasq) --policy \(Self.directory)/host.toml -- bash -c '. \(Self.directory)/fetch.sh
        fetch http://10.9.0.2:8080/file; fetch http://ok.test:8080/file; fetch http://10.9.0.2:8080/file; fetch http://ok.test:8081/file
        fetch http://other.test:8080/file; dig www.alias.test | grep -o "status: [A-Z]*"'
      """)
    XCTAssertEqual(
      outcome.output, "refused\ncontent-of-file\ncontent-of-file\nrefused\nunknown\nstatus: NXDOMAIN\n", outcome.errors)
    for sentence in [
      "tombolo: connection to 10.9.0.2:8080 denied: no rule of egress.allow names it",
      "tombolo: connection to 10.9.0.2:8081 (ok.test) denied: no rule of egress.allow names it",
      "tombolo: name: other.test A denied: no rule of egress.allow names it",
    ] { XCTAssertTrue(outcome.errors.contains(sentence), "\(sentence): \(outcome.errors)") }
  }
}
