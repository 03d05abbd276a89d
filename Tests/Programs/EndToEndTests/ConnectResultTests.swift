import Foundation
import XCTest

/// network.connect = "true": a program's connect ends as it would without an enclave.
final class ConnectResultTests: XCTestCase {
  let directory = World.directory
  override class func setUp() {
    World.setUp(bigFile: false)
    // 10.9.0.66 and fd09::66 are behind an address that no card has: a black hole.
    let made = bash(
      """
      set -e
      cd \(World.directory); printf '[network]\\nconnect = "true"\\n' > true.toml
      printf '[network]\\nconnect = "true"\\n[egress]\\ndefault = "deny"\\nallow = ["10.9.0.2"]\\nsni = "check"\\nsni_ports = [7443]\\n' > rules.toml
      ip -n \(World.host) route add unreachable 10.66.0.0/16; ip -n \(World.host) -6 route add unreachable fd66::/16
      for a in 10.9.0.66 fd09::66; do ip -n \(World.host) neigh add $a lladdr 02:00:00:00:00:99 dev v0; done
      cat > echo.py <<'X'
      import socket, threading
      def serve(c):
          try:
              while (b := c.recv(65536)): c.sendall(b)
          except OSError: pass
          c.close()
      l = socket.create_server(("::", 7443), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
      print("up", flush=True)
      while True: threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
      X
      cat > connects.py <<'X'
      import errno, hashlib, os, signal, socket, struct, sys, threading, time
      def connect(host, port, seconds=20):
          s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET); s.settimeout(seconds)
          try: s.connect((host, port)); return s
          except TimeoutError: return "in progress"
          except OSError as e: return errno.errorcode[e.errno]
      def proxy():
          for p in filter(str.isdigit, os.listdir("/proc")):
              try:
                  if open(f"/proc/{p}/cmdline", "rb").read().startswith(b"tombolo-init\\0proxy"): return int(p)
              except OSError: pass
      def bulk(s, size):
          data = os.urandom(1 << 20); sent, got = hashlib.sha256(), hashlib.sha256()
          def write():
              for _ in range(size): s.sendall(data); sent.update(data)
              s.shutdown(socket.SHUT_WR)
          t = threading.Thread(target=write); t.start()
          while (b := s.recv(1 << 18)): got.update(b)
          t.join(); return sent.digest() == got.digest()
      for what in sys.argv[1:]:
          for a, b, hole, no in (("10.9.0.2", "10.66.0.1", "10.9.0.66", "10.99.0.1"), ("fd09::2", "fd66::1", "fd09::66", "fd99::1")):
              if what == "results": print(connect(a, 9), connect(b, 80), connect(no, 80), connect(hole, 80, 2))
              if what == "bulk": print("exact", bulk(connect(a, 7443), 48))
              if what == "many":
                  for _ in range(1000):
                      s = connect(a, 7443); s.send(b"x"); assert s.recv(1) == b"x"; s.close()
                  print("many")
              if what == "ends":
                  s = connect(a, 7443); peer = s.getpeername()[:2]; s.shutdown(socket.SHUT_WR); print(s.recv(1), peer == (a, 7443))
                  s.close(); s = connect(a, 7443); s.sendall(b"x" * 100000)
                  s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
                  s = socket.socket(socket.AF_INET6 if ":" in a else socket.AF_INET); s.bind(("", 5555 + len(a))); s.settimeout(20)
                  s.connect((a, 7443)); s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
                  s = socket.socket(socket.AF_INET6 if ":" in a else socket.AF_INET); s.bind(("", 5555 + len(a))); s.settimeout(20)
                  s.connect((a, 7443)); s.send(b"y"); print(s.recv(1))
              if what == "kill":
                  s = connect(a, 7443); s.send(b"x"); s.recv(1); h = connect(a, 7443); h.shutdown(socket.SHUT_WR); h.recv(1)
                  os.kill(proxy(), signal.SIGKILL)
                  try: print(s.recv(1))
                  except OSError as e: print(errno.errorcode[e.errno])
                  s = connect(a, 7443); s.send(b"z"); print(s.recv(1))
              if what == "denied": print(connect(a, 9), connect(b, 80))
          if what == "hello":
              s = connect("10.9.0.2", 7443); s.send(b"no TLS at all"); print(s.recv(100))
      X
      ip netns exec \(World.server) \(World.python) echo.py > up & echo $! > echo.pid
      for i in $(seq 100); do grep -qs up up && break; sleep 0.1; done
      """)
    XCTAssertEqual(made.status, 0, made.errors)
  }
  override class func tearDown() {
    bash("kill $(cat \(World.directory)/echo.pid)")
    World.tearDown()
  }

  private static let results = "ECONNREFUSED EHOSTUNREACH ENETUNREACH in progress\n"

  func testAConnectEndsAsTheHosts() {
    let outcome = bash("\(World.run) --config \(directory)/true.toml -- python3 \(directory)/connects.py results")
    XCTAssertEqual(outcome.output, Self.results + Self.results, outcome.errors)
  }

  func testWithoutRoot() {
    let outcome = bash(
      """
      install -m755 \(World.binaries)/tombolo \(World.binaries)/tombolo-init \(directory); cd /
      mknod -m 666 \(directory)/tun c 10 200
      ip netns exec \(World.host) unshare -m sh -c 'mount --bind \(directory)/tun /dev/net/tun
        exec setpriv --reuid 1000 --regid 1000 --clear-groups \(directory)/tombolo run \
          --config \(directory)/true.toml -- \(World.python) \(directory)/connects.py results ends'
      """)
    XCTAssertEqual(
      outcome.output, Self.results + Self.results + "b'' True\nb'y'\nb'' True\nb'y'\n", outcome.errors)
  }

  func testBytesAreExactAndPortsAreUsedAgain() {
    let outcome = bash(
      "\(World.run) --config \(directory)/true.toml -- python3 \(directory)/connects.py bulk many ends", timeout: 120)
    XCTAssertEqual(
      outcome.output, "exact True\nexact True\nmany\nmany\nb'' True\nb'y'\nb'' True\nb'y'\n", outcome.errors)
  }

  func testAKilledProxyResetsAndTheNextOneConnects() {
    let outcome = bash("\(World.run) --config \(directory)/true.toml -- python3 \(directory)/connects.py kill")
    XCTAssertEqual(outcome.output, "ECONNRESET\nb'z'\nECONNRESET\nb'z'\n", outcome.errors)
  }

  /// Nothing leaves before the name is allowed: the port whose clients say one is accepted first.
  func testRulesHold() {
    let outcome = bash(
      "\(World.run) --config \(directory)/rules.toml -- python3 \(directory)/connects.py denied hello")
    XCTAssertEqual(
      outcome.output, "ECONNREFUSED EHOSTUNREACH\nEACCES EACCES\nb'no TLS at all'\n", outcome.errors)
    XCTAssertTrue(outcome.errors.contains("egress to [fd09::2]:9 denied: no rule"), outcome.errors)
  }

  func testWithoutATunDeviceItIsEarly() {
    let outcome = bash(
      """
      install -m755 \(World.binaries)/tombolo \(World.binaries)/tombolo-init \(directory); cd /
      ip netns exec \(World.host) unshare -m sh -c 'mount --bind /dev/null /dev/net/tun
        exec setpriv --reuid 1000 --regid 1000 --clear-groups \(directory)/tombolo run -v --config \(directory)/true.toml -- \
          curl -sS http://10.9.0.2:8080/file'
      """)
    XCTAssertEqual(outcome.output, "content-of-file\n", outcome.errors)
    XCTAssertTrue(outcome.errors.contains("network.connect is \"early\""), outcome.errors)
  }
}
