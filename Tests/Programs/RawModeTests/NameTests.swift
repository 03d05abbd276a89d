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
      cp \(#filePath.components(separatedBy: "/Programs/")[0])/clients/hello.py .
      """, timeout: 60)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() { RawWorld.tearDown() }

  private func inEnclave(
    _ way: (capture: String, firewall: String), _ configuration: String, _ script: String, options: String = ""
  ) -> Outcome {
    RawWorld.bash(
      """
      cat > $D/policy.toml <<'X'
      [network]
      firewall = "\(way.firewall)"
      \(configuration)
      X
      cat > $D/script.sh <<'X'
      fetch() { curl -sS --noproxy '*' --max-time 10 "$@" 2>/dev/null || { [ $? = 6 ] && echo unknown || echo refused; }; }
      quick() { local start=$(date +%s%N); "$@" >/dev/null 2>&1; local status=$?; [ $(( $(date +%s%N) - start )) -lt 3000000000 ] || echo slow: "$@"; echo $1 $status; }
      \(script)
      X
      $H $T run --mode raw --capture \(way.capture) --dns 10.8.0.3 --config $D/policy.toml \(options) -- bash $D/script.sh
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
}
