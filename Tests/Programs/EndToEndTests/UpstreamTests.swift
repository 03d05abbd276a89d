import Foundation
import XCTest

/// Name servers of the enclave's own choice, real ones: where the name on a certificate counts, a host that stands between learns
/// nothing of it that it could change, and what is not as it must be is no answer.
final class UpstreamTests: XCTestCase {
  private static let directory = World.directory + "/dns"
  private static let servers = #filePath.components(separatedBy: "/Programs/")[0] + "/clients/name-servers.sh"

  override class func setUp() {
    World.setUp(bigFile: false)
    let made = bash(
      """
      ip -n \(World.server) addr add 10.9.0.3/24 dev v1
      ip netns exec \(World.server) bash \(servers) \(directory) 10.9.0.3
      """, timeout: 60)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() {
    bash("cd \(directory) && for p in *.pid; do kill $(cat $p); done")
    World.tearDown()
  }

  /// - Parameter upstream: the key's value; with the test's CA where a server has a certificate.
  private func inEnclave(
    _ upstream: String, _ script: String, tombolo: String = World.tombolo, more: String = "", options: String = ""
  ) -> Outcome {
    bash(
      """
      cat > \(Self.directory)/c.toml <<'X'
      [dns]
      upstream = \(upstream)
      \(upstream.contains("://") && !more.contains("ca_file") ? "ca_file = \"\(Self.directory)/good.pem\"" : "")
      cache = 0
      \(more)
      X
      cat > \(Self.directory)/s.sh <<'X'
      ask() { dig +tries=1 +time=9 "$@" | awk '/status:/ { line = $6 } /^[^;].*IN/ { line = line $5 } END { print line }'; }
      \(script)
      X
      ip netns exec \(World.host) \(tombolo) run \(options) --config \(Self.directory)/c.toml -- bash \(Self.directory)/s.sh
      """)
  }

  private func lines(_ outcome: Outcome) -> [String] {
    outcome.errors.split(separator: "\n").map(String.init).filter { $0.contains("dns: ") }
  }

  /// Over TCP, TLS and HTTPS, by name and by address; also where the program asks over TCP, and somebody else.
  func testServersThatAreAsTheyMustBe() {
    for server in [
      "10.9.0.3", "tls://10.9.0.3#dns.test", "tls://10.9.0.3#10.9.0.3", "https://10.9.0.3/dns-query",
      "https://10.9.0.3/dns-query#dns.test",
    ] {
      let outcome = inEnclave(
        "[\"\(server)\"]", "ask ok.test; ask +tcp ok.test; ask @8.8.8.8 OK.test; ask none.test")
      XCTAssertEqual(
        outcome.output, "NOERROR,10.9.0.2\nNOERROR,10.9.0.2\nNOERROR,10.9.0.2\nNXDOMAIN,\n",
        server + outcome.errors)
      XCTAssertEqual(lines(outcome), [], server)
    }
  }

  /// Each failure is SERVFAIL and one line that says why; nothing is asked in the open.
  func testServersThatAreNot() {
    for (server, reason) in [
      ("tls://10.9.0.3#wrong.test", "hostname mismatch"), ("tls://10.9.0.3#10.9.0.4", "IP address mismatch"),
      ("tls://10.9.0.3:1853#dns.test", "certificate has expired"),
      ("tls://10.9.0.3:2853#dns.test", "unable to get local issuer certificate"),
      ("tls://10.9.0.3:3853#dns.test", "the server has ended the connection in its handshake"),
      ("tls://10.9.0.3:4853#dns.test", "wrong version number"),
      ("tls://10.9.0.3:9#dns.test", "connection refused"),
      ("https://10.9.0.3/dns-query#wrong.test", "hostname mismatch"),
      ("https://10.9.0.3:1443/dns-query#dns.test", "certificate has expired"),
      ("https://10.9.0.3:2443/dns-query#dns.test", "unable to get local issuer certificate"),
      ("https://10.9.0.3:4443/dns-query#dns.test", "the server speaks no HTTP/2 (ALPN), and nothing else is asked"),
      ("https://10.9.0.3:5443/dns-query#dns.test", "the server speaks no HTTP/2 (ALPN), and nothing else is asked"),
      ("https://10.9.0.3/elsewhere#dns.test", "HTTP status 404"),
    ] {
      let before = bash("grep -c ' ok.test. A' \(Self.directory)/right.log").output
      let outcome = inEnclave("[\"\(server)\"]", "ask ok.test")
      XCTAssertEqual(outcome.output, "SERVFAIL,\n", server)
      let said = lines(outcome)
      XCTAssertEqual(said.count, 1, "\(server): \(said)")
      XCTAssertTrue(said.first?.hasSuffix(": \(reason)") ?? false, "\(server): \(said)")
      XCTAssertEqual(bash("grep -c ' ok.test. A' \(Self.directory)/right.log").output, before, server)
    }
  }

  /// The next server is asked, but never one without a certificate behind one with it, which is an error at the start.
  func testTheNextServer() {
    let next = inEnclave(
      "[\"tls://10.9.0.3:1853#dns.test\", \"https://10.9.0.3/dns-query#dns.test\"]", "ask ok.test; ask other.test")
    XCTAssertEqual(next.output, "NOERROR,10.9.0.2\nNOERROR,10.9.0.2\n", next.errors)
    XCTAssertEqual(lines(next).count, 1, next.errors)
    let open = inEnclave("[\"tls://10.9.0.3:1853#dns.test\", \"10.9.0.3\"]", "ask ok.test")
    XCTAssertEqual(open.status, 125)
    XCTAssertTrue(open.errors.contains("expected plain servers first"), open.errors)
  }

  /// Many queries at a time share one connection; one that the server has ended when it was idle is followed by another.
  func testConnectionsAreKeptAndMadeAgain() {
    func accepted() -> Int {
      let text = bash("ip netns exec \(World.server) awk '/^Tcp: [0-9]/ { print $7 }' /proc/net/snmp").output
      return Int(text.trimmingCharacters(in: .whitespacesAndNewlines)) ?? -1
    }
    for server in ["tls://10.9.0.3#dns.test", "https://10.9.0.3/dns-query"] {
      let before = accepted()
      let outcome = inEnclave(
        "[\"\(server)\"]",
        """
        ask ok.test; sleep 1.5; ask ok.test
        for i in $(seq 60); do ask $i.many.test & done | sort | uniq -c | tr -s ' '
        ask last.many.test
        """)
      XCTAssertEqual(
        outcome.output, "NOERROR,10.9.0.2\nNOERROR,10.9.0.2\n 60 NOERROR,10.9.0.9\nNOERROR,10.9.0.9\n",
        server + outcome.errors)
      XCTAssertEqual(lines(outcome), [], server)
      // The first, the one after the pause; on a slow machine there are pauses of 300 ms between others, too.
      XCTAssertTrue((2...12).contains(accepted() - before), "\(server): \(accepted() - before) connections")
    }
  }

  /// The servers are the proxy's to reach, and not by that the program's; the rules hold for the names as ever.
  func testThePolicyHolds() {
    let outcome = inEnclave(
      "[\"tls://10.9.0.3#dns.test\"]",
      """
      ask ok.test; ask other.test
      curl -sS -m 5 -o /dev/null --noproxy '*' http://ok.test:8080/file && echo reached
      curl -sS -m 5 --noproxy '*' -k https://10.9.0.3:853/ 2>/dev/null; echo $?
      """, more: "[egress]\nallow = [\"ok.test:8080\"]")
    XCTAssertEqual(outcome.output.split(separator: "\n").first, "NOERROR,10.9.0.2", outcome.errors)
    XCTAssertTrue(outcome.output.contains("REFUSED,\nreached\n"), outcome.output)
    XCTAssertFalse(outcome.output.hasSuffix("\n0\n"), outcome.output)
    XCTAssertTrue(outcome.errors.contains("egress to 10.9.0.3:853 denied"), outcome.errors)
  }

  /// What the process may do is what its work needs: no capabilities, no file, no socket of its own.
  func testTheClientHasNoRights() {
    let outcome = inEnclave(
      "[\"tls://10.9.0.3#dns.test\"]",
      """
      ask ok.test
      for p in /proc/[0-9]*; do
        [ "$(cat $p/comm)" = tombolo-dns ] || continue
        grep -E '^(Uid|CapPrm|CapBnd|NoNewPrivs|Seccomp):' $p/status | tr -s '\\t' ' '
        ls $p/fd 2>&1 | wc -l; cat $p/environ 2>&1 | head -c 20 | tr '\\0' ' '
      done
      """)
    XCTAssertTrue(
      outcome.output.hasPrefix("NOERROR,10.9.0.2\nUid: 61042 61042 61042 61042\nCapPrm: 0000000000000000\n"),
      outcome.output)
    XCTAssertTrue(outcome.output.contains("NoNewPrivs: 1\nSeccomp: 2\n"), outcome.output)
  }

  /// A client that is killed is started again, and the program gets its answers.
  func testAClientThatDiesIsFollowedByAnother() {
    let outcome = inEnclave(
      "[\"tls://10.9.0.3#dns.test\"]",
      """
      ask ok.test
      for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = tombolo-dns ] && kill -9 ${p#/proc/}; done
      for i in $(seq 20); do a=$(ask ok.test); [ "$a" = SERVFAIL, ] || break; sleep 0.1; done; echo $a
      """)
    XCTAssertEqual(outcome.output, "NOERROR,10.9.0.2\nNOERROR,10.9.0.2\n", outcome.errors)
    XCTAssertTrue(outcome.errors.contains("the DNS client was ended by signal 9"), outcome.errors)
  }

  /// Where the companion or the certificates are missing, the start and the image say so.
  func testWhatIsMissingIsSaid() {
    let alone = Self.directory + "/alone"
    bash("mkdir -p \(alone); cp \(World.binaries)/tombolo \(World.binaries)/tombolo-init \(alone)")
    let start = inEnclave("[\"10.9.0.3\"]", "ask ok.test", tombolo: alone + "/tombolo")
    XCTAssertEqual(start.status, 125)
    XCTAssertTrue(start.errors.contains("dns.upstream needs tombolo-dns beside tombolo-init"), start.errors)
    let image = bash(
      """
      cd \(Self.directory); mkdir -p tree/etc; printf '[dns]\\nupstream = ["10.9.0.3"]\\n' > tree/etc/tombolo.toml
      \(alone)/tombolo image build --rootfs tree -o no.cpio -- /bin/x; echo $?
      \(World.tombolo) image build --rootfs tree -o yes.cpio -- /bin/x >/dev/null && cpio -t --quiet < yes.cpio | grep tombolo-dns
      """)
    XCTAssertEqual(image.output, "1\ntombolo-dns\n", image.errors)
    XCTAssertTrue(image.errors.contains("dns.upstream needs tombolo-dns beside the init program"), image.errors)
    let wrong = inEnclave("[\"tls://10.9.0.3#dns.test\"]", "ask ok.test", more: "ca_file = \"/nowhere.pem\"")
    XCTAssertEqual(wrong.status, 125)
    XCTAssertTrue(
      wrong.errors.contains(
        "dns.ca_file: found \"/nowhere.pem\", expected PEM certificates: open /nowhere.pem: No such file or directory"),
      wrong.errors)
    // At once, and not when the client has not become ready.
    for (file, defect) in [("empty", "it is empty"), ("s.sh", "it has none"), ("cut", "certificate 1 has no end")] {
      bash("cd \(Self.directory); : > empty; head -c 200 good.pem > cut")
      let path = "\(Self.directory)/\(file)"
      let start = inEnclave(
        "[\"tls://10.9.0.3#dns.test\"]", "ask ok.test", more: "ca_file = \"\(path)\"")
      XCTAssertEqual(start.status, 125)
      XCTAssertTrue(
        start.errors.contains("dns.ca_file: found \"\(path)\", expected PEM certificates: \(defect)"), start.errors)
    }
  }
}
