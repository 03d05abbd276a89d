import Foundation
import XCTest

/// An enclave that wants to harm its host side with what it may do: many streams, many questions, much log. The daemon stays
/// small, and who else uses it is served.
final class FloodTests: XCTestCase {
  let directory = World.directory
  override class func setUp() {
    World.setUp(bigFile: false)
    // An enclave that speaks the protocol and has its own secrets, as after its proxy and PID 1 were taken over.
    bash(
      #"""
      cat > \#(World.directory)/twin.py <<'X'
      import os, socket, struct, sys, threading, time
      transport, what = sys.argv[1:3]
      tokens = [bytes([n]) * 32 for n in (1, 2, 3)]
      def hello(channel, token, parameters=b""):
          return b"TMBL\2" + bytes([channel]) + len(parameters).to_bytes(2, "big") + token + parameters
      def stream(channel=None, token=None, parameters=b"", timeout=10):
          s = socket.socket(socket.AF_UNIX); s.settimeout(timeout); s.connect(transport + "/host_7766")
          if channel: s.sendall(hello(channel, token, parameters))
          return s
      def serve(listener):
          while True:
              s = listener.accept()[0]
              def one(s):
                  try:
                      data = b""
                      while len(data) < 40: data += s.recv(4096)
                      s.sendall(b"TMBL\2\0\0\0")
                      while frame := s.recv(65536): s.sendall(frame)
                  except OSError: pass
              threading.Thread(target=one, args=(s,), daemon=True).start()
      listener = socket.socket(socket.AF_UNIX); listener.bind(transport + "/enclave_7766"); listener.listen(64)
      os.chmod(transport + "/enclave_7766", 0o666)
      session = stream(6, tokens[0], b"B" * 16 + tokens[1] + tokens[2] + bytes(48) + b"twin"); assert session.recv(8)[5] == 0
      listening = stream(7, tokens[1]); assert listening.recv(8)[5] == 0
      listening.sendall(b"\0\2" + struct.pack(">H", 80)); print("up", flush=True)
      endpoint = bytes([4]) + struct.pack(">H", 8080) + socket.inet_aton("10.9.0.2") + bytes(3)
      held = []
      def idle():
          for _ in range(600): held.append(stream())
      def names():
          question = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\3big\4test\0" + struct.pack(">HH", 16, 1)
          many = (struct.pack(">H", len(question)) + question) * 500
          streams = [stream(2, tokens[1], timeout=0.05) for _ in range(60)]; held.extend(streams)
          end = time.time() + 6
          while time.time() < end:
              for s in streams:
                  try: s.send(many)
                  except OSError: pass
      def connections():
          end = time.time() + 6
          while time.time() < end:
              try:
                  s = stream(1, tokens[1], endpoint, timeout=0.2); held.append(s)
                  s.sendall(b"\0\0\0\x40GET /big")
              except OSError: pass
      def log():
          sequence, line = 0, b"x" * 60000
          s = stream(4, tokens[0], timeout=None); s.recv(16)
          threading.Thread(target=lambda: [None for _ in iter(lambda: s.recv(65536), b"")], daemon=True).start()
          end = time.time() + 6
          while time.time() < end:
              sequence += 1; s.sendall(struct.pack(">IBBHQQ", 20 + len(line), 1, 1, 0, sequence, 0) + line)
      attacks = {"idle": [idle], "all": [idle, names, connections, log], "names": [names]}[what]
      # Each in a process of its own, so that the program's answers do not wait for an interpreter that attacks.
      parent, (reading, writing) = os.getpid(), os.pipe()
      for attack in attacks:
          if os.fork(): continue
          try: attack()
          except Exception as e: print(attack.__name__, repr(e), flush=True)
          os.write(writing, b"x")
          while os.getppid() == parent: time.sleep(0.1)
          os._exit(0)
      threading.Thread(target=serve, args=(listener,), daemon=True).start()
      for _ in attacks: os.read(reading, 1)
      print("done", flush=True); time.sleep(60)
      X
      """#)
  }
  override class func tearDown() { World.tearDown() }

  /// - Returns: the bash output: what `body` prints.
  private func flood(_ what: String, files: Int, _ body: String) -> Outcome {
    let outcome = bash(
      #"""
      cd \#(directory); export XDG_RUNTIME_DIR=$PWD/flooded; mkdir -p flooded; chmod 755 flooded
      (ulimit -n \#(files); exec setpriv --bounding-set -sys_resource ip netns exec \#(World.host) \#(World.tombolo) host --transport unix:$PWD/flooded --dns 10.9.0.2 \
        -p 10.9.0.1:9480:80 --log-format json > flooded.out 2> flooded.err) & h=$!
      for i in $(seq 100); do [ -S flooded/host_7766 ] && break; sleep 0.05; done
      python3 twin.py $PWD/flooded \#(what) > twin.out 2>&1 & t=$!
      until grep -q up twin.out || ! kill -0 $t; do sleep 0.05; done
      client() { ip netns exec \#(World.server) timeout 20 python3 -c '
      import socket
      for number in range(20):
          s = socket.create_connection(("10.9.0.1", 9480), timeout=15); s.sendall(b"ping"); assert s.recv(4) == b"ping"; s.close()
      print("served")'; }
      \#(body)
      kill $t $h; wait $t $h; tail -3 flooded.err >&2; cat twin.out | tail -1; rm -rf flooded flooded.out twin.out
      """#, timeout: 90)
    return outcome
  }

  /// Streams that say nothing took every descriptor, and a client of a published port waited for ever.
  func testSilentStreamsLeaveThePublishedPort() {
    let outcome = flood(
      "idle", files: 300,
      #"""
      until grep -q done twin.out || ! kill -0 $t; do sleep 0.05; done
      client; \#(World.tombolo) status flooded | grep -oE 'over limit +[0-9]+ hellos' | sed 's/[0-9]\+/N/'
      grep -c 'has too many at a time: hellos' flooded.err | sed 's/^[1-9]$/few/'
      """#)
    XCTAssertEqual(outcome.output, "served\nover limit N hellos\nfew\ndone\n", outcome.errors)
  }

  /// The same from a program in a local enclave, with what every program can do.
  func testFourAttackersInALocalEnclave() {
    let outcome = bash(
      #"""
      cd \#(directory); cat > attackers.py <<'X'
      import os, socket, struct, threading, time
      held, end = [], time.time() + 6
      def idle():
          for _ in range(2000):
              s = socket.socket(socket.AF_UNIX); s.settimeout(1)
              try: s.connect("/run/tombolo/host/host_7766"); held.append(s)
              except OSError: pass
      def names():
          s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("10.9.0.2", 53)); number = 0
          while time.time() < end:
              number += 1
              try: s.send(struct.pack(">HHHHHH", number & 65535, 0x100, 1, 0, 0, 0) + b"\3big\4test\0" + struct.pack(">HH", 16, 1))
              except OSError: pass
      def connections():
          while time.time() < end:
              s = socket.socket(); s.setblocking(False); s.connect_ex(("10.9.0.2", 8080)); held.append(s)
      def log():
          while time.time() < end: os.write(1, b"x" * 99 + b"\n")
      threads = [threading.Thread(target=a) for a in (idle, names, connections, log)]
      for t in threads: t.start()
      for t in threads: t.join()
      os.write(1, b"attackers are done\n"); time.sleep(60)
      X
      \#(World.run) -p 10.9.0.1:9481:80 -- sh -c 'cd \#(directory)/www; python3 -m http.server 80 2> /dev/null & exec python3 \#(directory)/attackers.py' > inside.out 2> inside.err & p=$!
      client() { ip netns exec \#(World.server) curl -sS --retry 20 --retry-connrefused --retry-delay 1 -m 20 http://10.9.0.1:9481/file; }
      client; until tail -c 30 inside.out | grep -q done || ! kill -0 $p; do client; done | sort -u; client
      kb=$(awk '/^VmHWM/{print $2}' /proc/$p/status); [ $kb -lt 65536 ] && echo small || echo "$kb kB"
      kill $p; wait $p; echo $?; rm inside.out inside.err attackers.py
      """#, timeout: 120)
    XCTAssertEqual(
      outcome.output, String(repeating: "content-of-file\n", count: 3) + "small\n143\n", outcome.errors)
  }

  /// Questions over many streams, and nobody who reads the answers: they filled the daemon's memory.
  func testQuestionsWhoseAnswersNobodyReads() {
    let outcome = flood(
      "names", files: 4096,
      #"""
      until grep -q done twin.out || ! kill -0 $t; do sleep 0.05; done; client
      kb=$(awk '/^VmHWM/{print $2}' /proc/$h/status); [ $kb -lt 65536 ] && echo small || echo "$kb kB"
      \#(World.tombolo) status flooded | grep -oE 'over limit.* resolvers' | grep -oE '[0-9]+ resolvers'
      """#)
    XCTAssertEqual(outcome.output, "served\nsmall\n52 resolvers\ndone\n", outcome.errors)
  }

  /// All at once: silent streams, questions whose answers nobody reads, connections, log.
  func testFourAttackersAtOnce() {
    let outcome = flood(
      "all", files: 1024,
      #"""
      until grep -q done twin.out || ! kill -0 $t; do client; done > clients
      sort -u clients; rm clients; client
      kb=$(awk '/^VmHWM/{print $2}' /proc/$h/status); [ $kb -lt 65536 ] && echo small || echo "$kb kB"
      \#(World.tombolo) status flooded | grep -oE 'over limit .*(hellos|outgoing|resolvers)' | grep -oE '[a-z]+$|[a-z]+,' | head -1 | wc -l
      """#)
    XCTAssertEqual(outcome.output, "served\nserved\nsmall\n1\ndone\n", outcome.errors)
  }
}
