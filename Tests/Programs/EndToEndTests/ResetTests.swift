import Foundation
import XCTest

/// Connections that end by force, through TCP mode, as they would without an enclave: what was said before the reset
/// arrives, and then the reset.
final class ResetTests: XCTestCase {
  let directory = World.directory
  let host = "ip netns exec \(World.host)"
  /// The published port opens a moment after the program has begun to listen.
  let isOpen =
    "for i in $(seq 100); do \(World.tombolo) status | grep -q \"→ 80$\" && break; sleep 0.05; done"
  let server = "ip netns exec \(World.server)"
  override class func setUp() {
    World.setUp(bigFile: false)
    _ = bash(
      """
      cd \(World.directory); head -c 30000000 /dev/zero > upload
      cat > answer.py <<'X'
      import socket, struct, sys
      s = socket.create_server((sys.argv[1], int(sys.argv[2]))); print("up", flush=True)
      while True:
          c, _ = s.accept(); c.recv(1); c.sendall(b"answer" * 500)
          c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); c.close()
      X
      cat > ask.py <<'X'
      import socket, sys
      whole = 0
      for _ in range(20):
          s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); s.settimeout(20); s.send(b"x"); got = b""
          try:
              while (b := s.recv(1000)): got += b
              print("an end, and no reset")
          except ConnectionResetError: whole += got == b"answer" * 500
      print("whole", whole)
      X
      cat > early.js <<'X'
      require("http").createServer((q, s) => { s.writeHead(413, {Connection: "close"}); s.end("too large\\n") })
        .listen(Number(process.argv[3]), process.argv[2], () => console.log("up"))
      X
      cat > post.sh <<'X'
      for i in 1 2 3 4 5 6 7 8 9 10; do curl -s -H Expect: --data-binary @$2 -o /dev/null -w '%{http_code}\\n' --noproxy '*' $1; done | sort | uniq -c | tr -s ' '
      X
      cat > half.py <<'X'
      import select, socket, struct, sys, time
      what, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
      if what.startswith("serve-"):
          l = socket.create_server((address, port)); print("up", flush=True); s, _ = l.accept()
      else:
          s = socket.create_connection((address, port))
      s.settimeout(20)
      if what.endswith("end"):
          s.shutdown(socket.SHUT_WR); s.recv(1)
          s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
      else:
          print(s.recv(1)); s.send(b"g")
          p = select.poll(); p.register(s, 0); events = [e for _, e in p.poll(20000)]
          print("hangup and error" if events == [select.POLLERR | select.POLLHUP] else events, s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
          print("done", flush=True); time.sleep(60)
      X
      """)
  }
  override class func tearDown() { World.tearDown() }

  /// Runs `server` in S, waits until it is up, runs `client` in an enclave.
  private func out(_ server: String, _ client: String) -> Outcome {
    bash(
      """
      cd \(directory); rm -f up; \(self.server) \(server) > up & p=$!
      for i in $(seq 100); do grep -qs up up && break; sleep 0.1; done
      \(World.run) -- \(client); kill $p; wait $p 2>/dev/null
      """, timeout: 60)
  }

  /// Runs `server` in an enclave with port 80 published, waits until it answers the port, runs `client` in H.
  private func into(_ server: String, _ client: String) -> Outcome {
    bash(
      """
      cd \(directory); rm -f up; \(World.run) -p 127.0.0.1:9180:80 -- \(server) > up & p=$!
      for i in $(seq 100); do grep -qs up up && break; sleep 0.1; done; \(isOpen)
      \(host) \(client); kill $p; wait $p 2>/dev/null
      """, timeout: 60)
  }

  func testShortAnswersBeforeAResetArrive() {
    for outcome in [
      out("python3 answer.py 10.9.0.2 7101", "python3 \(directory)/ask.py 10.9.0.2 7101"),
      into("python3 \(directory)/answer.py 127.0.0.1 80", "python3 ask.py 127.0.0.1 9180"),
    ] {
      XCTAssertEqual(outcome.output, "whole 20\n", outcome.errors)
    }
  }

  /// Node answers an upload that it does not want at once, and closes with most of it unread.
  func testNodesEarly413Arrives() {
    for outcome in [
      out("node early.js 10.9.0.2 7102", "bash \(directory)/post.sh http://10.9.0.2:7102/ \(directory)/upload"),
      into("node \(directory)/early.js 127.0.0.1 80", "bash post.sh http://127.0.0.1:9180/ upload"),
    ] {
      XCTAssertEqual(outcome.output, " 10 413\n", outcome.errors)
    }
  }

  /// So does Python's http.server, which has no POST.
  func testPythons501Arrives() {
    let script =
      "import http.server; s = http.server.ThreadingHTTPServer((\"%@\", %d), http.server.SimpleHTTPRequestHandler); print(\"up\", flush=True); s.serve_forever()"
    for outcome in [
      out(
        "python3 -c '\(String(format: script, "10.9.0.2", 7103))'",
        "bash \(directory)/post.sh http://10.9.0.2:7103/ \(directory)/upload"),
      into("python3 -c '\(String(format: script, "127.0.0.1", 80))'", "bash post.sh http://127.0.0.1:9180/ upload"),
    ] {
      XCTAssertEqual(outcome.output, " 10 501\n", outcome.errors)
    }
  }

  /// A peer that has ended, and then resets: the program's poll shows it, and the connection does not stay open for good.
  func testAResetAfterAnEndArrives() {
    let status = """
      open() { \(World.tombolo) status --json half | python3 -c 'import json, sys; t = json.load(sys.stdin)[0]["traffic"]; print(t["outgoing"]["open"] + t["incoming"]["open"])'; }
      for i in $(seq 50); do [ "$(open)" = 0 ] && break; sleep 0.1; done; echo "$(open) open"
      """
    // Whoever watches keeps its socket open: the connection ends all the same.
    for (port, server, client) in [(7104, "end", "watch"), (7105, "watch", "end")] {
      let outcome = bash(
        """
        cd \(directory); rm -f up said
        \(self.server) python3 half.py serve-\(server) 10.9.0.2 \(port) > up & s=$!
        for i in $(seq 100); do grep -qs up up && break; sleep 0.1; done
        \(World.run) --hostname half -- sh -c 'python3 \(directory)/half.py \(client) 10.9.0.2 \(port); sleep 60' > said & p=$!
        for i in $(seq 300); do grep -qs done said up && break; sleep 0.1; done; grep -hvx up up said
        \(status)
        kill $p $s; wait $p $s 2>/dev/null
        """, timeout: 60)
      XCTAssertEqual(outcome.output, "b''\nhangup and error 32\ndone\n0 open\n", outcome.errors)
    }
    for (server, client) in [("end", "watch"), ("watch", "end")] {
      let outcome = bash(
        """
        cd \(directory); rm -f up said
        \(World.run) --hostname half -p 127.0.0.1:9180:80 -- sh -c 'python3 \(directory)/half.py serve-\(server) 127.0.0.1 80; sleep 60' > up & p=$!
        for i in $(seq 100); do grep -qs up up && break; sleep 0.1; done; \(isOpen)
        \(host) python3 half.py \(client) 127.0.0.1 9180 > said & s=$!
        for i in $(seq 300); do grep -qs done said up && break; sleep 0.1; done; grep -hvx up up said
        \(status)
        kill $p $s 2>/dev/null; wait $p $s 2>/dev/null
        """, timeout: 60)
      XCTAssertEqual(outcome.output, "b''\nhangup and error 32\ndone\n0 open\n", outcome.errors)
    }
  }
}
