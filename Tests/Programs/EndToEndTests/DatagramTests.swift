import Foundation
import XCTest

/// Datagrams and ping in TCP mode: what speaks UDP works through a host side that has no right, and what does not arrive says so.
final class DatagramTests: XCTestCase {
  private static let directory = World.directory
  /// A user's `tombolo run`, on a machine whose /dev/net/tun is everybody's, as udev makes it.
  private static let asUser = """
    as_user() {
      ip netns exec \(World.host) unshare -m bash -c 'mount -t tmpfs tmpfs /dev/net && ${TUN-mknod -m 666 /dev/net/tun c 10 200}
        cd / && TMPDIR=\(directory)/t exec setpriv --reuid 65534 --regid 65534 --clear-groups \(directory)/t/tombolo run "$@"' run "$@"
    }

    """

  override class func setUp() {
    World.setUp(bigFile: false)
    let made = bash(
      """
      set -e; cd \(directory); mkdir -m 1777 t
      cp \(World.binaries)/{tombolo,tombolo-init} t/; chmod a+rx . t
      ip netns exec \(World.host) sysctl -qw net.ipv4.ping_group_range='0 2147483647'
      cat > echo.py <<'X'
      import selectors, socket
      sockets = selectors.DefaultSelector()
      for family, address in ((socket.AF_INET, "10.9.0.2"), (socket.AF_INET6, "fd09::2")):
          s = socket.socket(family, socket.SOCK_DGRAM); s.bind((address, 7000)); sockets.register(s, selectors.EVENT_READ)
      while True:
          for key, _ in sockets.select():
              data, peer = key.fileobj.recvfrom(1 << 16); key.fileobj.sendto(data, peer)
      X
      ip netns exec \(World.server) python3 echo.py > echo.out 2>&1 & echo $! > echo.pid
      ip netns exec \(World.server) chronyd -x -d -u root 'allow' 'local' 'cmdport 0' 'bindcmdaddress /' \
        'pidfile \(directory)/chronyd.pid' 'bindaddress 10.9.0.2' > chronyd.out 2>&1 &
      for i in $(seq 100); do
        ip netns exec \(World.server) ss -uln > bound; grep -q :7000 bound && grep -q :123 bound && break; sleep 0.1
      done
      """, timeout: 60)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() {
    bash("cd \(directory) && for p in $(cat echo.pid chronyd.pid); do kill $p; done")
    World.tearDown()
  }

  func testRealClientsWorkAndErrorsAreReal() {
    let script = """
      ping -n -c 3 -i 0.2 10.9.0.2 | grep -o "3 received"; ping -n -c 3 -i 0.2 fd09::2 | grep -o "3 received"
      /usr/sbin/chronyd -Q -u root -t 30 "server 10.9.0.2 iburst" "cmdport 0" 2>&1 | grep -o "System clock wrong"
      dig +notcp +short @10.9.0.2 web.test
      python3 - <<"X"
      import errno, socket, time
      def named(action):
          try: return action()
          except OSError as error: return errno.errorcode.get(error.errno, str(error))
      for family, far, nowhere in ((socket.AF_INET, "10.9.0.2", "10.77.0.1"), (socket.AF_INET6, "fd09::2", "fd77::1")):
          s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(10)
          sizes = []
          for size in (0, 1, 1400, 8000, 60000):
              s.sendto(bytes([size % 251]) * size, (far, 7000)); data, peer = s.recvfrom(1 << 16)
              sizes.append(len(data) if data == bytes([size % 251]) * size and peer[:2] == (far, 7000) else "other")
          print(sizes)
          s.connect((far, 7000)); got = []
          for number in range(100): s.send(str(number).encode())
          for number in range(100): got.append(int(s.recv(10)))
          print("in order", got == list(range(100)))
          for address, port in ((far, 9), (nowhere, 9), ("169.254.169.254" if "." in far else "ff1e::1", 9)):
              begun = time.monotonic()
              s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(10)
              # IP_RECVERR: without it a kernel keeps "network is unreachable" from a socket.
              s.setsockopt(*((0, 11) if "." in far else (41, 25)), 1); s.connect((address, port))
              print(named(lambda: s.send(b"x") and s.recv(1)), time.monotonic() - begun < 3)
      X
      """
    for start in ["as_user --dns 10.9.0.2 -- sh", "\(World.run) --dns 10.9.0.2 -- sh"] {
      let outcome = bash(
        "\(Self.asUser)cat > \(Self.directory)/t/script.sh <<'Y'\n\(script)\nY\n\(start) \(Self.directory)/t/script.sh",
        timeout: 120)
      XCTAssertEqual(
        outcome.output,
        """
        3 received
        3 received
        System clock wrong
        10.9.0.2
        [0, 1, 1400, 8000, 60000]
        in order True
        ECONNREFUSED True
        ENETUNREACH True
        EHOSTUNREACH True
        [0, 1, 1400, 8000, 60000]
        in order True
        ECONNREFUSED True
        ENETUNREACH True
        EPERM True

        """, outcome.errors)
      XCTAssertTrue(
        outcome.errors.contains("packets to 169.254.169.254:9 (UDP) denied: built-in rule \"metadata\""), outcome.errors
      )
    }
  }

  /// A path that is narrower than the enclave's link is found by what asks for no fragments.
  func testThePathsMTUIsFound() {
    let outcome = bash(
      """
      ip -n \(World.host) route add 10.9.0.2/32 dev v0 mtu 1300; trap 'ip -n \(World.host) route del 10.9.0.2/32' EXIT
      \(World.run) -- python3 -c '
      import errno, socket, time
      s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.setsockopt(0, 10, 2); s.connect(("10.9.0.2", 7000))
      s.send(bytes(1400))
      for i in range(100):
          if s.getsockopt(0, 14) != 1500: break
          time.sleep(0.05)
      print(s.getsockopt(0, 14))
      try: s.recv(1)
      except OSError as error: print(errno.errorcode[error.errno])
      s.send(bytes(1200)); print(len(s.recv(2000)))'
      """)
    XCTAssertEqual(outcome.output, "1300\nEMSGSIZE\n1200\n", outcome.errors)
  }

  /// Rules name UDP and ping like everything else, by name and by address, on either side.
  func testPolicyHolds() {
    let outcome = bash(
      """
      cd \(Self.directory)
      printf '[egress]\\ndefault = "deny"\\nallow = ["udp://web.test:7000", "icmp://10.9.0.2"]\\n' > rules.toml
      cat > ask.sh <<'X'
      udp() { python3 -c 'import socket, sys
      s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
      try:
          s.connect((sys.argv[1], int(sys.argv[2]))); s.send(b"x"); print(s.recv(1))
      except OSError as error: print(type(error).__name__, error.errno)' $1 $2; }
      udp 10.9.0.2 7000; udp web.test 7000; udp 10.9.0.2 123; ping -n -c 1 -w 2 10.9.0.2 | grep -c "1 received"
      ping -n -c 1 -w 2 10.9.0.9 | grep -o "Packet filtered"
      X
      \(World.run) --dns 10.9.0.2 --config rules.toml -- bash ask.sh; echo on the host
      printf '[egress]\\ndeny = ["udp://10.9.0.2:7000"]\\ndefault = "allow"\\n' > host.toml
      \(World.run) --dns 10.9.0.2 --policy host.toml -- bash -c '. ./ask.sh' | head -1
      """, timeout: 60)
    XCTAssertEqual(
      outcome.output,
      "OSError 113\nb'x'\nOSError 113\n1\nPacket filtered\non the host\nOSError 113\n", outcome.errors)
    XCTAssertTrue(
      outcome.errors.contains("packets to 10.9.0.2:123 (UDP, web.test) denied: no rule of egress.allow names it"),
      outcome.errors)
    XCTAssertTrue(
      outcome.errors.contains("packets to 10.9.0.2:7000 (UDP) denied: egress.deny has \"udp://10.9.0.2:7000\"")
        || outcome.errors.contains("packets to 10.9.0.2:7000 (UDP, web.test) denied: egress.deny has"), outcome.errors)
  }

  /// Where the host may not ping, or there is no TUN device, the log says so and the program hears of it at once.
  func testWhatIsMissingIsSaid() {
    let outcome = bash(
      """
      \(Self.asUser)
      ip netns exec \(World.host) sysctl -qw net.ipv4.ping_group_range='1 0'
      \(World.run) -- ping -n -c 1 -w 3 10.9.0.2 | grep -o 'Destination Host Unreachable'
      ip netns exec \(World.host) sysctl -qw net.ipv4.ping_group_range='0 2147483647'
      export TUN=; as_user -v -- python3 -c 'import socket
      try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("10.9.0.2", 7000))
      except OSError as error: print(error.errno)'
      """)
    XCTAssertEqual(outcome.output, "Destination Host Unreachable\n1\n", outcome.errors)
    XCTAssertTrue(outcome.errors.contains("there is no TUN device, so neither UDP nor ping is carried"), outcome.errors)
    XCTAssertTrue(outcome.errors.contains("ping is not carried: net.ipv4.ping_group_range"), outcome.errors)
  }

  /// HTTP/3 and its kin work, and `egress.quic` judges the name that a client asks for.
  func testQUIC() {
    let outcome = bash(
      """
      cd \(Self.directory); export PYTHONPATH=$HOME/.cache/tombolo/python
      openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=web.test 2>/dev/null
      cp \(#filePath.components(separatedBy: "/Programs/")[0])/clients/quic.py .
      ip netns exec \(World.server) python3 quic.py server 10.9.0.2 . 2>server.log & server=$!; trap 'kill $server' EXIT
      for i in $(seq 100); do ip netns exec \(World.server) ss -uln | grep -q ':443 ' && break; sleep 0.1; done
      printf '[egress]\\ndefault = "deny"\\nallow = ["udp://web.test:443"]\\n' > quic.toml
      \(World.run) -e PYTHONPATH=$PYTHONPATH --dns 10.9.0.2 --config quic.toml -- bash -c 'getent ahosts web.test >/dev/null
        python3 quic.py client 10.9.0.2 web.test; python3 quic.py client 10.9.0.2 other.test short'
      """, timeout: 60)
    XCTAssertEqual(outcome.output, "plain web.test echo\nshort other.test nothing\n", outcome.errors)
    XCTAssertTrue(outcome.errors.contains("the client asks for other.test"), outcome.errors)
  }
}
