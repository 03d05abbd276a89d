import Foundation
import XCTest

/// Rules by name for packets, with real servers of names and of TLS: what a rule names works, and no packet goes anywhere else.
final class NameTests: XCTestCase {
  /// Each way of capture, with each kind of rules. Where a kernel has no nft_queue, as here, "auto" is xtables.
  private static let ways = [("tun", "nftables"), ("tun", "xtables"), ("nfqueue", "auto"), ("nfqueue", "xtables")]
  private static let captures = [("tun", "nftables"), ("nfqueue", "auto")]
  private static let clients = #filePath.components(separatedBy: "/Programs/")[0] + "/clients"
  private static let dnsmasq = "10.8.0.3"
  private static let unbound = "10.8.0.5"

  override class func setUp() {
    RawWorld.setUp(bigFile: false)
    let made = RawWorld.bash("$S bash \(clients)/name-world.sh $D 10.8.0 fd08", timeout: 60)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() { RawWorld.tearDown() }

  private func inEnclave(
    _ way: (capture: String, firewall: String), _ configuration: String, _ script: String, server: String = dnsmasq,
    options: String = "", watched: Bool = false
  ) -> Outcome {
    let run =
      "$H $T run --mode raw --capture \(way.capture) --dns \(server) \(options) --config $D/policy.toml -- bash $D/script.sh"
    return RawWorld.bash(
      """
      cat > $D/policy.toml <<'X'
      [network]
      firewall = "\(way.firewall)"
      \(configuration)
      X
      cat > $D/script.sh <<'X'
      . \(RawWorld.directory)/fetch.sh
      \(script)
      X
      \(watched ? "bash \(Self.clients)/watched.sh $D \(RawWorld.host) \(RawWorld.server) 10.8.0 \(run)" : run)
      """)
  }

  private static let names = """
    [egress]
    default = "deny"
    allow = ["ok.test:8080", "*.alias.test", "six.test:8080", "rebind.test", "big.test", "zero.test", "udp://time.test:123"]
    [dns]
    hold = "1s"
    """

  private static let send = """
    python3 -c '
    import errno, socket, sys
    for address, port in (("10.8.0.4", 123), ("10.8.0.2", 123)):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
        try: s.connect((address, port)); s.send(b"hello"); print(s.recv(9).decode(), flush=True)
        except OSError as e: print(errno.errorcode.get(e.errno, "nothing"), flush=True)'
    """

  /// Each client that there is gets what a rule names, over IPv4 and IPv6, and is refused the rest at once, whatever server it
  /// asks and however.
  func testNamesAreAllowedAndRefused() throws {
    let expected = try String(contentsOfFile: Self.clients + "/names.expected", encoding: .utf8)
    for (way, server) in Self.ways.map({ ($0, Self.dnsmasq) }) + Self.captures.map({ ($0, Self.unbound) }) {
      let outcome = inEnclave(
        way, Self.names,
        """
        bash \(RawWorld.directory)/names.sh 10.8.0 fd08
        quick curl -s --noproxy '*' http://10.8.0.4:8080/file
        dig +short time.test
        \(Self.send)
        """, server: server)
      XCTAssertEqual(
        outcome.output, expected + "curl 7\n10.8.0.4\nhello\nEHOSTUNREACH\n", "\(way) \(server): \(outcome.errors)")
      for sentence in [
        "dns: other.test A denied: no rule of egress.allow names it",
        "packets to 10.8.0.2:8080 (TCP) denied: no rule of egress.allow names it",
        "packets to 10.8.0.2:8081 (TCP, ok.test) denied: no rule of egress.allow names it",
        "packets to 10.8.0.2:123 (UDP", "dns: rebind.test A: taken out of the answer:",
      ] { XCTAssertTrue(outcome.errors.contains(sentence), "\(way) \(server): \(sentence): \(outcome.errors)") }
    }
  }

  /// What is open goes on when the address is nobody's any more; nothing new begins, and no other end.
  func testWhatIsOpenGoesOn() {
    for way in Self.captures {
      let outcome = inEnclave(
        way, Self.names,
        """
        python3 -c '
        import http.client, socket, time
        c = http.client.HTTPConnection("ok.test", 8080); c.request("GET", "/file"); print(c.getresponse().read().decode(), end="", flush=True)
        time.sleep(2.5)
        try: socket.create_connection(("10.8.0.2", 8080), 5); print("connected")
        except ConnectionRefusedError: print("refused")
        c.request("GET", "/file"); print(c.getresponse().read().decode(), end="")'
        """)
      XCTAssertEqual(outcome.output, "content-of-file\nrefused\ncontent-of-file\n", "\(way): \(outcome.errors)")
    }
  }

  /// `deny` wins over what is open by default, by name and by address; fixed answers are policy's too.
  func testDenyAndFixedAnswers() {
    for way in Self.captures {
      let outcome = inEnclave(
        way,
        """
        [egress]
        default = "allow"
        deny = ["other.test", "10.8.0.2:8080"]
        [dns]
        denied = "nxdomain"
        hosts = { "fixed.test" = ["10.8.0.2", "fd08::2"] }
        """,
        """
        dig +short fixed.test; dig other.test | grep -o 'status: [A-Z]*'
        fetch -4 http://fixed.test:8080/file
        fetch -6 http://fixed.test:8080/file
        fetch -6 http://ok.test:8080/file
        curl -sk --noproxy '*' -o /dev/null https://10.8.0.2/ && echo served
        """)
      XCTAssertEqual(
        outcome.output, "10.8.0.2\nstatus: NXDOMAIN\nrefused\ncontent-of-file\ncontent-of-file\nserved\n",
        "\(way): \(outcome.errors)")
      XCTAssertTrue(
        outcome.errors.contains("packets to 10.8.0.2:8080 (TCP, fixed.test) denied: egress.deny has \"10.8.0.2:8080\""),
        "\(way): \(outcome.errors)")
    }
  }

  /// By address: each transport has its own rules, and what no rule names is told so at once. `deny` wins.
  func testRulesByAddress() {
    let script = """
      fetch http://10.8.0.2:8080/file; fetch 'http://[fd08::2]:8080/file'; quick curl -s --noproxy '*' http://10.8.0.2:2525; quick curl -s --noproxy '*' http://10.8.0.4:8080
      \(Self.send)
      """
    for way in Self.ways {
      let denied = inEnclave(
        way,
        """
        [egress]
        default = "deny"
        allow = ["10.8.0.2:8080-8090", "[fd08::]/64:8080", "udp://10.8.0.4:123", "icmp://10.8.0.2"]
        """, script)
      XCTAssertEqual(
        denied.output, "content-of-file\ncontent-of-file\ncurl 7\ncurl 7\nhello\nEHOSTUNREACH\n",
        "\(way): \(denied.errors)")
      for sentence in [
        "packets to 10.8.0.2:2525 (TCP) denied: no rule of egress.allow names it",
        "packets to 10.8.0.2:123 (UDP) denied: no rule of egress.allow names it",
      ] { XCTAssertTrue(denied.errors.contains(sentence), "\(way): \(sentence): \(denied.errors)") }
      let open = inEnclave(
        way,
        """
        [egress]
        default = "allow"
        deny = ["10.8.0.4", "10.8.0.2:2525", "[fd08::]/64"]
        """, script)
      XCTAssertEqual(
        open.output, "content-of-file\nrefused\ncurl 7\ncurl 7\nEHOSTUNREACH\nhello\n", "\(way): \(open.errors)")
      XCTAssertTrue(
        open.errors.contains("packets to 10.8.0.2:2525 (TCP) denied: egress.deny has \"10.8.0.2:2525\""), open.errors)
    }
    let ping = inEnclave(
      Self.captures[0], "[egress]\ndefault = \"deny\"\nallow = [\"icmp://10.8.0.2\"]",
      "ping -c 1 -W 5 10.8.0.2 | grep -o '1 received'; ping -c 1 -W 5 10.8.0.4 | grep -o 'Packet filtered'")
    XCTAssertEqual(ping.output, "1 received\nPacket filtered\n", ping.errors)
  }

  /// Who comes in to a published port is answered whatever the rules say.
  func testClientsAreAnswered() {
    for way in Self.captures {
      let outcome = RawWorld.bash(
        """
        printf '[ingress]\\nports = [8088]\\n[egress]\\ndefault = "deny"\\nallow = ["ok.test"]\\n' > $D/in.toml
        rm -f $D/port.out
        $H $T run --mode raw --capture \(way.0) --dns 10.8.0.3 --config $D/in.toml -p 8088:8088 -- sh -c 'cd '$D'/www; exec python3 -m http.server 8088' >/dev/null 2> $D/port.out & enclave=$!
        for i in $(seq 100); do $S curl -s --noproxy '*' http://10.8.0.1:8088/file && break; sleep 0.1; done
        kill $enclave; wait $enclave
        """)
      XCTAssertEqual(outcome.output, "content-of-file\n", "\(way): \(outcome.errors)")
    }
  }

  /// The parent's owner bounds an enclave that allows itself everything, by name and by address, whatever server it asks; each
  /// side's log says that it was that side.
  func testTheHostHasRulesOfItsOwn() {
    for way in Self.ways {
      for image in ["", "[egress]\ndefault = \"allow\"\ndeny = [\"nobody.test\"]"] {
        let outcome = RawWorld.bash(
          """
          printf '[egress]\\ndefault = "deny"\\nallow = ["ok.test:8080", "10.8.0.2:2525", "udp://10.8.0.4:123"]\\n[dns]\\nhold = "1s"\\n' > $D/host.toml
          printf '[network]\\nfirewall = "\(way.1)"\\n\(image.replacingOccurrences(of: "\n", with: "\\n"))\\n' > $D/image.toml
          cat > $D/script.sh <<'X'
          . \(RawWorld.directory)/fetch.sh
          fetch http://10.8.0.2:8080/file; fetch -4 http://ok.test:8080/file; fetch http://10.8.0.2:8080/file; fetch -4 http://ok.test:8081/file
          fetch -6 http://ok.test:8080/file; fetch http://other.test:8080/file
          \(Self.send)
          python3 -c 'import socket; print(socket.create_connection(("10.8.0.2", 2525), 5).recv(99).decode().strip())'
          X
          $H $T run --mode raw --capture \(way.0) --dns 10.8.0.3 --config $D/image.toml --policy $D/host.toml -- bash $D/script.sh
          """)
        XCTAssertEqual(
          outcome.output,
          "refused\ncontent-of-file\ncontent-of-file\nrefused\ncontent-of-file\nunknown\nhello\nEHOSTUNREACH\n220 ready\n",
          "\(way) \(image): \(outcome.errors)")
        for sentence in [
          "tombolo: packets to 10.8.0.2:8080 (TCP) denied: no rule of egress.allow names it",
          "tombolo: packets to 10.8.0.2:8081 (TCP, ok.test) denied: no rule of egress.allow names it",
          "tombolo: name: other.test A denied: no rule of egress.allow names it",
        ] { XCTAssertTrue(outcome.errors.contains(sentence), "\(way): \(sentence): \(outcome.errors)") }
      }
    }
  }

  private static func sni(_ word: String) -> String {
    """
    [egress]
    default = "deny"
    allow = ["ok.test"]
    sni = "\(word)"
    sni_ports = [443, 8443, 8080]
    """
  }

  /// Another name at the same address is refused by what the client asks the server for, however its bytes come, and both ends
  /// are told; on other ports nobody waits.
  func testTheNameThatAClientAsksFor() {
    let script = "bash \(RawWorld.directory)/tls-names.sh 10.8.0"
    let lines = ["whole", "bytes", "records", "pq"].map { "\($0) ok.test handshake\n\($0) other.test reset\n" }.joined()
    for way in Self.captures {
      let required = inEnclave(way, Self.sni("require"), script)
      XCTAssertEqual(
        required.output,
        "served\nserved\nserved\nrefused\nrefused\ncertificate\nnothing\nnothing\n" + lines
          + "whole - reset\nrefused\n220 ready\n", "\(way): \(required.errors)")
      for sentence in [
        "packets to 10.8.0.2:443 (TCP, other.test) denied: the client asks for other.test: no rule of egress.allow names it",
        "packets to 10.8.0.2:443 (TCP, ok.test) denied: the client names no server (egress.sni = \"require\")",
      ] { XCTAssertTrue(required.errors.contains(sentence), "\(way): \(sentence): \(required.errors)") }
      let checked = inEnclave(way, Self.sni("check"), script)
      XCTAssertEqual(
        checked.output,
        "served\nserved\nserved\nrefused\nserved\ncertificate\nnothing\ncertificate\n" + lines
          + "whole - handshake\ncontent-of-file\n220 ready\n", "\(way): \(checked.errors)")
    }
  }

  /// A client that connects and says nothing is not waited for: after 10 s both ends are reset.
  func testAClientThatSaysNothing() {
    let outcome = RawWorld.bash(
      """
      cat > $D/silent.py <<'X'
      import socket
      s = socket.create_server(("10.8.0.2", 7443)); print("up", flush=True); c, _ = s.accept()
      try: print("server", len(c.recv(100)), len(c.recv(100)), flush=True)
      except ConnectionResetError: print("server reset", flush=True)
      X
      $S timeout 50 python3 $D/silent.py > $D/silent & server=$!
      for i in $(seq 50); do grep -qs up $D/silent && break; sleep 0.1; done
      cat > $D/policy.toml <<'X'
      [egress]
      allow = ["ok.test", "10.8.0.2:7443"]
      sni = "check"
      sni_ports = [7443]
      X
      $H $T run --mode raw --config $D/policy.toml -- python3 -c '
      import socket, time
      s = socket.create_connection(("10.8.0.2", 7443), 5); s.sendall(b"\\x16\\x03\\x01"); s.settimeout(40); start = time.monotonic()
      try: print("client", len(s.recv(10)))
      except ConnectionResetError: print("client reset", 9 < time.monotonic() - start < 30)'
      wait $server; cat $D/silent
      """)
    XCTAssertEqual(outcome.output, "client reset True\nup\nserver reset\n", outcome.errors)
    XCTAssertTrue(
      outcome.errors.contains("packets to 10.8.0.2:7443 (TCP) denied: no whole ClientHello came (egress.sni)"),
      outcome.errors)
  }

  /// From the log of a day on which everything was allowed comes a policy under which the same programs work, and nothing else.
  /// An address that the program has by itself counts for the name whose answer it was last.
  func testAPolicyFromALog() {
    for capture in ["tun", "nfqueue"] {
      let outcome = RawWorld.bash(
        """
        cd $D
        cat > day.sh <<'X'
        curl -sS --noproxy '*' http://ok.test:8080/file
        curl -sSk --noproxy '*' -o /dev/null https://other.test/ && echo served
        curl -sS --noproxy '*' 'http://[fd08::2]:8080/file'
        dig +short big.test TXT | wc -c
        \(Self.send.replacingOccurrences(of: "10.8.0.4", with: "time.test"))
        curl -s -m 5 http://169.254.169.254/ || echo "no metadata"
        X
        day() { $H $T run -v --log-format json --mode raw --capture \(capture) --dns \(Self.dnsmasq) --config $1 -- bash day.sh; }
        printf '[egress]\\ndefault = "allow"\\nsni = "check"\\n' > open.toml
        day open.toml > day.log 2> errors
        $T check --seen day.log | sed 's#/32, .*#/32#'
        $T check --suggest day.log > policy.toml || cat errors; sed '/^#/d' policy.toml
        printf '[network]\\nmode = "raw"\\n' > raw.toml; cat policy.toml >> raw.toml
        day raw.toml > second 2>&1; sed -n 's/.*"source":"stdout","line":"\\(.*\\)"}/\\1/p' second
        """)
      XCTAssertEqual(
        outcome.output,
        """
        used dns big.test: egress.default is "allow"
        used dns ok.test: egress.default is "allow"
        used dns other.test: egress.default is "allow"
        used dns time.test: egress.default is "allow"
        used ok.test:8080: egress.default is "allow"
        used other.test:443: egress.default is "allow"
        used udp://other.test:123: egress.default is "allow"
        used udp://time.test:123: egress.default is "allow"
        denied 169.254.169.254:80: built-in rule "metadata": it is in 169.254.169.254/32
        [egress]
        default = "deny"
        allow = [
          "icmp://big.test",  # was asked for, and nothing connected to it
          "ok.test:8080",
          "other.test:443",
          "udp://other.test:123",
          "udp://time.test:123",
        ]
        content-of-file
        served
        content-of-file
        1518
        hello
        hello
        no metadata

        """, "\(capture): \(outcome.errors)")
    }
  }

  /// A proxy that is killed has forgotten which names were answered: connections for a name are reset, those to an address that a
  /// rule names go on, names can be asked for again; and what is denied is denied at every moment.
  func testAProxyThatIsKilled() {
    for way in Self.captures {
      let outcome = inEnclave(
        way, "[egress]\nallow = [\"ok.test:8080\", \"[fd08::2]:8080\"]",
        """
        cat > /tmp/again.py <<'Y'
        import glob, http.client, os, signal, socket, threading, time
        def fetched(c, path="/file"):
            try:
                c.request("GET", path); return c.getresponse().read().decode().strip()
            except OSError as error: return type(error).__name__
        def connection(host): return http.client.HTTPConnection(host, 8080, timeout=20)
        def proxies(): return [int(p.split("/")[2]) for p in glob.glob("/proc/[0-9]*/comm") if open(p).read().strip() == "tombolo-proxy"]
        named, fixed = connection(socket.getaddrinfo("ok.test", 8080, socket.AF_INET)[0][4][0]), connection("fd08::2")
        print(fetched(named), fetched(fixed), flush=True)
        running = True
        def attack():
            u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            raw = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            while running:
                for s, to in ((u, ("10.8.0.2", 124)), (u, ("10.8.0.4", 123)), (raw, ("fd08::2", 124))):
                    try: s.sendto(b"EXFILTRATED", to)
                    except OSError: pass
                s = socket.socket(); s.setblocking(False)
                try: s.connect(("10.8.0.2", 8081))
                except OSError: pass
                time.sleep(0.002); s.close()
        thread = threading.Thread(target=attack); thread.start()
        time.sleep(0.3)
        old = proxies()
        for pid in old: os.kill(pid, signal.SIGKILL)
        while not set(proxies()) - set(old): time.sleep(0.01)
        print("by a name:", fetched(named)); print("by its address:", fetched(fixed))
        print("its address alone:", fetched(connection("10.8.0.2")))
        print("asked for again:", fetched(connection("ok.test")))
        time.sleep(0.3); running = False; thread.join()
        fetched(connection("ok.test"), "/ALLOWED")
        Y
        python3 /tmp/again.py
        """, watched: true)
      XCTAssertEqual(
        outcome.output,
        """
        content-of-file content-of-file
        by a name: ConnectionResetError
        by its address: content-of-file
        its address alone: ConnectionRefusedError
        asked for again: content-of-file
        heard: 0
        marks: 0
        allowed: 1

        """, "\(way): \(outcome.errors)")
    }
  }

  /// One allowed name, and somebody inside, root, who knows Tombolo and tries everything, with sockets that send any packet: of
  /// what it marks nothing is on the wire, but what goes to that name. Its own side sees to that: the host allows everything here.
  func testNoPacketGoesRound() {
    for way in Self.captures {
      let outcome = inEnclave(
        way, "[egress]\ndefault = \"deny\"\nallow = [\"ok.test:8080\", \"ok.test:443\"]\nsni = \"check\"",
        "python3 \(RawWorld.directory)/attack.py 10.8.0 fd08", watched: true)
      XCTAssertEqual(outcome.status, 0, outcome.errors)
      XCTAssertEqual(
        outcome.output, "tried enough: True\nallowed: HTTP/1.1 404\nheard: 0\nmarks: 0\nallowed: 1\n",
        "\(way): \(outcome.errors)")
    }
  }
}
