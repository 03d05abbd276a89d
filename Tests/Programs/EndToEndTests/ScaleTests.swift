import Foundation
import XCTest

/// Many connections, and connections on which little happens: others are served, and what is too much is refused at once.
final class ScaleTests: XCTestCase {
  let directory = World.directory
  override class func setUp() {
    World.setUp(bigFile: false)
    let made = bash(
      #"""
      set -e
      cd \#(World.directory)
      for c in true early; do
        printf '[network]\nconnect = "%s"\nmax_outgoing = 5\nmax_incoming = 3\n[ingress]\nports = [80]\n' $c > few-$c.toml
        printf '[network]\nconnect = "%s"\n[ingress]\nports = [80]\n' $c > plain-$c.toml
        printf '[network]\nconnect = "%s"\nidle_timeout = "1s"\n' $c > idle-$c.toml
        printf '[network]\nconnect = "%s"\nhalf_closed_timeout = "1s"\n' $c > half-$c.toml
      done
      cat > ends.py <<'X'
      import errno, os, socket, sys, threading, time
      def connect(port, host="10.9.0.2"):
          "A connection that has carried a byte, or None."
          try:
              s = socket.create_connection((host, port), timeout=20); s.send(b"x")
              return s if s.recv(1) == b"x" else None
          except OSError: return None
      def serve(c, kind):
          try:
              while (b := c.recv(65536)):
                  while kind == "floods": c.sendall(bytes(65536))
                  c.sendall(b)
              if kind == "stays": time.sleep(60)
          except OSError: pass
          c.close()
      def listen(port, kind="echoes"):
          l = socket.create_server(("", port), backlog=4096)
          def run():
              while True: threading.Thread(target=serve, args=(l.accept()[0], kind), daemon=True).start()
          threading.Thread(target=run, daemon=True).start()
      def many(count, *to):
          "Refused are those above the limit, and none when one has ended."
          held = [s for s in (connect(*to) for _ in range(count)) if s]
          print(len(held)); held.pop().close(); again = None
          for _ in range(100):
              if again := connect(*to): break
              time.sleep(0.05)
          print(again is not None)
      def slow(count, port, host="10.9.0.2"):
          "Connections whose server says much and whose client never reads; then one that is used."
          held = []
          for _ in range(count):
              s = socket.create_connection((host, port + 1), timeout=20); s.send(b"x"); held.append(s)
          time.sleep(0.5); times = []
          for _ in range(20):
              t = time.time(); s = connect(port, host); assert s
              s.sendall(b"y" * 100000); left = 100000
              while left: left -= len(s.recv(65536))
              s.close(); times.append(time.time() - t)
          print(sorted(times)[10] < 1)
      def quiet(half):
          s = connect(7502)
          if half: s.shutdown(socket.SHUT_WR); s2 = connect(7500); time.sleep(2.5); s2.send(b"z"); print(s2.recv(1))
          t = time.time()
          try: print(s.recv(1))
          except OSError as e: print(errno.errorcode[e.errno], time.time() - t < 15)
      def keep():
          s = connect(7500)
          for _ in range(8): time.sleep(0.3); s.send(b"k"); assert s.recv(1) == b"k"
          print("kept")
      what = sys.argv[1]
      if what == "serve":
          listen(7500); listen(7501, "floods"); listen(7502, "stays"); print("up", flush=True); time.sleep(1000)
      if what == "inside": listen(80); many(8, 7500); print("up", flush=True); time.sleep(1000)
      if what == "many": many(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
      if what == "slow": slow(int(sys.argv[2]), 7500)
      if what == "idle": keep(); quiet(False)
      if what == "half": quiet(True)
      if what == "out": held = [s for s in (connect(7500) for _ in range(int(sys.argv[2]))) if s]; print(0 < len(held) < int(sys.argv[2])); held = []; time.sleep(0.5); print(connect(7500) is not None)
      X
      ip netns exec \#(World.server) \#(World.python) ends.py serve > up & echo $! > ends.pid
      for i in $(seq 100); do grep -qs up up && break; sleep 0.1; done
      """#)
    XCTAssertEqual(made.status, 0, made.errors)
  }
  override class func tearDown() {
    bash("kill $(cat \(World.directory)/ends.pid)")
    World.tearDown()
  }

  /// Too many are refused at once and said once, and what listens goes on.
  func testLimitsOfEachDirection() {
    for connect in ["true", "early"] {
      let outcome = bash(
        """
        cd \(directory); \(World.run) -p 10.9.0.1:9580:80 --config few-\(connect).toml -- python3 \(directory)/ends.py inside > inside.out 2> inside.err & p=$!
        for i in $(seq 200); do grep -qs up inside.out && break; sleep 0.05; done; cat inside.out
        ip netns exec \(World.server) \(World.python) ends.py many 6 9580 10.9.0.1
        kill $p; wait $p; grep -c 'a connection out was refused: there are 5, and network.max_outgoing is 5' inside.err | sed 's/^[1-9]$/few/'
        grep -c 'a connection in was refused: there are 3, and network.max_incoming is 3' inside.err | sed 's/^[1-9]$/few/'
        """, timeout: 60)
      XCTAssertEqual(outcome.output, "5\nTrue\nup\n3\nTrue\nfew\nfew\n", outcome.errors + connect)
    }
  }

  func testLimitsOfTheHostSide() {
    let outcome = bash(
      """
      cd \(directory); \(World.run) -p 10.9.0.1:9581:80 --max-connections-out 5 --max-connections-in 3 --config plain-true.toml -- python3 \(directory)/ends.py inside > inside.out 2> inside.err & p=$!
      for i in $(seq 200); do grep -qs up inside.out && break; sleep 0.05; done; cat inside.out
      ip netns exec \(World.server) \(World.python) ends.py many 6 9581 10.9.0.1
      kill $p; wait $p; grep -c 'too many at a time: outgoing (5)' inside.err | sed 's/^[1-9]$/few/'
      """, timeout: 60)
    XCTAssertEqual(outcome.output, "5\nTrue\nup\n3\nTrue\nfew\n", outcome.errors)
  }

  /// Neither side dies, spins or stops to accept where there are no more descriptors, and both say what bounds it.
  func testWithFewDescriptors() {
    for connect in ["true", "early"] {
      let outcome = bash(
        """
        cd \(directory); ulimit -n 200
        setpriv --bounding-set -sys_resource \(World.run) --max-connections 1000 --config plain-\(connect).toml -- python3 \(directory)/ends.py out 150; echo $?
        """, timeout: 60)
      XCTAssertEqual(outcome.output, "True\nTrue\n0\n", outcome.errors + connect)
      XCTAssertTrue(outcome.errors.contains("1000 connections are more than there are descriptors for"), outcome.errors)
      XCTAssertTrue(
        outcome.errors.contains("200 files open (RLIMIT_NOFILE)")
          || outcome.errors.contains("200 files open: RLIMIT_NOFILE"), outcome.errors)
    }
  }

  /// Connections that nobody reads cost memory up to a limit, and others no time.
  func testSlowReadersHoldNobodyBack() {
    for connect in ["true", "early"] {
      let outcome = bash(
        """
        cd \(directory); ulimit -n 4096
        \(World.run) --config plain-\(connect).toml -- sh -c 'python3 \(directory)/ends.py slow 300; p=$(ps -eo pid=,args= | awk "/tombolo-init [p]roxy/{print \\$1}"); awk "/^VmHWM/{print (\\$2 < 80000) ? \\"small\\" : \\$2}" /proc/$p/status'
        """, timeout: 60)
      XCTAssertEqual(outcome.output, "True\nsmall\n", outcome.errors + connect)
    }
  }

  /// Only where it is asked for, and only those on which no byte moves.
  func testIdleAndHalfClosedConnectionsAreReset() {
    let outcome = bash(
      """
      cd \(directory)
      for c in true early; do
        \(World.run) --config idle-$c.toml -- python3 \(directory)/ends.py idle & \(World.run) --config half-$c.toml -- python3 \(directory)/ends.py half > half.out
        wait; cat half.out
      done
      \(World.run) --idle-timeout 1s --config plain-true.toml -- python3 \(directory)/ends.py idle
      """, timeout: 60)
    XCTAssertEqual(
      outcome.output,
      String(repeating: "kept\nECONNRESET True\nb'z'\nECONNRESET True\n", count: 2) + "kept\nECONNRESET True\n",
      outcome.errors)
  }

  /// To one address and port there are as many connections as there are ports to come from.
  func testMoreClientsThanPorts() {
    let outcome = bash(
      """
      cd \(directory); \(World.run) -p 10.9.0.1:9582:80 --config plain-true.toml -- python3 \(directory)/ends.py inside > inside.out 2> inside.err & p=$!
      for i in $(seq 200); do grep -qs up inside.out && break; sleep 0.05; done
      nsenter -t $(pgrep -P $p tombolo-init) -n sysctl -qw net.ipv4.ip_local_port_range='40000 40009'
      ip netns exec \(World.server) \(World.python) ends.py many 35 9582 10.9.0.1; kill $p; wait $p
      """, timeout: 60)
    XCTAssertEqual(outcome.output, "35\nTrue\n", outcome.errors)
  }

  func testNumbersAndTimesThatAreNone() {
    for (option, sentence) in [
      ("--max-connections 0", "--max-connections: found 0, expected 1 to 1000000"),
      ("--max-connections-in 1000001", "--max-connections-in: found 1000001, expected 1 to 1000000"),
      ("--idle-timeout 5", "--idle-timeout: found \"5\", expected \"forever\", or a duration of at least 1s"),
      ("--hello-timeout forever", "--hello-timeout: found \"forever\", expected a duration of at least 1s"),
      ("--udp-timeout 10ms", "--udp-timeout: found \"10ms\", expected a duration of at least 1s"),
    ] {
      let outcome = bash("\(World.tombolo) run \(option) -- true")
      XCTAssertEqual(outcome.status, 125, option)
      XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors)
    }
    let outcome = bash(
      "cd \(directory); printf '[network]\\nmax_outgoing = 0\\n' > none.toml; \(World.tombolo) run --config none.toml -- true"
    )
    XCTAssertEqual(outcome.status, 125)
    XCTAssertTrue(
      outcome.errors.contains("none.toml:2: network.max_outgoing: found 0, expected a number from 1 to 1000000"),
      outcome.errors)
  }
}

/// Everything at once for a short time; Tests/soak without words takes ten minutes for each.
final class SoakTests: XCTestCase {
  func testFifteenSecondsOfEverything() {
    let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("soak").path
    let outcome = bash(
      """
      export TOMBOLO_BINARIES=\(World.binaries)
      \(script) --seconds 12 --connect true & t=$!; \(script) --seconds 12 --connect early; e=$?; wait $t; exit $((e + $?))
      """, timeout: 240)
    XCTAssertEqual(outcome.status, 0, outcome.output + outcome.errors)
  }
}
