import Foundation
import XCTest

/// A real client of QUIC and a real server: what a name is allowed for works, and the server never hears of another name.
final class QUICNameTests: XCTestCase {
  private static let captures = ["tun", "nfqueue"]
  /// Where rootfs/setup has put aioquic.
  private static let python = "PYTHONPATH=$HOME/.cache/tombolo/python"

  override class func setUp() {
    RawWorld.setUp(bigFile: false)
    let made = RawWorld.bash(
      """
      set -e; cd $D
      ip -n \(RawWorld.server) addr add 10.8.0.3/24 dev v1
      $S dnsmasq --no-resolv --no-hosts --listen-address=10.8.0.3 --bind-interfaces --pid-file=$D/names.pid --user=root \
        --host-record=ok.test,10.8.0.2,fd08::2 --host-record=other.test,10.8.0.2
      openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=ok.test 2>/dev/null
      chmod a+r key.pem cert.pem; touch asked; chmod a+rw asked
      cp \(#filePath.components(separatedBy: "/Programs/")[0])/clients/quic.py .
      for address in 10.8.0.2 fd08::2; do
        \(python) $S python3 quic.py server $address . 2>server.log & echo $! > quic-$!.pid
      done
      for i in $(seq 100); do [ "$($S ss -Huln 'sport = :443' | wc -l)" = 2 ] && exit 0; sleep 0.1; done
      cat server.log >&2; exit 1
      """, timeout: 60)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() { RawWorld.tearDown() }

  private func inEnclave(
    _ capture: String, _ configuration: String, _ script: String, host: String? = nil
  ) -> Outcome {
    RawWorld.bash(
      """
      : > $D/asked
      cat > $D/policy.toml <<'X'
      \(configuration)
      X
      cat > $D/script.sh <<X
      export \(Self.python) D=$D
      X
      cat >> $D/script.sh <<'X'
      quic() { python3 $D/quic.py client "$@"; }
      \(script)
      X
      cat > $D/host.toml <<'X'
      \(host ?? "")
      X
      $H $T run --mode raw --capture \(capture) --dns 10.8.0.3 --config $D/policy.toml \(host == nil ? "" : "--policy $D/host.toml") -- bash $D/script.sh
      echo "asked: $(sort -u $D/asked | tr '\\n' ' ')"
      """, timeout: 90)
  }

  func testTheNameThatAClientAsksFor() {
    for capture in Self.captures {
      let outcome = inEnclave(
        capture, "[egress]\ndefault = \"deny\"\nallow = [\"udp://ok.test:443\"]",
        """
        quic 10.8.0.2 ok.test short
        quic ok.test ok.test
        quic ok.test ok.test big
        quic ok.test ok.test v2
        quic fd08::2 ok.test
        quic 10.8.0.2 other.test short
        quic 10.8.0.2 -
        """)
      XCTAssertEqual(
        outcome.output,
        """
        short ok.test nothing
        plain ok.test echo
        big ok.test echo
        v2 ok.test echo
        plain ok.test echo
        short other.test nothing
        plain - echo
        asked: None ok.test \n
        """, "\(capture): \(outcome.errors)")
      for sentence in [
        "packets to 10.8.0.2:443 (UDP) denied: no rule of egress.allow names it",
        "packets to 10.8.0.2:443 (UDP, other.test) denied: the client asks for other.test: no rule of egress.allow names it (egress.quic)",
      ] { XCTAssertTrue(outcome.errors.contains(sentence), "\(capture): \(sentence): \(outcome.errors)") }
    }
  }

  /// The parent's owner has the same key, and the tighter side holds; the log says which one it was.
  func testTheHostLooksToo() {
    let open = "[egress]\ndefault = \"allow\"\nquic = \"allow\""
    for capture in Self.captures {
      let checked = inEnclave(
        capture, open,
        """
        quic 10.8.0.2 ok.test short
        quic ok.test ok.test
        quic ok.test ok.test big
        quic 10.8.0.2 other.test short
        """, host: "[egress]\nallow = [\"udp://ok.test:443\"]")
      XCTAssertEqual(
        checked.output,
        "short ok.test nothing\nplain ok.test echo\nbig ok.test echo\nshort other.test nothing\nasked: ok.test \n",
        "\(capture): \(checked.errors)")
      XCTAssertTrue(
        checked.errors.contains(
          "tombolo: packets to 10.8.0.2:443 (UDP, other.test) denied: the client asks for other.test: no rule of egress.allow names it (egress.quic)"
        ), "\(capture): \(checked.errors)")
      // Open by its own word: another name passes; and refused by the host alone, and by the enclave alone.
      for (inside, outside, expected) in [
        (
          open, "[egress]\nquic = \"allow\"\nallow = [\"udp://ok.test:443\"]",
          "plain other.test echo\nasked: other.test \n"
        ),
        (open, "[egress]\ndefault = \"allow\"\nquic = \"deny\"", "short other.test nothing\nasked: \n"),
        (
          "[egress]\ndefault = \"allow\"\nquic = \"deny\"", "[egress]\ndefault = \"allow\"",
          "short other.test nothing\nasked: \n"
        ),
      ] {
        let outcome = inEnclave(
          capture, inside,
          "dig ok.test > /dev/null; quic 10.8.0.2 other.test \(expected.hasPrefix("short") ? "short" : "")",
          host: outside)
        XCTAssertEqual(outcome.output, expected, "\(capture) \(outside): \(outcome.errors)")
      }
    }
  }

  /// Refused at once, so that a client need not wait before it tries TCP; and what is no QUIC is refused where names are looked at.
  func testDeniedAndAllowed() {
    let send = """
      python3 -c '
      import errno, socket, sys
      for address in ("10.8.0.2", "fd08::2"):
          s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
          try: s.connect((address, 443)); s.send(b"hello"); s.recv(9)
          except OSError as e: print(errno.errorcode.get(e.errno, "nothing"), flush=True)'
      """
    for capture in Self.captures {
      for (action, expected) in [("deny", "EHOSTUNREACH\nEACCES"), ("check", "EHOSTUNREACH\nEACCES")] {
        let outcome = inEnclave(capture, "[egress]\ndefault = \"allow\"\nquic = \"\(action)\"", send)
        XCTAssertEqual(outcome.output, "\(expected)\nasked: \n", "\(capture), \(action): \(outcome.errors)")
        XCTAssertTrue(
          outcome.errors.contains(
            action == "deny"
              ? "denied: egress.deny has \"udp://0.0.0.0/0:443\""
              : "denied: it belongs to no QUIC connection that began with a name (egress.quic)"), outcome.errors)
      }
      let open = inEnclave(
        capture, "[egress]\nallow = [\"udp://10.8.0.2:443\"]", "quic 10.8.0.2 other.test")
      XCTAssertEqual(open.output, "plain other.test echo\nasked: other.test \n", "\(capture): \(open.errors)")
    }
  }
}
