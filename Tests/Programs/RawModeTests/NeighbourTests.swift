import Foundation
import XCTest

/// Raw mode on a machine that has a life of its own: other networks, addresses, services.
final class NeighbourTests: XCTestCase {
  override class func setUp() {
    RawWorld.setUp(bigFile: false)
    // A second network of the host, and in it a machine with a server.
    RawWorld.bash(
      """
      ip netns add \(other); ip link add v2 netns \(RawWorld.host) type veth peer name v3 netns \(other)
      ip -n \(RawWorld.host) addr add 10.7.0.1/24 dev v2; ip -n \(other) addr add 10.7.0.2/24 dev v3
      ip -n \(RawWorld.host) addr add fd07::1/64 dev v2 nodad; ip -n \(other) addr add fd07::2/64 dev v3 nodad
      ip -n \(RawWorld.host) link set v2 up; ip -n \(other) link set v3 up; ip -n \(other) link set lo up
      ip -n \(other) route add default via 10.7.0.1; ip -n \(other) route add default via fd07::1
      $S ip route add 10.7.0.0/24 via 10.8.0.1; $S ip route add fd07::/64 via fd08::1
      """)
  }
  override class func tearDown() {
    RawWorld.bash("ip netns del \(other)")
    RawWorld.tearDown()
  }

  private static let other = "tmb-rn-\(RawWorld.id)"
  private static let prelude = """
    N="ip netns exec \(other)"
    fire() { printf '[network]\\nfirewall = "%s"\\n' $1 > $D/fire.toml; }
    up() { for i in $(seq 100); do $H $T status $1 2>/dev/null | grep -q 'rules in' && break; sleep 0.1; done; }
    ping1() { "${@:3}" ping -c 1 -w 2 -q $2 > /dev/null && echo "$1 passes" || echo "$1 does not"; }
    across() {
      ping1 IPv4 10.7.0.2 $S > $D/across.1 & a=$!; ping1 IPv6 fd07::2 $S > $D/across.2 & b=$!
      ping1 back 10.8.0.2 $N > $D/across.3 & c=$!; wait $a $b $c; cat $D/across.?
    }

    """

  private func check(
    _ script: String, _ expected: String, timeout: TimeInterval = 60, file: StaticString = #filePath, line: UInt = #line
  ) {
    let outcome = RawWorld.bash(Self.prelude + script, timeout: timeout, file: file, line: line)
    XCTAssertEqual(outcome.output, expected, outcome.errors, file: file, line: line)
  }

  // MARK: networks

  /// Issue 12, finding 8. A host between two networks that keeps them apart keeps them apart while an enclave runs, which
  /// reaches both.
  func testAHostBetweenTwoNetworksIsNoRouter() {
    for firewall in ["nftables", "xtables"] {
      check(
        """
        fire \(firewall); across
        $H $T run --config $D/fire.toml --mode raw -- sh -c 'ping -c 1 -q 10.7.0.2 | grep -c " 0% packet loss"; ping -c 1 -q 10.8.0.2 | grep -c " 0% packet loss"; ping -c 1 -q fd07::2 | grep -c " 0% packet loss"; sleep 20' & p=$!
        up $p; sleep 1; across; kill $p; wait $p; across; $H sysctl -n net.ipv4.ip_forward
        """,
        """
        IPv4 does not
        IPv6 does not
        back does not
        1
        1
        1
        IPv4 does not
        IPv6 does not
        back does not
        IPv4 does not
        IPv6 does not
        back does not
        0

        """)
    }
  }

  /// A host that is a router stays one, for all its links or for the one that its operator has chosen.
  func testARouterStaysOne() {
    for firewall in ["nftables", "xtables"] {
      check(
        """
        fire \(firewall)
        during() { $H $T run --config $D/fire.toml --mode raw -- sleep 20 & p=$!; up $p; across; kill $p; wait $p; across; }
        $H sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; during
        $H sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv4.conf.v0.forwarding=1 net.ipv4.conf.v2.forwarding=1; during
        $H sysctl -qw net.ipv4.conf.v0.forwarding=0 net.ipv4.conf.v2.forwarding=0
        """,
        String(repeating: "IPv4 passes\nIPv6 passes\nback passes\n", count: 2)
          + String(repeating: "IPv4 passes\nIPv6 does not\nback passes\n", count: 2))
    }
  }

  // MARK: services

  /// Issue 12, finding 1. The host's services are the host's: the enclave reaches none of them at any of its addresses, but
  /// the name server, and what the operator has named.
  func testTheEnclaveReachesNoServiceOfTheHost() {
    for firewall in ["nftables", "xtables"] {
      check(
        """
        fire \(firewall); mkdir -p /etc/netns/\(RawWorld.host); echo nameserver 10.8.0.2 > /etc/netns/\(RawWorld.host)/resolv.conf
        $H python3 -m http.server -b :: -d $D/www 9000 > /dev/null 2>&1 & s=$!
        cat > $D/echo.py <<'X'
        import socket
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(("::", 9001))
        while True: data, peer = s.recvfrom(100); s.sendto(data, peer)
        X
        cat > $D/ask.py <<'X'
        import socket, sys
        s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10)
        try: s.connect((sys.argv[1], 9001)); s.send(b"answer"); print(s.recv(100).decode())
        except OSError as e: print("none")
        X
        $H python3 $D/echo.py & u=$!
        for i in $(seq 50); do $H curl -s -o /dev/null http://127.0.0.1:9000/ && break; sleep 0.1; done
        cat > $D/look.sh <<'X'
        getent hosts web.test | sed 's/  */ /g'
        for a in 10.8.0.1 10.7.0.1 10.118.0.1 169.254.53.53 [fd08::1] [fd74:6f6d:626f::1]; do
          curl -gs -o /dev/null -w '%{http_code} ' --max-time 5 http://$a:9000/; done; echo
        for a in 10.118.0.1 fd74:6f6d:626f::1; do python3 $0/ask.py $a; done
        ping -c 1 -W 1 -q 10.8.0.2 | grep -c ' 0% packet loss'
        X
        $H $T run --config $D/fire.toml --mode raw -- bash -c "$(cat $D/look.sh)" $D
        $H $T run --config $D/fire.toml --mode raw --allow-host-ports 8999-9001 -- bash -c "$(cat $D/look.sh)" $D
        kill $s $u; wait $s $u; rm -r /etc/netns/\(RawWorld.host)
        """,
        """
        fd08::2 web.test
        000 000 000 000 000 000 
        none
        none
        1
        fd08::2 web.test
        200 200 200 200 200 200 
        answer
        answer
        1

        """)
    }
  }

  // MARK: addresses

  /// Issue 10, fault 10. What the machine has already is not taken a second time: an address, a route, the network of an
  /// enclave in which Tombolo itself runs. Where the configuration asks for it, a sentence says so.
  func testNetworksThatAreTaken() {
    check(
      """
      ip -n \(RawWorld.host) route add 10.118.0.0/30 via 10.8.0.2; ip -n \(RawWorld.host) route add blackhole 10.118.0.4/31
      ip -n \(RawWorld.host) addr add 10.118.0.9/32 dev lo; ip -n \(RawWorld.host) route add 10.0.0.0/8 via 10.8.0.2
      ip -n \(RawWorld.host) route add fd74:6f6d:626f::/65 via fd08::2
      run -- sh -c 'hostname -I; curl -sS http://10.8.0.2:8080/file; curl -gsS http://[fd08::2]:8080/file'
      for a in 'address = "10.118.0.9/29"' 'address = "10.118.0.10/30"' 'address6 = "fd74:6f6d:626f::9/120"'; do
        printf '[network]\\n%s\\n' "$a" > $D/taken.toml; run --config $D/taken.toml -- true; echo $?; done 2>&1 | grep -v '^$'
      ip -n \(RawWorld.host) route del 10.118.0.0/30; ip -n \(RawWorld.host) route del blackhole 10.118.0.4/31
      ip -n \(RawWorld.host) route del 10.0.0.0/8; ip -n \(RawWorld.host) addr del 10.118.0.9/32 dev lo
      ip -n \(RawWorld.host) route del fd74:6f6d:626f::/65
      """,
      """
      10.118.0.14 fd74:6f6d:626f:1::2 
      content-of-file
      content-of-file
      tombolo: the enclave's address 10.118.0.9/29 is in a network that this machine has already: it has an address or a route in 10.118.0.9/32; name another as network.address, or "host" to be given a free one
      125
      tombolo: the enclave's address 10.118.0.10/30 is in a network that this machine has already: it has an address or a route in 10.118.0.9/32; name another as network.address, or "host" to be given a free one
      125
      tombolo: the enclave's address fd74:6f6d:626f::9/120 is in a network that this machine has already: it has an address or a route in fd74:6f6d:626f::/65; name another as network.address6, or "host" to be given a free one
      125

      """)
  }

  /// An enclave's network is that of a machine in which Tombolo runs again.
  func testRawModeInRawMode() {
    check(
      """
      $H $T run --mode raw --dns 10.8.0.2 -- sleep 1\(RawWorld.id) & p=$!
      up $p; for i in $(seq 50); do q=$(pgrep -x -f 'sleep 1\(RawWorld.id)'); [ -n "$q" ] && break; sleep 0.1; done
      nsenter -t $q -n $T run --mode raw --dns 10.8.0.2 -- sh -c 'hostname -I | cut -d" " -f1; curl -sS --max-time 5 http://10.8.0.2:8080/file; curl -gsS --max-time 5 http://[fd08::2]:8080/file'
      kill $p; wait $p
      """, "10.118.0.6\ncontent-of-file\ncontent-of-file\n")
  }

  /// Two that start at the same moment have the same networks before them.
  func testFiveEnclavesAtOnceHaveNetworksOfTheirOwn() {
    check(
      """
      for i in $(seq 5); do run -- sh -c 'hostname -I; sleep 3' > $D/five.$i & done
      wait; cat $D/five.* | cut -d' ' -f1 | sort -u | wc -l; cat $D/five.* | cut -d' ' -f2 | sort -u | wc -l
      """, "5\n5\n")
  }

  // MARK: words

  /// Issue 10, fault 15: a program's standard error is its own.
  func testNothingIsSaidThatNobodyNeeds() {
    for capture in ["tun", "nfqueue"] {
      let quiet = RawWorld.bash("run --capture \(capture) -- true")
      XCTAssertEqual(quiet.errors, "")
      let verbose = RawWorld.bash("run -v --capture \(capture) -- true")
      XCTAssertTrue(verbose.errors.contains("tombolo: raw mode: "), verbose.errors)
    }
  }
}
