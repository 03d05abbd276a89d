import Foundation
import XCTest

/// `[[forward]]` and `--forward`: other people's tools speak plain streams, and either half can be theirs.
final class ForwardTests: XCTestCase {
  let directory = World.directory
  static let clients = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("clients").path

  override class func setUp() {
    World.setUp(bigFile: false)
    _ = bash(
      """
      cd \(World.directory); install -m755 \(clients)/plain-streams.py streams.py
      cat > forward.toml <<'X'
      [[forward]]
      listen = "127.0.0.2:443"
      vsock_port = 8000
      host_name = "web.test"
      [[forward]]
      vsock_listen = 5000
      connect = "127.0.0.1:5432"
      X
      cat > half.py <<'X'
      # Reads to the end, answers with a digest and five million bytes, and ends.
      import hashlib, socket, sys, threading
      def serve(c):
          h = hashlib.sha256()
          while b := c.recv(65536): h.update(b)
          c.sendall(h.hexdigest().encode() + b"\\n" + bytes(range(250)) * 20000); c.close()
      l = socket.create_server((sys.argv[1], int(sys.argv[2]))); print("listens", flush=True)
      while True: threading.Thread(target=serve, args=l.accept()[:1], daemon=True).start()
      X
      cat > ask.py <<'X'
      # Sends five million bytes and its end, reads to the end; says whether every byte was right, or how it failed.
      import hashlib, socket, sys
      try:
          if sys.argv[1] == "unix": s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[2])
          else: s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
          s.settimeout(20); sent = bytes(range(251)) * 20000
          s.sendall(sent); s.shutdown(socket.SHUT_WR); got = b""
          while b := s.recv(65536): got += b
          print(got == hashlib.sha256(sent).hexdigest().encode() + b"\\n" + bytes(range(250)) * 20000)
      except OSError as e: print(type(e).__name__)
      X
      cat > word.py <<'X'
      # Sends a word, prints what comes, or how it failed.
      import socket, sys
      try:
          if sys.argv[1] == "unix": s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[2])
          else: s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
          s.settimeout(20); s.sendall(b"GET /file HTTP/1.0\\r\\n\\r\\n"); got = b""
          while b := s.recv(65536): got += b
          print(got.split(b"\\r\\n\\r\\n")[-1].decode().strip() or "end")
      except (ConnectionResetError, BrokenPipeError): print("reset")
      X
      chmod a+r *.py; cat > wait.sh <<'X'
      until_there() { for i in $(seq 200); do [ -s "$1" ] && grep -q "$2" "$1" && return; sleep 0.05; done; echo "$2 did not come"; }
      X
      """)
  }
  override class func tearDown() { World.tearDown() }

  /// By name, with the network's own way out shut: nothing but the forward leaves.
  func testANamedForwardIsTheOnlyWayOut() {
    for mode in ["tcp", "none"] {
      let outcome = bash(
        """
        cd \(directory)
        \(World.run) --mode \(mode) --config forward.toml --dns 10.9.0.2 --forward 8000:web.test:8080 -- sh -c '
          getent hosts web.test; curl -sS http://web.test:443/file; curl -sS http://web.test:443/file'
        """)
      XCTAssertEqual(
        outcome.output, "127.0.0.2       web.test\ncontent-of-file\ncontent-of-file\n", "\(mode): \(outcome.errors)")
    }
  }

  /// Out and in, each half-closed while the other direction still carries.
  func testEveryByteArrivesAndHalfClosesDo() {
    let outcome = bash(
      """
      cd \(directory); . ./wait.sh; rm -f s.log in.log
      ip netns exec \(World.server) python3 half.py 10.9.0.2 7100 > s.log & s=$!
      until_there s.log listens
      \(World.run) --config forward.toml --forward 8000:10.9.0.2:7100 --forward-in 9300:5000 -- sh -c '
        python3 \(directory)/half.py 127.0.0.1 5432 > /tmp/h & until grep -q listens /tmp/h; do sleep 0.05; done; python3 \(directory)/ask.py 127.0.0.2 443; echo ready; sleep 20' > in.log 2>in.err & e=$!
      until_there in.log ready
      grep -v ready in.log; ip netns exec \(World.host) python3 ask.py 127.0.0.1 9300
      kill $s; kill $e; wait $e; cat in.err >&2
      """)
    XCTAssertEqual(outcome.output, "True\nTrue\n", outcome.errors)
  }

  /// A server that refuses resets the program's connection, as does a host without that forward; both go on.
  func testARefusalIsAResetAndTheForwardGoesOn() {
    let outcome = bash(
      """
      cd \(directory); . ./wait.sh; rm -f in.log go; mkfifo go
      \(World.run) -i --config forward.toml --forward 8000:10.9.0.2:7101 --forward-in 9301:5000 -- sh -c '
        python3 \(directory)/word.py 127.0.0.2 443; echo first; read x; python3 \(directory)/word.py 127.0.0.2 443; echo second; read x' < go > in.log & e=$!
      exec 4> go; until_there in.log first
      ip netns exec \(World.host) python3 word.py 127.0.0.1 9301
      ip netns exec \(World.server) socat TCP-LISTEN:7101,bind=10.9.0.2,fork,reuseaddr SYSTEM:'read x; echo here' & s=$!
      for i in $(seq 100); do ip netns exec \(World.server) bash -c 'echo > /dev/tcp/10.9.0.2/7101' 2>/dev/null && break; sleep 0.05; done
      echo >&4; until_there in.log second; cat in.log; echo >&4; exec 4>&-; wait $e; kill $s
      \(World.run) --config forward.toml -- python3 \(directory)/word.py 127.0.0.2 443
      """)
    XCTAssertEqual(
      outcome.output,
      "reset\nreset\nfirst\nhere\nsecond\nreset\n", outcome.errors)
  }

  /// The host's half is socat's or AWS's vsock-proxy: they know nothing of us.
  func testTheHostsHalfIsSomebodyElses() {
    let outcome = bash(
      """
      cd \(directory); . ./wait.sh; rm -f in.log go; mkfifo go
      \(World.run) -i --config forward.toml -- sh -c '
        socat TCP-LISTEN:5432,bind=127.0.0.1,fork,reuseaddr SYSTEM:"read x; echo inside" & echo up; read x; echo before
        for i in 1 2; do python3 \(directory)/word.py 127.0.0.2 443; echo done $i; read x; done' < go > in.log & e=$!
      exec 4> go; until_there in.log up
      host=$(ip netns exec \(World.host) \(World.tombolo) status $e | sed -n 's/.*transport  unix:\\([^,]*\\),.*/\\1/p')
      ip netns exec \(World.host) socat UNIX-LISTEN:$host/host_8000,fork,mode=666 TCP:10.9.0.2:8080 & s=$!
      echo >&4; until_there in.log "done 1"; kill $s; rm -f $host/host_8000
      ip netns exec \(World.host) python3 streams.py unix:$host/host_8000 tcp:10.9.0.2:8080 > s.log & s=$!
      until_there s.log listens; echo >&4; until_there in.log "done 2"
      python3 word.py unix $host/enclave_5000; echo word | socat -t 5 - UNIX-CONNECT:$host/enclave_5000
      cat in.log; kill $s; rm -f $host/host_8000; echo >&4; exec 4>&-; wait $e
      """)
    XCTAssertEqual(
      outcome.output, "inside\ninside\nup\nbefore\ncontent-of-file\ndone 1\ncontent-of-file\ndone 2\n", outcome.errors)
  }

  /// The enclave's half is socat's or vscproxy: the daemon serves it without a session. AWS's allowlist holds.
  func testTheEnclavesHalfIsSomebodyElses() {
    let outcome = bash(
      """
      cd \(directory); . ./wait.sh; rm -rf link; mkdir link; chmod 777 link
      printf 'allowlist:\\n- {address: web.test, port: 8080}\\n- {address: 10.9.0.2, port: 9}\\n' > list.yaml
      h="ip netns exec \(World.host)"
      $h \(World.tombolo) host --transport unix:$PWD/link --dns 10.9.0.2 --forward-allowlist list.yaml --forward 8000:web.test:8080 \
        --forward 8009:10.9.0.2:9 --forward-in 9302:5000 > h.log 2>&1 & d=$!
      for i in $(seq 100); do [ -S link/host_8009 ] && break; sleep 0.05; done
      python3 word.py unix link/host_8000; python3 word.py unix link/host_8009
      printf 'GET /file HTTP/1.0\\r\\n\\r\\n' | socat -t 5 - UNIX-CONNECT:link/host_8000 | tail -1
      python3 streams.py tcp:127.0.0.1:9399 unix:$PWD/link/host_8000 > s.log & s=$!
      until_there s.log listens; python3 word.py 127.0.0.1 9399; kill $s
      \(World.tombolo) status $d | grep forward | sed 's/[0-9]* open, //'
      $h socat UNIX-LISTEN:link/enclave_5000,fork TCP:10.9.0.2:8080 & s=$!
      for i in $(seq 100); do [ -S link/enclave_5000 ] && break; sleep 0.05; done
      $h python3 word.py 127.0.0.1 9302; kill $s
      $h curl -s --noproxy '*' -m 20 http://127.0.0.1:9302/; echo $?
      kill $d; wait $d; ls link | grep host_; cat h.log >&2
      for f in 8001:web.test:80 8001:10.9.0.2:8080; do
        $h \(World.tombolo) host --transport unix:$PWD/link --forward-allowlist list.yaml --forward $f 2>&1; echo $?; done
      """)
    XCTAssertEqual(
      outcome.output,
      """
      content-of-file
      reset
      content-of-file
      content-of-file
        forward    8000 → web.test:8080: 3 in all, 0 failed, 0 denied
        forward    8009 → 10.9.0.2:9: 1 in all, 1 failed, 0 denied
        forward    127.0.0.1:9302 → 5000: 0 in all, 0 failed
      content-of-file
      56
      tombolo: --forward 8001:web.test:80: list.yaml does not have web.test with port 80
      125
      tombolo: --forward 8001:10.9.0.2:8080: list.yaml does not have 10.9.0.2 with port 8080
      125

      """, outcome.errors)
  }

  /// When the name's answer has ended it is asked for again: what has moved is found.
  func testANameIsLookedUpAgainWhenItsAnswerEnds() {
    let outcome = bash(
      """
      cd \(directory); . ./wait.sh; rm -f in.log go moved.hosts; mkfifo go
      ip -n \(World.server) addr add 10.9.0.3/24 dev v1
      for n in 2 3; do ip netns exec \(World.server) socat TCP-LISTEN:7102,bind=10.9.0.$n,fork,reuseaddr SYSTEM:"read x; echo at $n" & echo $! > s$n.pid; done
      echo 10.9.0.2 moved.test > moved.hosts
      ip netns exec \(World.host) dnsmasq --keep-in-foreground --no-resolv --no-hosts --listen-address=10.9.0.1 --bind-interfaces --addn-hosts=$PWD/moved.hosts --local-ttl=1 --user=root --pid-file & d=$!
      for i in $(seq 100); do [ "$(ip netns exec \(World.host) dig +short +tries=1 +time=1 @10.9.0.1 moved.test)" = 10.9.0.2 ] && break; sleep 0.05; done
      \(World.run) -i --config forward.toml --dns 10.9.0.1 --forward 8000:moved.test:7102 -- sh -c '
        for i in 1 2; do for j in 1 2 3; do python3 \(directory)/word.py 127.0.0.2 443; done; echo done $i; read x; done' < go > in.log & e=$!
      exec 4> go; until_there in.log "done 1"; echo 10.9.0.3 moved.test > moved.hosts; kill -HUP $d; sleep 1.2
      echo >&4; until_there in.log "done 2"; cat in.log; echo >&4; exec 4>&-; wait $e
      kill $d $(cat s2.pid s3.pid); ip -n \(World.server) addr del 10.9.0.3/24 dev v1
      """)
    XCTAssertEqual(
      outcome.output, "at 2\nat 2\nat 2\ndone 1\nat 3\nat 3\nat 3\ndone 2\n", outcome.errors)
  }

  /// A proxy that dies is started again, and the forward's listening socket is the same.
  func testAKilledProxyGoesOnForwarding() {
    let outcome = bash(
      """
      cd \(directory); \(World.run) --config forward.toml --forward 8000:10.9.0.2:8080 -- sh -c '
        curl -sS http://127.0.0.2:443/file; kill -9 $(ps -eo pid=,args= | awk "/tombolo-init [p]roxy/{print \\$1}")
        for i in $(seq 100); do curl -s http://127.0.0.2:443/file && break; sleep 0.1; done'
      """)
    XCTAssertEqual(outcome.output, "content-of-file\ncontent-of-file\n", outcome.errors)
  }

  /// The machine's own rules hold: an address that was named is no way round them, and a name leads to no address of the machine.
  func testTheHostsRulesHold() {
    let outcome = bash(
      """
      cd \(directory); h="ip netns exec \(World.host)"; . ./wait.sh
      $h python3 -u -c 'import socket
      s = socket.create_server(("127.0.0.1", 7103)); print("listens")
      while True: c, _ = s.accept(); c.recv(99); c.sendall(b"own"); c.close()' > s.log & s=$!
      until_there s.log listens; printf '[egress]\\nallow = ["web.test:8080"]\\n' > deny.toml
      \(World.run) --config forward.toml --forward 8000:127.0.0.1:7103 -- python3 word.py 127.0.0.2 443
      for f in 127.0.0.1:7103 10.9.0.2:8080 web.test:8080; do
        \(World.run) --config forward.toml --dns 10.9.0.2 --policy deny.toml --forward 8000:$f -- python3 word.py 127.0.0.2 443; done
      kill $s
      """)
    XCTAssertEqual(
      outcome.output, "own\nreset\nreset\ncontent-of-file\n", outcome.errors)
  }

  /// Marlin's header stands before the bytes on the way out.
  func testSalmonsHeaderGoesFirst() {
    let outcome = bash(
      """
      cd \(directory); . ./wait.sh; rm -f s.log
      printf '[[forward]]\\nlisten = "127.0.0.3:443"\\nvsock_port = 1200\\nkind = "salmon"\\ndestination = "93.184.216.34:443"\\n' > salmon.toml
      ip netns exec \(World.server) python3 -uc 'import socket
      s = socket.create_server(("10.9.0.2", 7104)); print("listens"); c, _ = s.accept(); got = b""
      while b := c.recv(99): got += b
      print(got.hex())' > s.log & s=$!
      until_there s.log listens
      \(World.run) --config salmon.toml --forward 1200:10.9.0.2:7104 -- python3 -c 'import socket
      s = socket.create_connection(("127.0.0.3", 443)); s.sendall(b"hi"); s.shutdown(socket.SHUT_WR); s.recv(1)'
      wait $s; cat s.log
      """)
    XCTAssertEqual(outcome.output, "listens\n22d8b85dbb016869\n", outcome.errors)
  }

  func testMistakesAreSaid() {
    for (arguments, sentence) in [
      ("--forward 8000:a", "--forward: found \"8000:a\", expected VSOCKPORT:HOST:PORT such as"),
      ("--forward 8000:a:1 --forward 8000:b:1", "--forward: found vsock port 8000 twice"),
      ("--forward 7766:a:1", "--forward: found vsock port 7766, which is Tombolo's own"),
      ("--forward-in 80", "--forward-in: found \"80\", expected [ADDR:]PORT:VSOCKPORT such as"),
      ("--forward 1:a:1 --forward-allowlist /dev/null", "/dev/null:1: found nothing"),
      ("--forward-allowlist /no/such", "open /no/such: No such file or directory (ENOENT)"),
    ] {
      let outcome = bash("\(World.run) \(arguments) -- true", timeout: 15)
      XCTAssertEqual(outcome.status, 125, outcome.errors)
      XCTAssertTrue(outcome.errors.contains(sentence), "\(arguments): \(outcome.errors)")
    }
    let taken = bash(
      """
      python3 -c 'import socket, time; s = socket.create_server(("127.0.0.1", 18098)); print("x", flush=True); time.sleep(20)' > /tmp/tmb-taken-\(World.id) & p=$!
      until [ -s /tmp/tmb-taken-\(World.id) ]; do sleep 0.05; done
      \(World.tombolo) run --forward-in 18098:1 -- true; echo $?; kill $p; rm /tmp/tmb-taken-\(World.id)
      """)
    XCTAssertEqual(taken.output, "125\n")
    XCTAssertTrue(taken.errors.contains("--forward-in 127.0.0.1:18098:1: its port is already taken"), taken.errors)
  }
}
