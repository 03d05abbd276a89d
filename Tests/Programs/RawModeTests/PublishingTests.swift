import Foundation
import XCTest

/// Ports of the program in raw mode, as its clients and its operator meet them: those of a fresh machine and of one where
/// another server has just been, TCP and UDP, from outside and from the program itself.
final class PublishingTests: XCTestCase {
  override class func setUp() { RawWorld.setUp(bigFile: false) }
  override class func tearDown() { RawWorld.tearDown() }

  private static let prelude = """
    resolver() { # the name server that enclaves without --dns ask
      mkdir -p /etc/netns/\(RawWorld.host); echo nameserver 10.8.0.2 > /etc/netns/\(RawWorld.host)/resolv.conf
    }
    noresolver() { rm -r /etc/netns/\(RawWorld.host); }
    until_up() { for i in $(seq 100); do "$@" > /dev/null 2>&1 && return; sleep 0.1; done; echo not up; }

    """

  private func check(
    _ script: String, _ expected: String, timeout: TimeInterval = 60, file: StaticString = #filePath, line: UInt = #line
  ) {
    let outcome = RawWorld.bash(Self.prelude + script, timeout: timeout, file: file, line: line)
    XCTAssertEqual(outcome.output, expected, outcome.errors, file: file, line: line)
  }

  /// Issue 10, fault 7. A server that has just ended leaves connections in TIME_WAIT for a minute; the enclave that takes its
  /// place starts at once. The port is kept from every other program all the same, whatever options its socket has.
  func testAPortWithConnectionsInTimeWaitIsTaken() {
    check(
      """
      $H python3 -c 'import socket; c, _ = socket.create_server(("10.8.0.1", 8085)).accept(); c.close()' & s=$!
      until_up $H grep -q '0100080A:1F95 [0-9A-F:]* 0A ' /proc/net/tcp
      $S python3 -c 'import socket; print(socket.create_connection(("10.8.0.1", 8085)).recv(1))'; wait $s
      # TCP_TIME_WAIT of include/net/tcp_states.h.
      until_up $H grep -q '0100080A:1F95 [0-9A-F:]* 06 ' /proc/net/tcp
      cat > $D/grab.py <<'X'
      import socket
      for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
          for option in 0, socket.SO_REUSEADDR, socket.SO_REUSEPORT:
              s = socket.socket(socket.AF_INET, kind)
              if option: s.setsockopt(socket.SOL_SOCKET, option, 1)
              try: s.bind(("10.8.0.1", 8085)); kind == socket.SOCK_STREAM and s.listen(); print("taken")
              except OSError as e: print(e.strerror)
      X
      $H $T run --mode raw -p 8085:80 -p 8085:80/udp -- sleep 20 2> $D/first.err & p=$!
      until_up $H grep -q tombolo0 /proc/net/dev; sleep 0.3
      $H python3 $D/grab.py
      $H $T run --mode raw -p 8085:80 -- true; echo $?; $H $T run --mode raw -p 8085:80/udp -- true; echo $?
      $S curl -s --max-time 5 http://10.8.0.1:8085/; echo $?
      kill $p; wait $p; cat $D/first.err; $H python3 $D/grab.py | sort -u
      """,
      "b''\n" + String(repeating: "Address already in use\n", count: 6) + "125\n125\n7\n"
        // Python's own socket without SO_REUSEADDR meets TIME_WAIT, which the other two do not.
        + "Address already in use\ntaken\n")
    let second = RawWorld.bash(
      Self.prelude + """
        $H $T run --mode raw -p 8085:80/udp -- sleep 20 2>/dev/null & p=$!
        until_up $H grep -q tombolo0 /proc/net/dev; sleep 0.3
        $H $T run --mode raw -p 8085:81/udp -- true; kill $p; wait $p
        """)
    XCTAssertTrue(
      second.errors.contains("-p 0.0.0.0:8085 → 81/udp: port 8085 is already taken on this machine"), second.errors)
  }

  /// Issue 10, fault 8. dnsmasq, unmodified, serves names to the network over UDP and TCP, at port 53 of the host, while the
  /// enclave's own queries go to the host's resolver. What is not published is not reached.
  func testADNSServerIsPublished() {
    check(
      """
      resolver
      $H $T run --mode raw -p 53:53/udp -p 53:53 -p [::]:53:53/udp -p 8087:54 -- sh -c '
        dnsmasq -k --no-resolv --no-hosts --host-record=inside.test,192.0.2.7 --pid-file= --user=root --log-queries --log-facility=- &
        dnsmasq -k -p 54 --no-resolv --no-hosts --host-record=inside.test,192.0.2.8 --pid-file= --user=root &
        sleep 1; getent hosts web.test; dig +tcp +short web.test @169.254.53.53; sleep 20' > $D/own 2> $D/queries & p=$!
      until_up $S dig +tries=1 +time=1 +short @10.8.0.1 inside.test
      until_up grep -q '^10.8.0.2$' $D/own
      for w in '@10.8.0.1' '@fd08::1' '+tcp @10.8.0.1'; do $S dig +tries=1 +time=2 +short inside.test $w; done
      $H dig +tries=1 +time=2 +short @127.0.0.1 inside.test
      $S dig +tries=1 +time=1 +short -p 8087 @10.8.0.1 inside.test | grep -c 192; $S dig +tries=1 +time=2 +short -p 8087 +tcp @10.8.0.1 inside.test
      $T status $p | grep published
      sed 's/  */ /g' $D/own; sed -n 's/.* inside.test from //p' $D/queries | sort -u; kill $p; wait $p; noresolver
      """,
      String(repeating: "192.0.2.7\n", count: 4) + """
        0
        192.0.2.8
          published  0.0.0.0:53 → 53/udp
          published  0.0.0.0:53 → 53
          published  [::]:53 → 53/udp
          published  0.0.0.0:8087 → 54
        fd08::2 web.test
        10.8.0.2
        10.118.0.1
        10.8.0.2
        fd08::2

        """)
  }

  /// The same with the host's address: a UDP port is reached where it is published and nowhere else, and answers to the
  /// enclave's own datagrams come.
  func testADNSServerIsPublishedAtTheHostsAddress() {
    for (option, other, answered) in [
      ("-p 5354:5354/udp", "", "192.0.2.7\n192.0.2.7\n"), ("-p 5354:5354", "+tcp", "closed\n192.0.2.7\n"),
    ] {
      check(
        """
        $H $T run --mode raw --capture nfqueue --dns 10.8.0.2 \(option) -p 5355:5355 -- sh -c '
          dnsmasq -k -p 5354 --no-resolv --no-hosts --host-record=inside.test,192.0.2.7 --pid-file= --user=root &
          dig +tries=2 +time=2 +short web.test; sleep 20' > $D/own & p=$!
        until_up grep -q . $D/own; until_up $H $T status $p; sleep 1
        $S dig +tries=1 +time=3 +short -p 5354 @10.8.0.1 inside.test > $D/answer && cat $D/answer || echo closed
        $S dig \(other) +tries=1 +time=3 +short -p 5354 @10.8.0.1 inside.test
        kill $p; wait $p; cat $D/own; rm $D/own
        """, answered + "10.8.0.2\n")
    }
  }

  /// Issue 10, fault 9. Programs are told one address of themselves, and call it: clusters, callbacks, health checks.
  func testAProgramReachesItsOwnPublishedPort() {
    for (capture, firewall) in [("tun", "nftables"), ("tun", "xtables"), ("nfqueue", "auto")] {
      check(
        """
        printf '[network]\\nfirewall = "\(firewall)"\\n' > $D/fire.toml
        $H $T run --config $D/fire.toml --mode raw --capture \(capture) -p 8086:8086 -p [::]:8086:8086 -- sh -c '
          cd '$D'/www; python3 -m http.server -b :: 8086 > /dev/null 2>&1 &
          for i in $(seq 50); do curl -s -o /dev/null http://127.0.0.1:8086/ && break; sleep 0.1; done
          curl -sS --max-time 5 http://10.8.0.1:8086/file; curl -gsS --max-time 5 http://[fd08::1]:8086/file'
        """, "content-of-file\ncontent-of-file\n")
    }
  }

  func testMistakesAreSaid() {
    for (words, sentence) in [
      ("run --mode raw -p 53:53/sctp -- true", "-p: found \"53:53/sctp\", expected"),
      ("run --mode raw --allow-host-ports 80,x -- true", "--allow-host-ports: found \"80,x\", expected ports"),
      ("run --mode raw --capture nfqueue --allow-host-ports 80 -- true", "--allow-host-ports: with nfqueue"),
      ("run --mode raw --capture nfqueue -p 22:22/udp -- true", "-p 0.0.0.0:22:22/udp: port 22 is the host's own"),
    ] {
      let outcome = RawWorld.bash("$H timeout 10 $T \(words); echo $?")
      XCTAssertEqual(outcome.output, "125\n", "\(words): \(outcome.errors)")
      XCTAssertTrue(outcome.errors.contains(sentence), "\(words): \(outcome.errors)")
    }
  }
}
