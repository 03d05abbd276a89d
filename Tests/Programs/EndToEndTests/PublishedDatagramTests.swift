import Foundation
import XCTest

/// Published UDP ports in TCP mode: servers inside that know nothing of it are asked from outside, see their real clients, and
/// answer from where they were asked.
final class PublishedDatagramTests: XCTestCase {
  private static let directory = World.directory
  /// `ask ADDRESS PORT [TEXT]`: what comes back, or the errno; `until_says WHAT ADDRESS PORT`.
  private static let prelude = """
    cd \(directory); H="ip netns exec \(World.host)"; S="ip netns exec \(World.server)"
    ask() { python3 -c 'import errno, socket, sys
    s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)
    try:
        s.connect((sys.argv[1], int(sys.argv[2]))); s.send(b"who"); print(s.recv(1 << 16).decode())
    except OSError as e: print(errno.errorcode.get(e.errno, "nothing"))' "$@"; }
    # ICMP's errors are not sent more often than once a second (icmp_ratelimit, icmp(7)), so what was hoped for is not asked for again.
    until_says() { local a; for i in $(seq 100); do a=$($S bash -c "$(declare -f ask); ask $2 $3"); [ "$a" = "$1" ] && break; sleep 0.1; done
      echo "$a"; }

    """

  override class func setUp() {
    World.setUp(bigFile: false)
    _ = bash(
      """
      cd \(directory)
      cat > who.py <<'X'
      # Says to each client who it is, or sends back what is longer.
      import selectors, socket, sys
      sockets = selectors.DefaultSelector()
      for address in sys.argv[2:]:
          s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
          if ":" in address and len(sys.argv) > 3: s.setsockopt(41, 26, 1)
          s.bind((address, int(sys.argv[1]))); sockets.register(s, selectors.EVENT_READ)
      print("up", flush=True)
      while True:
          for key, _ in sockets.select():
              data, peer = key.fileobj.recvfrom(1 << 16)
              key.fileobj.sendto(peer[0].encode() if data == b"who" else data, peer)
      X
      """)
  }

  override class func tearDown() { World.tearDown() }

  private func check(_ script: String, _ expected: String, timeout: TimeInterval = 60, line: UInt = #line) {
    let outcome = bash(Self.prelude + script, timeout: timeout)
    XCTAssertEqual(outcome.output, expected, outcome.errors, line: line)
  }

  /// A name server inside, asked over both families, at each of the host's addresses, by UDP and TCP.
  func testANameServerIsPublished() {
    check(
      """
      ip -n \(World.host) addr add 10.9.0.11/24 dev v0
      $H \(World.tombolo) run -p 53:53/udp -p 53:53 -p '[::]:53:53/udp' -- dnsmasq -k --no-resolv --no-hosts \
        --host-record=inside.test,192.0.2.7 --pid-file= --user=root --log-queries --log-facility=- 2> queries & p=$!
      for i in $(seq 100); do $S dig +tries=1 +time=1 +short inside.test @10.9.0.1 > /dev/null && break; sleep 0.1; done
      for w in '@10.9.0.1' '@10.9.0.11' '@fd09::1' '+tcp @10.9.0.1'; do $S dig +tries=1 +time=4 +short inside.test $w; done
      $H dig +tries=1 +time=4 +short inside.test @127.0.0.1; $H dig +tries=1 +time=4 +short inside.test @::1
      $H \(World.tombolo) status $p | grep -o 'published.*udp'
      sed -n 's/.* inside.test from //p' queries | sort -u; kill $p; wait $p; echo $?
      ip -n \(World.host) addr del 10.9.0.11/24 dev v0
      """,
      String(repeating: "192.0.2.7\n", count: 6) + """
        published  0.0.0.0:53 → 53/udp
        published  [::]:53 → 53/udp
        10.9.0.2
        127.0.0.1
        192.0.0.1
        fd09::2
        fd54:6f6d:626f:1::1
        0

        """)
  }

  /// Several clients at a time, large datagrams, each flow in order; a range of ports.
  func testClientsAreToldApart() {
    check(
      """
      $H \(World.tombolo) run -p 8000-8002:9000-9002/udp -- python3 who.py 9001 0.0.0.0 > /dev/null & p=$!
      until_says 10.9.0.2 10.9.0.1 8001
      $S python3 -c '
      import socket
      clients = []
      for number in range(20):
          s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10); s.connect(("10.9.0.1", 8001)); clients.append(s)
      right = True
      for round in range(20):
          for number, s in enumerate(clients):
              for turn in range(3): s.send(b"%d %d of %d" % (round, turn, number))
          for number, s in enumerate(clients):
              for turn in range(3): right = right and s.recv(100) == b"%d %d of %d" % (round, turn, number)
      print(right)
      for size in (0, 1, 1472, 1473, 9000, 60000):
          s.send(bytes([size % 251]) * size); print(size, s.recv(1 << 16) == bytes([size % 251]) * size)'
      $S bash -c "$(declare -f ask); ask 10.9.0.1 8000"; kill $p; wait $p
      """, "10.9.0.2\nTrue\n0 True\n1 True\n1472 True\n1473 True\n9000 True\n60000 True\nECONNREFUSED\n")
  }

  /// Refused before the program takes datagrams, works while it does, refused after that; also when the proxy was started again.
  func testAPortIsOpenWhileTheProgramTakesDatagrams() {
    check(
      """
      rm -f go; mkfifo go
      $H \(World.tombolo) run -i -p 8005:8005/udp -- bash -c '
        read x; python3 who.py 8005 0.0.0.0 > /dev/null & q=$!; read x; kill $q; wait $q; read x' < go & p=$!; exec 4> go
      until_says ECONNREFUSED 10.9.0.1 8005; $H \(World.tombolo) status $p | grep -o '→ 8005.*'
      echo >&4; until_says 10.9.0.2 10.9.0.1 8005; $H \(World.tombolo) status $p | grep -o '→ 8005.*'
      for i in $(pgrep -P $p tombolo-init); do kill -9 $(pgrep -P $i tombolo-proxy); done
      until_says 10.9.0.2 10.9.0.1 8005
      echo >&4; until_says ECONNREFUSED 10.9.0.1 8005; echo >&4; wait $p
      """,
      "ECONNREFUSED\n→ 8005/udp, nothing listens\n10.9.0.2\n→ 8005/udp\n10.9.0.2\nECONNREFUSED\n")
  }

  /// A program at loopback alone, or of the other family, is reached all the same.
  func testLoopbackIsTheOtherWay() {
    check(
      """
      for a in 127.0.0.1 ::1 '0.0.0.0 ::' ::; do
        $H \(World.tombolo) run -p 8006:8006/udp -p '[::]:8006:8006/udp' -- python3 who.py 8006 $a > /dev/null & p=$!
        for i in $(seq 100); do $S bash -c "$(declare -f ask); ask 10.9.0.1 8006" | grep -q [.:] && break; sleep 0.1; done
        for h in 10.9.0.1 fd09::1; do $S bash -c "$(declare -f ask); ask $h 8006"; done; kill $p; wait $p
      done
      """,
      "127.0.0.1\n127.0.0.1\n::1\n::1\n10.9.0.2\nfd09::2\n::ffff:10.9.0.2\nfd09::2\n")
  }

  /// QUIC's server keeps connections of its clients, by their addresses.
  func testAServerOfQUIC() {
    check(
      """
      export PYTHONPATH=$HOME/.cache/tombolo/python
      openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=web.test 2>/dev/null
      cp \(#filePath.components(separatedBy: "/Programs/")[0])/clients/quic.py .
      $H \(World.tombolo) run -e PYTHONPATH=$PYTHONPATH -p 443:443/udp -- python3 quic.py server 0.0.0.0 . 2> quic.log & p=$!
      for i in $(seq 200); do $H \(World.tombolo) status $p 2> /dev/null | grep published | grep -q -v 'nothing listens' && break; sleep 0.1; done
      $S python3 quic.py client 10.9.0.1 a.test & $S python3 quic.py client 10.9.0.1 a.test; wait $!; kill $p; wait $p
      """, "plain a.test echo\nplain a.test echo\n")
  }
}
