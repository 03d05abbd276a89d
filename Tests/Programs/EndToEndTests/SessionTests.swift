import XCTest

/// The session between an enclave and a host that is not ours.
final class SessionTests: XCTestCase {
  let directory = World.directory

  override class func setUp() { World.setUp(bigFile: false) }
  override class func tearDown() { World.tearDown() }

  /// A host that says something that is no order loses that session, and the program goes on: the enclave closes the stream,
  /// so that the host can let in the next one, and opens it.
  func testASessionThatTheHostSpoilsIsClosedAndOpenedAnew() {
    let outcome = bash(
      """
      cd \(directory); d=$(mktemp -d); chmod 755 $d
      printf "[network]\\ntransport = \\"unix:$d\\"\\nmode = \\"none\\"\\n[logs]\\ndrain = \\"100ms\\"\\n" > spoiled.toml
      cat > host.py <<'X'
      import socket, struct, sys, threading
      listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1] + "/host_7766"); listener.listen(); listener.settimeout(20)
      def hello(stream):
          head = b""
          while len(head) < 40: head += stream.recv(40 - len(head))
          left = struct.unpack(">H", head[6:8])[0]
          while left: left -= len(stream.recv(left))
          return head[5]
      sessions = []
      while len(sessions) < 2:
          stream, _ = listener.accept(); stream.settimeout(20)
          if hello(stream) != 6: continue
          sessions.append(stream); stream.sendall(b"TMBL\\x02\\0\\0\\0")
          if len(sessions) == 1:
              stream.sendall(b"\\xff\\xff\\xff\\xff")
              while stream.recv(4096): pass
              print("closed", flush=True)
      print("opened anew", flush=True); open(sys.argv[1] + "/done", "w")
      X
      python3 host.py $d & h=$!
      for i in $(seq 50); do [ -S $d/host_7766 ] && break; sleep 0.1; done
      unshare --net --mount --pid --fork --mount-proc \(World.binaries)/tombolo-init --config spoiled.toml -- sh -c 'i=0; while [ ! -e "$0/done" ] && [ $i -lt 150 ]; do sleep 0.1; i=$((i+1)); done; exit 4' $d; echo "status $?"
      kill $h 2>/dev/null; wait $h; rm -r $d
      """, timeout: 60)
    XCTAssertEqual(outcome.output, "closed\nopened anew\nstatus 4\n", outcome.errors)
  }
}
