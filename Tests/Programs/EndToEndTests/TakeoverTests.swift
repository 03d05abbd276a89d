import Foundation
import XCTest

/// A `tombolo host` takes over listening sockets that somebody else holds, as systemd does for a socket unit: it is replaced, and no
/// client is refused.
final class TakeoverTests: XCTestCase {
  private static let directory = World.directory
  private static let prelude = """
    cd \(directory); H="ip netns exec \(World.host)"; which systemd-socket-activate > /dev/null || echo no systemd
    until_it() { for i in $(seq 200); do "$@" > /dev/null 2>&1 && return; sleep 0.05; done; echo "never: $*"; }
    enclave() { unshare --net --mount --pid --fork --mount-proc \(World.binaries)/tombolo-init --config $1.toml -- python3 \(directory)/both.py > $1.inside 2>&1 & e=$!; }
    end() { kill $(cat /proc/$e/task/$e/children); wait $e; }
    place() { rm -rf $1; mkdir $1; chmod 755 $1; printf "[network]\\ntransport = \\"unix:$PWD/$1\\"\\n[ingress]\\nports = [80, 53]\\n" > $1.toml; }

    """

  override class func setUp() {
    World.setUp(bigFile: false)
    _ = bash(
      """
      cd \(directory)
      cat > both.py <<'X'
      # Answers over HTTP and over UDP.
      import http.server, socket, threading
      class Handler(http.server.BaseHTTPRequestHandler):
          def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b"inside")
          def log_message(self, *_): pass
      class Server(http.server.ThreadingHTTPServer): request_queue_size = 1024
      def datagrams():
          s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 53))
          while True: data, peer = s.recvfrom(65536); s.sendto(data, peer)
      threading.Thread(target=datagrams, daemon=True).start()
      Server(("127.0.0.1", 80), Handler).serve_forever()
      X
      cat > start.py <<'X'
      # Starts a program with the sockets of these addresses, as systemd does: NAMES ADDRESS[/udp]… -- PROGRAM…
      import fcntl, os, socket, sys
      def bound(text):
          kind = socket.SOCK_DGRAM if text.endswith("/udp") else socket.SOCK_STREAM
          host, port = text.removesuffix("/udp").rsplit(":", 1)
          s = socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET, kind)
          s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((host.strip("[]"), int(port)))
          if kind == socket.SOCK_STREAM: s.listen(4096)
          return fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 50)
      def execute(names, sockets, program):
          for number, fd in enumerate(sockets): os.dup2(fd, 3 + number)
          os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES=names)
          os.execv(program[0], program)
      if __name__ == "__main__":
          end = sys.argv.index("--")
          execute(sys.argv[1], [bound(a) for a in sys.argv[2:end]], sys.argv[end + 1:])
      X
      cat > replace.py <<'X'
      # Holds a port of TCP and one of UDP, replaces the daemon three times while clients ask without a pause, says what they met.
      import collections, os, signal, socket, sys, threading, time
      import start
      tombolo, link = sys.argv[1:]
      sockets = [start.bound("127.0.0.1:9601"), start.bound("127.0.0.1:9602/udp")]
      def daemon():
          pid = os.fork()
          if pid == 0:
              os.dup2(2, 1)
              start.execute("web:names", sockets, [tombolo, "host", "--transport", "unix:" + link, "-p", "127.0.0.1:9601:80",
                            "-p", "127.0.0.1:9602:53/udp", "--drain", "15s"])
          return pid
      def ask():
          try:
              s = socket.create_connection(("127.0.0.1", 9601), 20); s.settimeout(20); s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n"); got = b""
              while b := s.recv(65536): got += b
              return "ok" if got.endswith(b"inside") else "other"
          except OSError as e: return type(e).__name__
      def datagram():
          try:
              s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10); s.connect(("127.0.0.1", 9602)); s.send(b"x")
              return "ok" if s.recv(10) == b"x" else "other"
          # One may be lost on its way, as any datagram.
          except TimeoutError: return "ok"
          except OSError as e: return type(e).__name__
      pid = daemon()
      for _ in range(400):
          if ask() == "ok" and datagram() == "ok": break
          time.sleep(0.05)
      met = [collections.Counter(), collections.Counter()]; running = True
      def client(what, counter):
          while running: counter[what()] += 1
      threads = [threading.Thread(target=client, args=a) for a in [(ask, met[0])] * 4 + [(datagram, met[1])] * 2]
      for t in threads: t.start()
      for _ in range(3):
          time.sleep(0.7); os.kill(pid, signal.SIGTERM); print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])); pid = daemon()
      time.sleep(1); running = False
      for t in threads: t.join()
      print([list(m) for m in met], met[0]["ok"] > 20, met[1]["ok"] > 5)
      os.kill(pid, signal.SIGTERM); os.waitpid(pid, 0)
      X
      """)
  }

  override class func tearDown() { World.tearDown() }

  func testADaemonIsReplacedWithoutARefusal() {
    let outcome = bash(
      Self.prelude + """
        place link; $H python3 replace.py \(World.tombolo) $PWD/link > replaced 2> daemons.log & r=$!
        until_it test -S link/host_7766; enclave link; wait $r; cat replaced; end; cat daemons.log >&2
        """, timeout: 120)
    XCTAssertEqual(outcome.output, "0\n0\n0\n[['ok'], ['ok']] True True\n", outcome.errors)
  }

  /// systemd's own words for it.
  func testSystemdHandsOver() {
    let outcome = bash(
      Self.prelude + """
        place other; $H systemd-socket-activate -l 127.0.0.1:9605 \(World.tombolo) host --transport unix:$PWD/other -p 127.0.0.1:9605:80 > activated.out 2> activated.log & h=$!
        until_it $H bash -c 'ss -tln | grep -q 9605'; $H curl -sS --noproxy '*' -m 30 http://127.0.0.1:9605/ > got & c=$!
        until_it test -S other/host_7766; enclave other; wait $c; until_it $H curl -sS --noproxy '*' -m 30 -o got http://127.0.0.1:9605/; cat got
        kill $h; wait $h; echo " status $?"; end; cat activated.log >&2
        """, timeout: 90)
    XCTAssertEqual(outcome.output, "inside status 0\n", outcome.errors)
  }

  /// Nothing that was handed over is passed over.
  func testMistakesAreSaid() {
    for (words, sentence) in [
      (
        "web 127.0.0.1:9606",
        "the socket \"web\" that this process was started with is at 127.0.0.1:9606, where no -p, --forward or transport is"
      ),
      (
        "names 127.0.0.1:9607/udp",
        "the socket \"names\" that this process was started with is at 127.0.0.1:9607 (UDP), where no"
      ),
      ("a:b 127.0.0.1:9607", "LISTEN_FDNAMES: found 2 names, expected 1, as many as LISTEN_FDS says"),
      ("six [::]:9607", "the socket \"six\" at [::]:9607 is for IPv4 too, expected BindIPv6Only=ipv6-only"),
    ] {
      let outcome = bash(
        Self.prelude + """
          place third; $H timeout 20 python3 start.py \(words) -- \(World.tombolo) host --transport unix:$PWD/third -p 127.0.0.1:9607:80 -p '[::]:9607:80'; echo $?; ls third
          """)
      XCTAssertEqual(outcome.output, "125\n", "\(words): \(outcome.errors)")
      XCTAssertTrue(outcome.errors.contains(sentence), "\(words): \(outcome.errors)")
    }
  }
}
