import Foundation
import XCTest

/// A stop in order: nobody new is let in, what is under way ends, and what does not is reset when the time is over. curl is the
/// client, of an enclave's server and of a server outside.
final class DrainTests: XCTestCase {
  private static let directory = World.directory
  /// `slow SECONDS`: a server of one file, sent in that time; `get PORT`: what became of a download, and its length.
  private static let prelude = """
    cd \(directory); H="ip netns exec \(World.host)"
    get() { $H curl -s --noproxy '*' -m 40 -o got.$1 http://127.0.0.1:$1/; echo "curl $? $(wc -c < got.$1)"; }
    until_it() { for i in $(seq 200); do "$@" > /dev/null 2>&1 && return; sleep 0.05; done; echo "never: $*"; }
    connects() { $H python3 -c 'import socket, sys; s = socket.socket(); s.settimeout(5); print({0: "open", 111: "refused"}.get(s.connect_ex(("127.0.0.1", int(sys.argv[1])))))' $1; }

    """

  override class func setUp() {
    World.setUp(bigFile: false)
    _ = bash(
      """
      cd \(directory); printf '[network]\\ndrain = "20s"\\n' > long.toml; printf '[network]\\ndrain = "1s"\\n' > short.toml
      cat > slow.py <<'X'
      # One file of 100,000 bytes, in so many seconds; says when it is told to stop.
      import signal, socket, sys, threading, time
      def stop(*_): print("told to stop", flush=True); sys.exit(0)
      signal.signal(signal.SIGTERM, stop)
      def serve(c):
          if not c.recv(65536): return
          c.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 100000\\r\\n\\r\\n")
          print("serving", flush=True)
          for i in range(100): c.sendall(bytes(1000)); time.sleep(float(sys.argv[2]) / 100)
          print("served", flush=True); c.close()
      l = socket.create_server((sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1", int(sys.argv[1]))); print("listens", flush=True)
      while True: threading.Thread(target=serve, args=l.accept()[:1], daemon=True).start()
      X
      """)
  }

  override class func tearDown() { World.tearDown() }

  private func check(_ script: String, _ expected: String, timeout: TimeInterval = 60, line: UInt = #line) {
    let outcome = bash(Self.prelude + script, timeout: timeout)
    XCTAssertEqual(outcome.output, expected, outcome.errors, line: line)
  }

  /// The enclave: the download that is under way ends, nobody else comes in, and only then the program is told to stop.
  func testAnEnclaveLetsADownloadEnd() {
    check(
      """
      $H \(World.tombolo) run --config long.toml -p 127.0.0.1:9501:80 -- python3 \(Self.directory)/slow.py 80 3 > in.log & p=$!
      until_it grep listens in.log; get 9501 > got & g=$!; until_it grep serving in.log; kill $p
      for i in $(seq 60); do [ "$(connects 9501)" = refused ] && break; sleep 0.05; done; connects 9501
      wait $g; cat got; wait $p; echo "status $?"; cat in.log
      """,
      "refused\ncurl 0 100000\nstatus 0\nlistens\nserving\nserved\ntold to stop\n")
  }

  /// When the time is over what is left is reset; a second SIGTERM is the end of patience.
  func testAnEnclaveResetsWhatDoesNotEnd() {
    check(
      """
      for f in short long; do
        $H \(World.tombolo) run --config $f.toml -p 127.0.0.1:9502:80 -- python3 \(Self.directory)/slow.py 80 60 > in.log & p=$!
        until_it grep listens in.log; get 9502 > got & g=$!; until_it grep serving in.log; s=$SECONDS; kill $p
        [ $f = long ] && { sleep 0.5; kill $p; }
        # The program's own end may come before the reset.
        wait $g; cut -d' ' -f-2 got | sed 's/18/56/'; wait $p; echo "status $?"; tail -1 in.log; [ $((SECONDS - s)) -lt 15 ] || echo too long
      done
      """,
      "curl 56\nstatus 0\ntold to stop\ncurl 56\nstatus 0\ntold to stop\n")
  }

  /// The program's own connections: those that are open go on, new ones are refused, whichever way they are made.
  func testTheProgramsOwnConnections() {
    for connect in ["early", "true"] {
      check(
        """
        ip netns exec \(World.server) python3 slow.py 7103 3 10.9.0.2 > out.log & s=$!; until_it grep listens out.log
        printf '[network]\\ndrain = "20s"\\nconnect = "\(connect)"\\n' > own.toml; rm -f go
        $H \(World.tombolo) run --config own.toml -- bash -c '
          trap "echo told to stop; exit 4" TERM
          curl -s -m 30 -o /dev/null -w "%{size_download}\\n" http://10.9.0.2:7103/ & c=$!
          for i in $(seq 200); do timeout 5 bash -c "exec 3<>/dev/tcp/10.9.0.2/8080; printf \\"GET /file HTTP/1.0\\r\\n\\r\\n\\" >&3; grep -q content <&3" 2> /dev/null || break; sleep 0.05; done
          echo refused; wait $c; for i in $(seq 100); do sleep 0.1; done' > own.log & p=$!
        until_it grep serving out.log; kill $p; wait $p; echo "status $?"; kill $s; cat own.log
        """, "status 4\nrefused\n100000\ntold to stop\n")
    }
  }

  /// `tombolo host`: the same, at both of its ends, while its enclave goes on.
  func testADaemonLetsADownloadEnd() {
    for (drain, result) in [("20s", "curl 0"), ("1s", "curl 56")] {
      check(
        """
        rm -rf link; mkdir -p link; chmod 755 link; printf "[network]\\ntransport = \\"unix:$PWD/link\\"\\n[ingress]\\nports = [80]\\n" > link.toml
        $H \(World.tombolo) host --transport unix:$PWD/link -p 127.0.0.1:9503:80 --drain \(drain) --forward-in 9504:5001 > host.log 2>&1 & h=$!
        until_it test -S link/host_7766
        unshare --net --mount --pid --fork --mount-proc \(World.binaries)/tombolo-init --config link.toml -- python3 \(Self.directory)/slow.py 80 \(drain == "1s" ? 60 : 3) > inside.log 2>&1 & e=$!
        until_it grep -E 'listens' host.log; until [ "$(connects 9503)" = open ]; do sleep 0.05; done
        get 9503 > got & g=$!; until_it grep serving host.log; kill $h; s=$SECONDS
        for port in 9503 9504; do for i in $(seq 60); do [ "$(connects $port)" = refused ] && break; sleep 0.05; done; connects $port; done
        wait $g; cut -d' ' -f-2 got; wait $h; echo "status $?"; [ $((SECONDS - s)) -lt 15 ] || echo too long
        grep -o 'stopping: no new connections' host.log; ls link | grep host_; kill $(cat /proc/$e/task/$e/children); wait $e
        """, "refused\nrefused\n\(result)\nstatus 0\nstopping: no new connections\n", timeout: 90)
    }
  }

  func testMisuseIsSaid() {
    for (words, sentence) in [
      ("--drain soon", "--drain: found \"soon\", expected a duration such as 10s, 500ms or 2m"),
      ("--drain 10s --raw", "--drain: in raw mode the kernel carries the connections"),
    ] {
      let outcome = bash(
        "cd \(Self.directory); mkdir -p link; timeout 20 \(World.tombolo) host --transport unix:$PWD/link \(words); echo $?"
      )
      XCTAssertEqual(outcome.output, "125\n", outcome.errors)
      XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors)
    }
  }
}
