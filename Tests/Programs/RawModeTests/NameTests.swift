import Foundation
import XCTest

/// Rules by name for packets, with real servers of names and of TLS: what a rule names works, and no packet goes anywhere else.
final class NameTests: XCTestCase {
  /// Each way of capture, with each kind of rules. Where a kernel has no nft_queue, as here, "auto" is xtables.
  private static let ways = [("tun", "nftables"), ("tun", "xtables"), ("nfqueue", "auto"), ("nfqueue", "xtables")]
  private static let captures = [("tun", "nftables"), ("nfqueue", "auto")]

  override class func setUp() {
    RawWorld.setUp(bigFile: false)
    let made = RawWorld.bash(
      """
      set -e; cd $D
      for a in 10.8.0.3/24 10.8.0.4/24; do ip -n \(RawWorld.server) addr add $a dev v1; done
      long=$(printf 'x%.0s' $(seq 250))
      $S dnsmasq --no-resolv --no-hosts --listen-address=10.8.0.3 --bind-interfaces --local-ttl=1 \
        --host-record=ok.test,10.8.0.2,fd08::2 --host-record=other.test,10.8.0.2 --host-record=six.test,fd08::2 \
        --host-record=target.foreign,10.8.0.2 --cname=www.alias.test,target.foreign --txt-record=big.test,$long,$long,$long,$long,$long,$long \
        --host-record=rebind.test,10.8.0.2 --host-record=rebind.test,169.254.169.254 --host-record=time.test,10.8.0.4 \
        --pid-file=$D/names.pid --user=root
      openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=ok.test \
        -addext subjectAltName=DNS:ok.test,DNS:other.test 2>/dev/null
      chmod a+r key.pem cert.pem
      for place in 10.8.0.2:443 10.8.0.2:8443 '[fd08::2]:443'; do
        $S openssl s_server -accept $place -cert cert.pem -key key.pem -www -quiet >/dev/null 2>&1 & echo $! > tls-$!.pid
      done
      # A server that speaks first, one that answers datagrams, and one that says what it has got.
      cat > talk.py <<'X'
      import selectors, socket
      sockets = selectors.DefaultSelector()
      def add(s, what): sockets.register(s, selectors.EVENT_READ, what)
      s = socket.create_server(("10.8.0.2", 2525)); add(s, "first")
      for address in ("10.8.0.4", "10.8.0.2"):
          s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((address, 123)); add(s, "echo")
      while True:
          for key, _ in sockets.select():
              if key.data == "first":
                  c, _ = key.fileobj.accept(); c.sendall(b"220 ready\\r\\n"); c.close()
              else:
                  data, peer = key.fileobj.recvfrom(2000); key.fileobj.sendto(data, peer)
      X
      $S python3 talk.py & echo $! > talk.pid
      for i in $(seq 50); do $H curl -sk -o /dev/null --noproxy '*' https://10.8.0.2/ && break; sleep 0.1; done
      cp \(#filePath.components(separatedBy: "/Programs/")[0])/clients/{hello.py,fetch.sh} .
      """, timeout: 60)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() { RawWorld.tearDown() }

  private func inEnclave(
    _ way: (capture: String, firewall: String), _ configuration: String, _ script: String, wire: Bool = false
  ) -> Outcome {
    RawWorld.bash(
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
      run() { $H $T run --mode raw --capture \(way.capture) --dns 10.8.0.3 --config $D/policy.toml -- bash $D/script.sh; }
      \(wire ? "" : "run; exit $?")
      rm -f $D/wire.pcap; $S tcpdump -i v1 -U -s 0 -w $D/wire.pcap >/dev/null 2> $D/tcpdump.err & capture=$!
      for i in $(seq 100); do grep -qs 'listening on' $D/tcpdump.err && break; sleep 0.1; done
      run
      $H curl -sS --noproxy '*' -o /dev/null http://10.8.0.2:8080/LAST
      for i in $(seq 50); do grep -aqs LAST $D/wire.pcap && break; sleep 0.1; done
      kill $capture
      echo "marks: $(grep -ac EXFILTRATED $D/wire.pcap)"; echo "allowed: $(grep -ac 'GET /ALLOWED' $D/wire.pcap)"
      """)
  }

  private static let names = """
    [egress]
    default = "deny"
    allow = ["ok.test:8080", "*.alias.test", "six.test:8080", "rebind.test", "big.test", "udp://time.test:123"]
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
  func testNamesAreAllowedAndRefused() {
    for way in Self.ways {
      let outcome = inEnclave(
        way, Self.names,
        """
        fetch http://10.8.0.2:8080/file
        fetch http://ok.test:8080/file
        fetch http://10.8.0.2:8080/file
        fetch http://OK.Test.:8080/file
        fetch http://ok.test:8081/file
        fetch http://www.alias.test:8080/file
        fetch -6 http://six.test:8080/file
        fetch http://rebind.test:8080/file
        fetch http://other.test:8080/file
        dig +short @8.8.8.8 ok.test; dig +short +tcp @2606:4700::1111 ok.test
        dig @8.8.8.8 other.test | grep -o 'status: [A-Z]*'; dig +tcp @1.1.1.1 target.foreign | grep -o 'status: [A-Z]*'
        dig +short rebind.test
        dig +short big.test TXT | wc -c
        quick getent hosts other.test
        python3 -c 'import urllib.request as u; print(u.urlopen("http://ok.test:8080/file").read().decode(), end="")'
        quick python3 -c 'import urllib.request as u; u.urlopen("http://other.test:8080/file")'
        node -e 'fetch("http://ok.test:8080/file").then(r => r.text()).then(t => process.stdout.write(t))'
        quick curl -s --noproxy '*' http://10.8.0.4:8080/file
        dig +short time.test
        \(Self.send)
        """)
      XCTAssertEqual(
        outcome.output,
        """
        refused
        content-of-file
        content-of-file
        content-of-file
        refused
        content-of-file
        content-of-file
        content-of-file
        unknown
        10.8.0.2
        10.8.0.2
        status: REFUSED
        status: REFUSED
        10.8.0.2
        1518
        getent 2
        content-of-file
        python3 1
        content-of-file
        curl 7
        10.8.0.4
        hello
        EHOSTUNREACH

        """, "\(way): \(outcome.errors)")
      for sentence in [
        "dns: other.test A denied: no rule of egress.allow names it",
        "packets to 10.8.0.2:8080 (TCP) denied: no rule of egress.allow names it",
        "packets to 10.8.0.2:8081 (TCP, ok.test) denied: no rule of egress.allow names it",
        "packets to 10.8.0.2:123 (UDP", "dns: rebind.test A: taken out of the answer:",
      ] { XCTAssertTrue(outcome.errors.contains(sentence), "\(way): \(sentence): \(outcome.errors)") }
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
    let send = """
      python3 -c '
      import errno, socket
      for address, port in (("10.8.0.4", 123), ("10.8.0.2", 123)):
          s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
          try: s.connect((address, port)); s.send(b"hello"); print(s.recv(9).decode(), flush=True)
          except OSError as e: print(errno.errorcode.get(e.errno, "nothing"), flush=True)'
      """
    let script = """
      fetch http://10.8.0.2:8080/file; fetch 'http://[fd08::2]:8080/file'; quick curl -s --noproxy '*' http://10.8.0.2:2525; quick curl -s --noproxy '*' http://10.8.0.4:8080
      \(send)
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
    let script = """
      dig ok.test >/dev/null
      tls() { curl -sSk --noproxy '*' --max-time 10 -o /dev/null "$@" 2>/dev/null && echo served || echo refused; }
      tls https://ok.test/
      tls -6 https://ok.test/
      tls https://ok.test:8443/
      tls --resolve other.test:443:10.8.0.2 https://other.test/
      tls https://10.8.0.2/
      say() { if "$@" </dev/null 2>/dev/null | grep -q 'BEGIN CERT'; then echo certificate; else echo nothing; fi; }
      say openssl s_client -connect ok.test:443 -servername ok.test
      say openssl s_client -connect ok.test:443 -servername other.test
      say openssl s_client -connect ok.test:443 -noservername
      for way in whole bytes records pq; do python3 \(RawWorld.directory)/hello.py $way ok.test 443; python3 \(RawWorld.directory)/hello.py $way other.test 443; done
      python3 \(RawWorld.directory)/hello.py whole - 8443
      curl -sS --noproxy '*' http://ok.test:8080/file 2>/dev/null || echo refused
      python3 -c 'import socket; print(socket.create_connection(("ok.test", 2525), 5).recv(99).decode().strip())'
      """
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

  /// One allowed name, and somebody inside, root, with sockets that send any packet: of what it marks nothing is on the wire, but
  /// what goes to that name. Its own side sees to that: the host allows everything here.
  func testNoPacketGoesRound() {
    for way in Self.captures {
      let outcome = inEnclave(
        way, "[egress]\ndefault = \"deny\"\nallow = [\"ok.test:8080\", \"ok.test:443\"]\nsni = \"check\"",
        """
        cat > /tmp/attack.py <<'Y'
        import socket, struct
        MARK = b"EXFILTRATED"; tried = 0
        def total(data):
            if len(data) % 2: data += b"\\0"
            s = sum(struct.unpack("!%dH" % (len(data) // 2), data))
            while s >> 16: s = (s & 0xffff) + (s >> 16)
            return ~s & 0xffff
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); own.connect(("10.8.0.2", 9)); own = socket.inet_aton(own.getsockname()[0])
        def ip(address, number, payload, fragment=0):
            to = socket.inet_aton(address)
            if number in (6, 17):
                at = 16 if number == 6 else 6
                sum_ = total(own + to + struct.pack("!HH", number, len(payload)) + payload)
                payload = payload[:at] + struct.pack("!H", sum_) + payload[at + 2:]
            if number == 1: payload = payload[:2] + struct.pack("!H", total(payload)) + payload[4:]
            header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, fragment, 64, number, 0, own, to)
            return header[:10] + struct.pack("!H", total(header)) + header[12:] + payload
        def tcp(port, flags, data=MARK, source=3333): return struct.pack("!HHIIBBHHH", source, port, 1, 1, 0x50, flags, 999, 0, 0) + data
        def udp(port, data=MARK): return struct.pack("!HHHH", 3333, port, 8 + len(data), 0) + data
        def icmp(kind, data=MARK): return struct.pack("!BBHHH", kind, 0, 0, 3, 1) + data
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        try: link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        except OSError: link = None
        def send(packet):
            global tried
            try: raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0)); tried += 1
            except OSError: pass
            if link:
                try: link.sendto(packet, ("tun0", 0x0800)); tried += 1
                except OSError: pass
        socket.getaddrinfo("ok.test", 8080)
        for address in ("10.8.0.2", "10.8.0.4", "10.8.0.3"):
            for port in (22, 53, 80, 8081, 9999):
                for flags in (2, 16, 24, 17, 18, 4, 20, 0, 41, 63): send(ip(address, 6, tcp(port, flags)))
                send(ip(address, 17, udp(port)))
            for kind in (0, 3, 4, 5, 8, 11, 12, 13, 14, 15): send(ip(address, 1, icmp(kind, bytes(28) + MARK)))
            for number in (2, 41, 47, 50, 132, 255): send(ip(address, number, MARK * 3))
            send(ip(address, 6, tcp(8081, 2, b"", 4444)[:16], 0x2000)); send(ip(address, 6, MARK * 2, 2)); send(ip(address, 17, MARK * 2, 3))
        for address in ("10.8.0.3", "10.8.0.4"):
            for port in (443, 8080): send(ip(address, 6, tcp(port, 24)))
        # To the allowed name: no hello of another, no segment without a beginning.
        for flags in (16, 24, 17, 2, 4): send(ip("10.8.0.2", 6, tcp(443, flags)))
        print("tried", tried > 150, flush=True)
        s = socket.create_connection(("ok.test", 8080), 5); s.sendall(b"GET /ALLOWED HTTP/1.0\\r\\n\\r\\n"); print("allowed", s.recv(12).decode(), flush=True)
        Y
        python3 /tmp/attack.py
        """, wire: true)
      XCTAssertEqual(
        outcome.output, "tried True\nallowed HTTP/1.1 404\nmarks: 0\nallowed: 1\n", "\(way): \(outcome.errors)")
    }
  }
}
