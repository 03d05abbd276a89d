import Foundation
import XCTest

/// What an enclave in raw mode must not reach unless somebody says so, with real servers at those addresses.
final class DestinationTests: XCTestCase {
  override class func setUp() {
    RawWorld.setUp(bigFile: false)
    let made = RawWorld.bash(
      """
      set -e
      for a in 169.254.169.254 100.100.100.200 168.63.129.16; do
        ip -n \(RawWorld.server) addr add $a/32 dev lo; ip -n \(RawWorld.host) route add $a via 10.8.0.2
      done
      for a in fd00:ec2::254 64:ff9b::a9fe:a9fe; do
        ip -n \(RawWorld.server) addr add $a/128 dev lo nodad; ip -n \(RawWorld.host) route add $a via fd08::2
      done
      for a in 169.254.169.254 [fd00:ec2::254]; do $H curl -gsS --noproxy '*' --max-time 5 http://$a:8080/file; done
      cat > $D/dial.py <<'X'
      import errno, socket, sys, time
      for word in sys.argv[1:]:
          host, port = word.rsplit(":", 1); start = time.time()
          try:
              s = socket.create_connection((host.strip("[]"), int(port)), 5); s.sendall(b"GET /file HTTP/1.0\\r\\n\\r\\n")
              print(word, "answered" if s.makefile("rb").read().endswith(b"content-of-file\\n") else "ended", flush=True)
          except OSError as e:
              print(word, "refused" if time.time() - start < 1 else "hung: " + str(e), flush=True)
      X
      """)
    XCTAssertEqual(made.output, String(repeating: "content-of-file\n", count: 2), made.errors)
  }
  override class func tearDown() { RawWorld.tearDown() }

  private static let special = [
    "169.254.169.254", "169.254.170.2", "169.254.1.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1",
    "240.0.0.1", "255.255.255.255", "224.0.0.1", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]", "[fd20:ce::254]", "[2001:db8::1]", "[100::1]", "[ff0e::1]", "198.51.100.7", "[4000::1]",
  ].map { $0 + ":8080" }
  private static let ways = ["tun", "nfqueue"]

  private func run(_ way: String, _ options: String, _ program: String) -> Outcome {
    RawWorld.bash("$H $T run --mode raw --capture \(way) --dns 10.8.0.2 \(options) -- \(program)")
  }

  /// connect(2) itself fails for these, before there is a packet.
  private static let kernels = ["255.255.255.255:8080", "224.0.0.1:8080", "[ff0e::1]:8080"]

  /// Refused inside already, at once, each with the reason in the log, and an ordinary address beside them.
  func testSpecialDestinationsAreRefused() {
    XCTAssertEqual(Self.special.count, 20)
    for way in Self.ways {
      // As many as there are lines for at once: a flood is a few.
      for some in [Self.special.prefix(10), Self.special.suffix(10)] {
        let outcome = run(way, "-v", "python3 $D/dial.py \(some.joined(separator: " ")) 10.8.0.2:8080 [fd08::2]:8080")
        let expected = some.map { "\($0) refused\n" } + ["10.8.0.2:8080 answered\n", "[fd08::2]:8080 answered\n"]
        XCTAssertEqual(outcome.output, expected.joined(), "\(way): \(outcome.errors)")
        for destination in some where !Self.kernels.contains(destination) {
          // A mapped address is IPv4 for the kernel, and in its packets.
          let packets = destination.replacingOccurrences(of: "[::ffff:169.254.169.254]", with: "169.254.169.254")
          XCTAssertTrue(
            outcome.errors.contains("packets to \(packets) (TCP) denied: built-in rule \""),
            "\(way) \(destination): \(outcome.errors)")
        }
      }
    }
  }

  /// The host's side looks for itself: an image that allows itself everything gets no further, and is told at once.
  func testTheHostRefusesWhatTheImageAllows() {
    for way in Self.ways {
      RawWorld.bash(
        """
        printf '[egress]\\ndefault = "allow"\\nallow = ["169.254.169.254", "100.100.100.200:8080", "168.63.129.16", "fd00:ec2::254"]\\n' > $D/open.toml
        """)
      let denied = [
        "169.254.169.254", "[64:ff9b::a9fe:a9fe]", "100.100.100.200", "168.63.129.16", "[fd00:ec2::254]",
      ].map { $0 + ":8080" }
      let outcome = run(
        way, "--config $D/open.toml", "python3 $D/dial.py \(denied.joined(separator: " ")) 10.8.0.2:8080")
      XCTAssertEqual(
        outcome.output, denied.map { "\($0) refused\n" }.joined() + "10.8.0.2:8080 answered\n",
        "\(way): \(outcome.errors)")
      XCTAssertTrue(
        outcome.errors.contains(
          "tombolo: packets to 169.254.169.254:8080 (TCP) denied: built-in rule \"metadata\": it is in 169.254.169.254/32"
        ),
        "\(way): \(outcome.errors)")
    }
  }

  func testAnAllowedDestinationAnswers() {
    for way in Self.ways {
      let outcome = run(
        way, "--allow-destination 169.254.169.254:8080 --allow-destination fd00:ec2::254",
        "python3 $D/dial.py 169.254.169.254:8080 [64:ff9b::a9fe:a9fe]:8080 [fd00:ec2::254]:8080 169.254.169.254:8081")
      XCTAssertEqual(
        outcome.output,
        """
        169.254.169.254:8080 answered
        [64:ff9b::a9fe:a9fe]:8080 answered
        [fd00:ec2::254]:8080 answered
        169.254.169.254:8081 refused

        """, "\(way): \(outcome.errors)")
    }
  }

  /// A datagram is answered, too: who waits for an answer from the metadata's name server would wait for long.
  func testDatagramsAndPingAreToldAtOnce() {
    let program = """
      python3 -c '
      import errno, socket
      for family, address in (socket.AF_INET, "169.254.169.253"), (socket.AF_INET6, "fd00:ec2::253"):
          s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5); s.connect((address, 123)); s.send(b"x")
          try: s.recv(1); print("answered")
          except OSError as e: print(errno.errorcode.get(e.errno, e))'
      """
    for way in Self.ways {
      XCTAssertEqual(run(way, "", program).output, "EHOSTUNREACH\nEACCES\n", way)
    }
    let ping = run("tun", "", "sh -c 'ping -c 1 -W 5 169.254.169.254; ping -c 1 -W 5 fd00:ec2::254'")
    XCTAssertTrue(ping.output.contains("Packet filtered"), ping.output)
    XCTAssertTrue(ping.output.contains("Administratively prohibited"), ping.output)
  }

  /// With the host's own address: another address of the host is reached through its loopback, past the rules of the
  /// enclave's ports. Also one that it has got a moment ago.
  func testOtherAddressesOfTheMachine() {
    let outcome = RawWorld.bash(
      """
      cd $D/www; $H python3 -m http.server 7100 --bind :: >/dev/null 2>&1 & server=$!
      ip -n \(RawWorld.host) addr add 10.8.0.77/24 dev v0
      for i in $(seq 50); do $H curl -sS --noproxy '*' http://10.8.0.77:7100/file >/dev/null 2>&1 && break; sleep 0.1; done
      for way in tun nfqueue; do
        rm -f go $D/out; $H $T run --mode raw --capture $way -- sh -c 'python3 $0 10.8.0.77:7100; echo waiting
          while [ "$(curl -s -o /dev/null -w %{http_code} http://10.8.0.2:8080/go)" != 200 ]; do sleep 0.05; done
          python3 $0 10.8.0.78:7100 10.8.0.2:8080' $D/dial.py > $D/out & enclave=$!
        for i in $(seq 100); do grep -qs waiting $D/out && break; sleep 0.1; done
        ip -n \(RawWorld.host) addr add 10.8.0.78/24 dev v0
        $H curl -sS --noproxy '*' http://10.8.0.78:7100/file
        touch go; wait $enclave; cat $D/out; ip -n \(RawWorld.host) addr del 10.8.0.78/24 dev v0
      done
      rm go; kill $server; ip -n \(RawWorld.host) addr del 10.8.0.77/24 dev v0
      """)
    let each = "content-of-file\n10.8.0.77:7100 refused\nwaiting\n10.8.0.78:7100 refused\n10.8.0.2:8080 answered\n"
    XCTAssertEqual(outcome.output, each + each, outcome.errors)
  }

  /// Datagrams too, of which none opens anything: a name server or a metrics daemon of the machine answers the first one. With
  /// the host's own address they would come through its loopback.
  func testDatagramsToOtherAddressesOfTheMachine() {
    let outcome = RawWorld.bash(
      """
      cat > $D/echo.py <<'X'
      import select, socket, sys
      sockets = []
      for address in sys.argv[1:]:
          s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM); sockets.append(s)
          if ":" in address: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
          s.bind((address, 7200))
      print("ready", flush=True)
      while True:
          for s in select.select(sockets, [], [])[0]:
              data, peer = s.recvfrom(100); print(s.getsockname()[0], data.decode(), flush=True); s.sendto(data, peer)
      X
      cat > $D/send.py <<'X'
      import errno, socket, sys
      for address in sys.argv[2:]:
          s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)
          s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
          try:
              s.connect((address, 7200)); s.send(sys.argv[1].encode()); s.recv(100); print(address, "answered", flush=True)
          except OSError as e: print(address, errno.errorcode.get(e.errno, "no answer"), flush=True)
      X
      ip -n \(RawWorld.host) addr add 10.8.0.77/24 dev v0; ip -n \(RawWorld.host) addr add fd09:7::77/128 dev lo nodad
      $H python3 $D/echo.py 0.0.0.0 :: > $D/host.out & host=$!
      $S python3 $D/echo.py 10.8.0.2 fd08::2 > $D/server.out & server=$!
      for i in $(seq 100); do grep -qs ready $D/host.out && grep -qs ready $D/server.out && break; sleep 0.1; done
      for way in tun nfqueue; do
        $H $T run --mode raw --capture $way -- python3 $D/send.py $way-denied 10.8.0.77 fd09:7::77 ::ffff:10.8.0.77 10.8.0.2 fd08::2 10.8.0.255 2>/dev/null | grep -v 10.8.0.255
        allow=$([ $way = tun ] && echo --allow-host-ports 7200 || echo --allow-destination 10.8.0.77:7200)
        $H $T run --mode raw --capture $way $allow -- python3 $D/send.py $way-allowed 10.8.0.77 > /dev/null 2>&1
      done
      sleep 0.3; kill $host $server; cat $D/host.out
      ip -n \(RawWorld.host) addr del 10.8.0.77/24 dev v0; ip -n \(RawWorld.host) addr del fd09:7::77/128 dev lo
      """)
    let each = """
      10.8.0.77 EHOSTUNREACH
      fd09:7::77 EACCES
      ::ffff:10.8.0.77 EHOSTUNREACH
      10.8.0.2 answered
      fd08::2 answered

      """
    XCTAssertEqual(
      outcome.output, each + each + "ready\n0.0.0.0 tun-allowed\n0.0.0.0 nfqueue-allowed\n", outcome.errors)
  }
}
