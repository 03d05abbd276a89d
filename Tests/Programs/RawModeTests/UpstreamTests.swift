import Foundation
import XCTest

/// Name servers of the enclave's own choice in raw mode: the program's queries reach the proxy, and a server that is not the one
/// it should be has no answer.
final class RawUpstreamTests: XCTestCase {
  private static let servers = #filePath.components(separatedBy: "/Programs/")[0] + "/clients/name-servers.sh"

  override class func setUp() {
    RawWorld.setUp(bigFile: false)
    let made = RawWorld.bash(
      """
      ip -n \(RawWorld.server) addr add 10.8.0.3/24 dev v1
      $S bash \(servers) $D/dns 10.8.0.3
      """, timeout: 60)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() {
    RawWorld.bash("cd $D/dns && for p in *.pid; do kill $(cat $p); done")
    RawWorld.tearDown()
  }

  func testOnlyTheRightServerAnswers() {
    for capture in ["tun", "nfqueue"] {
      for (server, answer, reason) in [
        ("tls://10.8.0.3#dns.test", "NOERROR,10.9.0.2", nil), ("https://10.8.0.3/dns-query", "NOERROR,10.9.0.2", nil),
        ("10.8.0.3", "NOERROR,10.9.0.2", nil), ("tls://10.8.0.3#wrong.test", "SERVFAIL,", "hostname mismatch"),
        ("tls://10.8.0.3:1853#dns.test", "SERVFAIL,", "certificate has expired"),
        ("tls://10.8.0.3:2853#dns.test", "SERVFAIL,", "unable to get local issuer certificate"),
        ("tls://10.8.0.3:3853#dns.test", "SERVFAIL,", "the server has ended the connection in its handshake"),
        ("tls://10.8.0.3:4853#dns.test", "SERVFAIL,", "wrong version number"),
      ] as [(String, String, String?)] {
        let outcome = RawWorld.bash(
          """
          cat > $D/upstream.toml <<'X'
          [dns]
          upstream = ["\(server)"]
          \(server.contains("://") ? "ca_file = \"\(RawWorld.directory)/dns/good.pem\"" : "")
          X
          cat > $D/ask.sh <<'X'
          dig +tries=1 +time=9 @8.8.8.8 ok.test | awk '/status:/ { print $6 } /^[^;].*IN/ { print $5 }' | tr -d '\\n'
          X
          $H $T run --mode raw --capture \(capture) --config $D/upstream.toml -- bash $D/ask.sh
          """)
        XCTAssertEqual(outcome.output, answer, "\(capture) \(server): \(outcome.errors)")
        let said = outcome.errors.split(separator: "\n").filter { $0.contains("dns: ") }
        XCTAssertEqual(said.count, reason == nil ? 0 : 1, "\(capture) \(server): \(said)")
        if let reason { XCTAssertTrue(said.first?.hasSuffix(": \(reason)") ?? false, "\(said)") }
      }
    }
  }
}
