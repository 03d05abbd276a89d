import Foundation
import XCTest

/// Raw mode with `capture = "nfqueue"`: the enclave has the host's own address, untranslated, and some of its ports.
final class SharedAddressTests: XCTestCase {
  override class func setUp() { RawWorld.setUp() }
  override class func tearDown() { RawWorld.tearDown() }

  private static let prelude = """
    share() { $H $T run --mode raw --capture nfqueue "$@" 2>> $D/share.err; }
    kept() { $H iptables-legacy-save | grep -c tombolo; $H ip6tables-legacy-save | grep -c tombolo; }

    """

  private func check(
    _ script: String, _ expected: String, timeout: TimeInterval = 60, file: StaticString = #filePath, line: UInt = #line
  ) {
    let outcome = RawWorld.bash(Self.prelude + script, timeout: timeout, file: file, line: line)
    let said = RawWorld.bash("tail -20 $D/share.err").output
    XCTAssertEqual(outcome.output, expected, outcome.errors + said, file: file, line: line)
  }

  // MARK: out of the enclave

  /// The server sees the host's own address, and a port of the enclave's share.
  func testTheServerSeesTheHostsAddress() {
    check(
      """
      share -- sh -c 'hostname -I; curl -sS http://10.8.0.2:8080/file; curl -gsS http://[fd08::2]:8080/file'
      cat > $D/who.py <<'X'
      import socket
      s = socket.create_server(("10.8.0.2", 7001))
      c, (address, port) = s.accept(); print(address, 1024 <= port <= 61439)
      X
      $S timeout 20 python3 $D/who.py & p=$!
      sleep 0.5; share -- curl -sS --max-time 5 http://10.8.0.2:7001/ ; wait $p
      """, "10.8.0.1 fd08::1 \ncontent-of-file\ncontent-of-file\n10.8.0.1 True\n")
  }

  /// By the host's resolver, which the proxy asks over its own stream: there is no link to put a server on. And by a
  /// server of the program's choice, as packets.
  func testNamesResolve() {
    check(
      """
      mkdir -p /etc/netns/\(RawWorld.host); echo nameserver 10.8.0.2 > /etc/netns/\(RawWorld.host)/resolv.conf
      $H $T run --mode raw --capture nfqueue -- sh -c 'cat /etc/resolv.conf; curl -sS http://web.test:8080/file; dig +tcp +short web.test' 2>> $D/share.err
      rm -r /etc/netns/\(RawWorld.host)
      share --dns 10.8.0.2 -- dig +short web.test
      """, "nameserver 169.254.53.53\ncontent-of-file\n10.8.0.2\n10.8.0.2\n")
  }

  /// Datagrams that fit the MTU, and such as must be cut into fragments.
  func testUDPOfAnyLength() {
    check(
      """
      for l in 1400 8000; do for a in 10.8.0.2 fd08::2; do
        $S iperf3 -s -1 -D >/dev/null; sleep 0.5
        share -- iperf3 -u -b 30M -t 1 -l $l -c $a -J | python3 -c 'import json,sys; e=json.load(sys.stdin)["end"]["sum"]; print(e["bytes"] > 3000000, e["lost_packets"] < 50)'
      done; done
      """, String(repeating: "True True\n", count: 4))
  }

  func testOneGibibyteArrivesUnchangedBothWays() {
    let sum = RawWorld.bash("cat $D/big.sum").output
    for host in ["10.8.0.2", "[fd08::2]"] {
      check("share -- sh -c 'curl -gsS http://\(host):8080/big | sha256sum | cut -d\" \" -f1'", sum, timeout: 120)
      check(
        "share -- curl -gsS -T $D/www/big http://\(host):8080/up/big && sha256sum $D/www/up/big | cut -d' ' -f1; rm -f $D/www/up/big",
        sum, timeout: 120)
    }
  }

  // MARK: faithful

  func testRefusalsAndTimeOuts() {
    check(RawWorld.refusalsAndTimeOuts("share"), "ConnectionRefusedError True\nTimeoutError True\n")
  }

  func testHalfCloseBothWaysAndReset() {
    check(RawWorld.halfCloseBothWaysAndReset("share"), "after its end: second\ngot half\nfirst\nreset\n")
  }

  /// A router behind the server's network has a smaller MTU. Its message comes to the host, and the enclave's segments
  /// get shorter; without that an upload would stand still.
  func testPathMTUIsFound() {
    check(
      """
      R=tmb-rr-\(RawWorld.id); ip netns add $R
      ip link add r0 netns \(RawWorld.server) type veth peer name r1 netns $R
      for n in \(RawWorld.server):r0:1 $R:r1:2; do IFS=: read space link number <<< $n
        ip -n $space addr add 10.9.9.$number/24 dev $link; ip -n $space addr add fd99::$number/64 dev $link nodad
        ip -n $space link set $link mtu 1300 up; done
      ip -n $R link set lo up; ip -n $R route add default via 10.9.9.1; ip -n $R route add default via fd99::1
      $S sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
      ip -n \(RawWorld.host) route add 10.9.9.0/24 via 10.8.0.2; ip -n \(RawWorld.host) route add fd99::/64 via fd08::2
      # The far end says 1500, as one behind a tunnel does.
      ip -n $R route change default via 10.9.9.1 advmss 1460; ip -n $R route change default via fd99::1 advmss 1440
      ip netns exec $R python3 -c '
      import socket
      for family, a in (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"):
          s = socket.create_server((a, 7002), family=family); c, _ = s.accept(); print(len(c.makefile("rb").read()), flush=True); c.close(); s.close()' &
      p=$!; sleep 0.5
      share -- sh -c 'head -c 3000000 /dev/zero | socat -t5 - TCP:10.9.9.2:7002; sleep 0.3; head -c 3000000 /dev/zero | socat -t5 - TCP6:[fd99::2]:7002; ip route get 10.9.9.2 | grep -o "mtu [0-9]*"'
      wait $p
      ip -n \(RawWorld.host) route del 10.9.9.0/24; ip -n \(RawWorld.host) route del fd99::/64; ip netns del $R
      $S sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
      """, "3000000\n3000000\nmtu 1300\n")
  }

  /// nfnetlink_queue does not say how long the segments of a super-packet are; they must not be longer than the other end
  /// has said that it takes.
  func testSegmentsAreAsLongAsTheOtherEndTakes() {
    check(
      """
      ip -n \(RawWorld.server) route change 10.8.0.0/24 dev v1 src 10.8.0.2 advmss 600
      timeout 20 $S tcpdump -ni v1 -c 1 'src 10.8.0.1 and tcp and ip[2:2] > 640' > $D/long 2>/dev/null & t=$!
      sleep 0.7
      share -- curl -sS -T /usr/bin/curl -o /dev/null -w '%{http_code}\n' http://10.8.0.2:8080/up/mss
      kill $t; wait $t 2>/dev/null; grep -c "10.8.0.1" $D/long
      ip -n \(RawWorld.server) route change 10.8.0.0/24 dev v1 src 10.8.0.2; rm -f $D/www/up/mss
      """, "201\n0\n")
  }

  // MARK: into the enclave, and past it

  /// The client's own address, and what is not published is refused at once. The host's own services, its own
  /// connections, and those that it had before, go on.
  func testPublishedPortsShowTheClientAndTheHostKeepsTheRest() {
    check(
      """
      cat > $D/inside.conf <<X
      daemon off; pid /tmp/nginx.pid; error_log stderr; events {}
      http { access_log /dev/stdout; server { listen 80; listen [::]:80; location / { return 200 "hello\\n"; } } }
      X
      $H python3 -u -c '
      import socket, sys
      early = socket.create_connection(("10.8.0.2", 8080), source_address=("10.8.0.1", 40000))
      s = socket.create_server(("0.0.0.0", 90))
      while True:
          c, a = s.accept(); early.sendall(b"GET /file HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
          c.sendall(b"host, " + (b"early too" if b"content-of-file" in early.recv(4096) else b"early lost") + b"\\n"); c.close()' & own=$!
      sleep 0.5
      $H $T run --mode raw --capture nfqueue -p 80:80 -p [::]:80:80 -- nginx -c $D/inside.conf > $D/access 2>> $D/share.err & p=$!
      for i in $(seq 50); do $S curl -s -o /dev/null http://10.8.0.1/ && break; sleep 0.1; done
      $S curl -sS http://10.8.0.1/; $S curl -gsS http://[fd08::1]/
      $S python3 -c '
      import socket, time
      for address, port in ("10.8.0.1", 8081), ("fd08::1", 8081), ("10.8.0.1", 91):
          start = time.time()
          try: socket.create_connection((address, port), 5); print("open")
          except Exception as e: print(type(e).__name__, time.time() - start < 1)
      print(socket.create_connection(("10.8.0.1", 90), 5).recv(100).decode(), end="")'
      $H curl -sS --max-time 5 -w '%{local_port}\n' http://10.8.0.2:8080/file | awk 'NR == 1 || $1 >= 61440 { print NR }'
      kill $p; wait $p; kill $own
      cut -d' ' -f1 $D/access | sort -u
      """,
      "hello\nhello\n" + String(repeating: "ConnectionRefusedError True\n", count: 3)
        + "host, early too\n1\n2\n10.8.0.2\nfd08::2\n")
  }

  /// What the host keeps for itself does not leave an enclave in its name, whoever is inside: ports, reserved addresses,
  /// other protocols, other sources.
  func testTheHostRefusesWhatIsNotTheEnclaves() {
    check(
      """
      $S timeout 10 tcpdump -ni v1 -l '(udp and not port 53) or icmp' > $D/seen 2>/dev/null & t=$!
      sleep 0.7
      $H $T run --mode raw --capture nfqueue -- python3 -c '
      import socket, time
      def send(source, to):
          s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", source)); s.sendto(b"x", to)
      send(5000, ("10.8.0.2", 9)); send(61500, ("10.8.0.2", 9)); send(53, ("10.8.0.2", 9))
      send(5001, ("169.254.169.254", 80)); send(5002, ("224.0.0.1", 9)); send(5003, ("198.51.100.1", 9))
      time.sleep(0.5)' 2>> $D/share.err
      sleep 0.3; kill $t; wait $t 2>/dev/null
      grep -c 'UDP' $D/seen; grep -o '10.8.0.1.[0-9]* > 10.8.0.2.[0-9]*: UDP' $D/seen
      """, "1\n10.8.0.1.5000 > 10.8.0.2.9: UDP\n")
  }

  // MARK: processes

  /// The process that reads what the host sends has no right; the one that has a right reads numbers of our own. When
  /// either is killed, both come back and so does the network.
  func testRightsAndRestarts() {
    check(
      """
      share -- sh -c '
      one() { for p in /proc/[0-9]*; do [ "$(tr "\\\\0" " " < $p/cmdline | cut -d" " -f2)" = $1 ] && echo ${p#/proc/}; done; }
      caps() { grep -h CapEff /proc/$(one $1)/status | cut -f2; }
      caps proxy; caps verdicts
      for victim in verdicts proxy; do
        kill -9 $(one $victim); sleep 0.5
        curl -sS --max-time 10 http://10.8.0.2:8080/file; one proxy | wc -l; one verdicts | wc -l
      done'
      """,
      "0000000000000000\n0000000000001000\n" + String(repeating: "content-of-file\n1\n1\n", count: 2))
  }

  // MARK: leaving no trace

  func testEverythingIsAsBefore() {
    check(
      """
      snapshot > $D/before
      share -p 443:443 -- sh -c 'curl -sS http://10.8.0.2:8080/file'
      snapshot > $D/after; diff $D/before $D/after && echo same; kept; ls /run/tombolo 2>/dev/null | grep -c "$($H stat -Lc %i /proc/self/ns/net)"
      """, "content-of-file\nsame\n0\n0\n0\n")
  }

  /// The next start takes away what a killed one left, also when it is of the other kind; and the other way round.
  func testTheNextStartCleansUpAfterSIGKILL() {
    for (first, second) in [("nfqueue", "nfqueue"), ("nfqueue", "tun"), ("tun", "nfqueue")] {
      check(
        """
        snapshot > $D/before
        $H $T run --mode raw --capture \(first) -- sleep 100 2>/dev/null & p=$!
        sleep 1.5; kill -9 $p; wait $p
        test "$(snapshot | md5sum)" = "$(md5sum < $D/before)" || echo left
        $H $T run --mode raw --capture \(second) -- true 2>> $D/share.err
        snapshot > $D/after; diff $D/before $D/after && echo same
        """, "left\nsame\n")
    }
  }

  func testADownloadSurvivesARestartOfTheHost() {
    let sum = RawWorld.bash("cat $D/big.sum").output
    check(
      """
      mkdir -p $D/transport2; printf '[network]\\nmode = "raw"\\ncapture = "nfqueue"\\ntransport = "unix:%s"\\n' $D/transport2 > $D/shared.toml
      host() { $H $T host --transport unix:$D/transport2 --raw --raw-capture nfqueue >> $D/share.err 2>&1 & h=$!; }
      host; sleep 0.5
      unshare -n $I --config $D/shared.toml -- sh -c "curl -sS http://10.8.0.2:8080/slow | sha256sum | cut -d' ' -f1 > $D/restarted2" 2>> $D/share.err & e=$!
      sleep 3; kill -9 $h; wait $h; sleep 1; host
      timeout 60 tail --pid=$e -f /dev/null; cat $D/restarted2; kill $e $h; wait
      """, sum, timeout: 100)
  }

  // MARK: mistakes

  func testMistakesAreSaid() {
    for (words, sentence) in [
      ("run --capture nfqueue -- true", "--capture: expected --mode raw with it"),
      ("run --mode raw --capture pcap -- true", "nfqueue"),
      ("run --mode raw --capture nfqueue -p 8080:80 -- true", "the same number outside and inside"),
      ("run --mode raw --capture nfqueue -p 22:22 -- true", "port 22 is the host's own"),
      ("run --mode raw --capture nfqueue -p 10.8.0.9:80:80 -- true", "10.8.0.9"),
      ("host --transport unix:$D --raw-capture nfqueue", "--raw-capture: expected --raw with it"),
      ("host --transport unix:$D --raw --raw-ports 80", "--raw-ports: expected --raw-capture nfqueue"),
      ("host --transport unix:$D --raw --raw-capture nfqueue --raw-ports 0-9", "found \"0-9\""),
      ("host --transport unix:$D --raw --raw-capture nfqueue --raw-ports 1024-65535", "for the host's own"),
      ("host --transport unix:$D --raw --raw-capture nfqueue --raw-address 10.8.0.7", "10.8.0.7 is no address"),
    ] {
      let outcome = RawWorld.bash("$H timeout 10 $T \(words); echo $?")
      XCTAssertFalse(outcome.output.hasSuffix("124\n") || outcome.output.hasSuffix("\n0\n"), "\(words): \(outcome)")
      XCTAssertTrue(outcome.errors.contains(sentence), "\(words): \(outcome.errors)")
    }
    let before = RawWorld.bash("snapshot").output
    let unprivileged = RawWorld.bash(
      "setpriv --reuid 65534 --regid 65534 --clear-groups $H $T run --mode raw --capture nfqueue -- true; echo $?")
    XCTAssertNotEqual(unprivileged.output, "0\n")
    let second = RawWorld.bash(
      """
      $H $T run --mode raw --capture nfqueue -- sleep 3 & p=$!
      sleep 1; $H timeout 10 $T run --mode raw --capture nfqueue -- true; echo $?; wait $p; echo $?
      """)
    XCTAssertEqual(second.output, "125\n0\n", second.errors)
    XCTAssertTrue(second.errors.contains("another enclave shares this machine's address already"), second.errors)
    XCTAssertEqual(RawWorld.bash("snapshot").output, before)
  }
}
