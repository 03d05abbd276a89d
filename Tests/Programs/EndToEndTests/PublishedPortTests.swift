import Foundation
import XCTest

/// A published port in TCP mode is open while a program listens on it inside, and refuses clients otherwise: that is what
/// every health check asks.
final class PublishedPortTests: XCTestCase {
  let directory = World.directory
  override class func setUp() {
    World.setUp(bigFile: false)
    _ = bash(
      """
      cat > \(World.directory)/port.sh <<'X'
      nc() { python3 -c 'import socket, sys; s = socket.socket(); s.settimeout(5); e = s.connect_ex(("127.0.0.1", int(sys.argv[1]))); print({0: "open", 111: "refused"}.get(e, e))' $1; }
      until_is() { for i in $(seq 200); do [ "$(nc $1)" = $2 ] && break; sleep 0.05; done; nc $1; }
      X
      cat > \(World.directory)/steps.py <<'X'
      import socket, sys, time
      family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
      def step(): sys.stdin.readline()
      step(); s = socket.create_server((sys.argv[1], 80), family=family); print("listens", flush=True)
      step()
      # Those that only looked come first.
      while True:
          c, _ = s.accept()
          if c.recv(1): break
      c.sendall(b"hello\\n"); s.close(); print("closed", flush=True)
      step(); c.sendall(b"still\\n"); c.close()
      step()
      X
      """)
  }
  override class func tearDown() { World.tearDown() }

  /// Refused before the program listens, works after that, refused after its listener has gone; what was accepted goes on.
  func testAPortIsOpenWhileTheProgramListens() {
    for address in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
      let outcome = bash(
        """
        cd \(directory); ip netns exec \(World.host) bash -c '
        . ./port.sh; rm -f steps; mkfifo steps
        \(World.tombolo) run -i -p 127.0.0.1:9280:80 -- python3 \(directory)/steps.py \(address) < steps >&2 & p=$!; exec 4> steps
        until_is 9280 refused; \(World.tombolo) status $p | grep -o "→ 80.*"
        echo >&4; until_is 9280 open; \(World.tombolo) status $p | grep -o "→ 80.*"
        exec 5<>/dev/tcp/127.0.0.1/9280; echo x >&5; echo >&4; until_is 9280 refused
        echo >&4; cat <&5; echo >&4; wait $p; echo "status $?"; nc 9280; rm steps'
        """, timeout: 60)
      XCTAssertEqual(
        outcome.output,
        "refused\n→ 80, nothing listens\nopen\n→ 80\nrefused\nhello\nstill\nstatus 0\nrefused\n",
        "\(address): \(outcome.errors)")
    }
  }

  /// A listener that clients cannot reach from outside, because it is on another address, is none.
  func testAListenerOnAnotherAddressIsNone() {
    let outcome = bash(
      """
      cd \(directory); ip netns exec \(World.host) bash -c '
      . ./port.sh; rm -f up
      \(World.tombolo) run -p 127.0.0.1:9281:80 -p 127.0.0.1:9282:81 -- python3 -uc "
      import socket, time
      a = socket.create_server((\\"127.0.0.2\\", 80)); b = socket.create_server((\\"127.0.0.1\\", 81)); print(\\"up\\"); time.sleep(60)" > up & p=$!
      until_is 9282 open; nc 9281; kill $p; wait $p'
      """)
    XCTAssertEqual(outcome.output, "open\nrefused\n", outcome.errors)
  }

  /// While nginx reads its configuration again its port stays open: nobody is refused.
  func testAReloadOfNginxRefusesNobody() {
    let outcome = bash(
      """
      cd \(directory); ip netns exec \(World.host) bash -c '
      . ./port.sh
      \(World.tombolo) run -p 127.0.0.1:9283:80 -- nginx -g "daemon off;" >&2 & p=$!
      until_is 9283 open
      ab -q -r -n 100000 -t 4 -c 4 http://127.0.0.1:9283/ > ab.txt 2>&1 & a=$!
      for i in 1 2 3 4 5 6; do sleep 0.5; kill -HUP $p; done
      wait $a; grep -E "Failed requests|apr_" ab.txt; grep -c "Complete requests: *[1-9]" ab.txt; kill $p; wait $p'
      """)
    XCTAssertEqual(outcome.output, "open\nFailed requests:        0\n1\n", outcome.errors)
  }

  /// The port belongs to this enclave from its start, although nothing listens yet.
  func testThePortIsTakenFromTheStart() {
    let outcome = bash(
      """
      cd \(directory); ip netns exec \(World.host) bash -c '
      . ./port.sh
      \(World.tombolo) run -p 127.0.0.1:9284:80 -- sleep 30 & p=$!
      for i in $(seq 100); do \(World.tombolo) status | grep -q "enclave is there" && break; sleep 0.05; done
      \(World.tombolo) run -p 127.0.0.1:9284:80 -- true 2>&1 | grep -o "already taken"
      python3 -c "
      import socket
      s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      try: s.bind((\\"127.0.0.1\\", 9284)); s.listen(); print(\\"taken over\\")
      except OSError as e: print(e.errno)"
      nc 9284; kill $p; wait $p'
      """)
    XCTAssertEqual(outcome.output, "already taken\n98\nrefused\n", outcome.errors)
  }

  /// A proxy that dies is started again, and meanwhile the port stays as it was.
  func testAKilledProxyDoesNotCloseThePort() {
    let outcome = bash(
      """
      cd \(directory); ip netns exec \(World.host) bash -c '
      . ./port.sh
      \(World.tombolo) run -p 127.0.0.1:9285:80 -- sh -c "python3 -m http.server 80 & sleep 2; kill -9 \\$(ps -eo pid=,args= | awk \\"/tombolo-init [p]roxy/{print \\\\\\$1}\\"); echo killed; exec sleep 20" > up 2>/dev/null & p=$!
      until_is 9285 open
      for i in $(seq 100); do grep -q killed up && break; sleep 0.05; done
      for i in $(seq 20); do nc 9285; sleep 0.05; done | sort | uniq -c | tr -s " "
      for i in $(seq 50); do curl -s --noproxy "*" -o /dev/null http://127.0.0.1:9285/ && break; sleep 0.1; done; echo "curl $?"
      kill $p; wait $p'
      """)
    XCTAssertEqual(outcome.output, "open\n 20 open\ncurl 0\n", outcome.errors)
  }
}
