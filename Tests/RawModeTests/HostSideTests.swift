import Foundation
import XCTest

/// `tombolo host --raw` on its own: what it makes in the host's network, and that a stop in order takes all of it away.
final class HostSideTests: XCTestCase {
  override class func setUp() { RawWorld.setUp(bigFile: false) }
  override class func tearDown() { RawWorld.tearDown() }

  /// A host side and an enclave with nginx, joined by a directory of sockets.
  static let prelude = """
    cat > $D/inside.conf <<X
    daemon off; pid /tmp/nginx-\(RawWorld.id).pid; error_log stderr; events {}
    http { access_log off; server { listen 80; listen [::]:80; location / { return 200 "\\$remote_addr\\n"; } } }
    X
    mkdir -p $D/transport
    printf '[network]\\nmode = "raw"\\ntransport = "unix:%s"\\n[ingress]\\nports = [80]\\n' $D/transport > $D/child.toml
    host() {
      $H $T host --transport unix:$D/transport --raw -p 8084:80 -p [::]:8084:80 "$@" > $D/host.log 2>&1 & h=$!
      for i in $(seq 50); do [ -S $D/transport/host_7766 ] && break; sleep 0.1; done
    }
    enclave() {
      unshare -n $I --config $D/child.toml -- "$@" > $D/enclave.log 2>&1 & e=$!
      for i in $(seq 50); do $S curl -s -o /dev/null --max-time 1 http://10.8.0.1:8084/ && break; sleep 0.1; done
    }
    rules() { for p in iptables ip6tables; do $H $p-legacy-save | sed '/^#/d; s/ *\\[[0-9]*:[0-9]*\\]//'; done; }

    """

  private func check(
    _ script: String, _ expected: String, timeout: TimeInterval = 60, file: StaticString = #filePath, line: UInt = #line
  ) {
    let outcome = RawWorld.bash(Self.prelude + script, timeout: timeout, file: file, line: line)
    XCTAssertEqual(
      outcome.output, expected, outcome.errors + RawWorld.bash("cat $D/host.log").output, file: file, line: line)
  }

  /// An operator who stops the service has the machine as it was, byte for byte.
  func testSIGTERMTakesAwayRulesLinkAndSettings() {
    check(
      """
      snapshot > $D/before
      host; enclave nginx -c $D/inside.conf
      $S curl -sS http://10.8.0.1:8084/; $S curl -gsS http://[fd08::1]:8084/
      $H nft list tables; $H ip -br link show tombolo0 | cut -d' ' -f1; $H sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding
      ls /run/tombolo | grep -c "$($H stat -Lc %i /proc/self/ns/net)"
      kill -TERM $h; wait $h; echo "status $?"
      snapshot > $D/after; diff $D/before $D/after && echo same; ls /run/tombolo | grep -c "$($H stat -Lc %i /proc/self/ns/net)"
      ls $D/transport; kill $e; wait $e
      """,
      """
      10.8.0.2
      fd08::2
      table ip tombolo0
      table ip6 tombolo0
      tombolo0
      1
      1
      1
      status 0
      same
      0

      """)
  }

  /// On hosts whose operator keeps to iptables, and on those without nf_tables: the same rules, read back by iptables
  /// itself, and the same behaviour. A published port is the host's own, on whatever address it has; the port of that
  /// number on another machine is not taken over.
  func testLegacyXTables() {
    check(
      """
      for p in iptables ip6tables; do for t in filter nat; do $H $p-legacy -t $t -A INPUT -s 192.0.2.9 2>/dev/null || $H $p-legacy -t $t -A INPUT -s 2001:db8::9; done; done
      rules > $D/rules.before; snapshot > $D/before
      host --raw-firewall xtables; enclave nginx -c $D/inside.conf
      grep -o 'rules in .*' $D/host.log; $H nft list tables
      rules | grep '^-A tombolo0'
      $S curl -sS http://10.8.0.1:8084/; $S curl -gsS http://[fd08::1]:8084/; $H curl -sS http://127.0.0.1:8084/; $H curl -sS http://10.8.0.1:8084/
      $H curl -s --max-time 5 http://10.8.0.2:8084/; echo "another machine's: $?"
      kill -TERM $h; wait $h; echo "status $?"
      rules | diff $D/rules.before - && echo same rules; snapshot > $D/after; diff $D/before $D/after && echo same
      kill $e; wait $e
      for p in iptables ip6tables; do for t in filter nat; do $H $p-legacy -t $t -F INPUT; done; done
      """,
      """
      rules in legacy xtables
      -A tombolo0_output -p tcp -m tcp --dport 8084 -m addrtype --dst-type LOCAL -j DNAT [unsupported revision]
      -A tombolo0_postrouting -s 10.118.0.2/32 ! -o tombolo0 -j MASQUERADE
      -A tombolo0_postrouting -s 127.0.0.0/8 -o tombolo0 -j MASQUERADE
      -A tombolo0_prerouting ! -i tombolo0 -p tcp -m tcp --dport 8084 -m addrtype --dst-type LOCAL -j DNAT [unsupported revision]
      -A tombolo0_forward -o tombolo0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
      -A tombolo0_forward -d 10.118.0.2/32 -o tombolo0 -p tcp -m tcp --dport 80 -j ACCEPT
      -A tombolo0_forward -o tombolo0 -p tcp -j REJECT --reject-with tcp-reset
      -A tombolo0_forward -o tombolo0 -j REJECT --reject-with icmp-admin-prohibited
      -A tombolo0_output -d ::1/128 -j ACCEPT
      -A tombolo0_output -p tcp -m tcp --dport 8084 -m addrtype --dst-type LOCAL -j DNAT [unsupported revision]
      -A tombolo0_postrouting -s fd74:6f6d:626f::2/128 ! -o tombolo0 -j MASQUERADE
      -A tombolo0_prerouting ! -i tombolo0 -p tcp -m tcp --dport 8084 -m addrtype --dst-type LOCAL -j DNAT [unsupported revision]
      -A tombolo0_forward -o tombolo0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
      -A tombolo0_forward -d fd74:6f6d:626f::2/128 -o tombolo0 -p tcp -m tcp --dport 80 -j ACCEPT
      -A tombolo0_forward -o tombolo0 -p tcp -j REJECT --reject-with tcp-reset
      -A tombolo0_forward -o tombolo0 -j REJECT --reject-with icmp6-adm-prohibited
      10.8.0.2
      fd08::2
      10.118.0.1
      10.8.0.1
      another machine's: 7
      status 0
      same rules
      same

      """)
  }

  /// The numbers of `tombolo status`, frame for frame: an operator finds out by them what an enclave does.
  func testStatusCountsEveryFrame() {
    check(
      """
      host
      cat > $D/frames.py <<'X'
      import json, socket, struct, subprocess, sys
      tombolo, directory, pid = sys.argv[1:]
      def connect():
          s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(directory + "/host_7766")
          s.sendall(b"TMBL\\x01\\x03" + struct.pack(">HBBHI", 15, 0, 1, 1500, 0) + bytes([4, 10, 118, 0, 2, 30, 0]))
          assert s.recv(12)[:6] == b"TMBL\\x01\\x00"; return s
      def frame(source, data, cut=0):
          packet = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 0, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton("10.8.0.2")) + data
          bytes = b"\\0" * 10 + packet; bytes = bytes[:len(bytes) - cut]; return struct.pack(">I", len(bytes)) + bytes
      def show():
          [s] = json.loads(subprocess.run([tombolo, "status", "--json", pid], check=True, stdout=subprocess.PIPE).stdout)
          [q] = s["raw"]["queues"]; print(q["connected"], q["from_enclave"], q["dropped"], q["reconnects"], flush=True)
      s = connect()
      s.sendall(3 * frame("10.118.0.2", b"x" * 80) + 5 * frame("10.118.0.3", b"x" * 80) + 2 * frame("10.118.0.2", b"x" * 80, 95))
      # Read after the frames, hence behind them in the counters as well.
      s.sendall(frame("10.118.0.2", struct.pack(">HHHH", 9, 9, 8, 0)))
      while json.loads(subprocess.run([tombolo, "status", "--json", pid], stdout=subprocess.PIPE).stdout)[0]["raw"]["queues"][0]["from_enclave"]["packets"] < 4: pass
      show()
      s.sendall(b"\\0\\0\\0\\0"); print(s.recv(1) == b""); show()
      t = connect(); show()
      X
      python3 $D/frames.py $T $D/transport $h
      $T status $h | sed '1s/.* raw/raw/; 1s/, up.*//'; kill $h; wait $h; $T status $h; echo "status $?"
      """,
      """
      True {'bytes': 328, 'mean_size': 82, 'packets': 4} {'bad source': 5, 'truncated': 2} 0
      True
      False {'bytes': 328, 'mean_size': 82, 'packets': 4} {'bad source': 5, 'truncated': 2} 0
      True {'bytes': 328, 'mean_size': 82, 'packets': 4} {'bad source': 5, 'truncated': 2} 1
      raw mode
        transport  unix:\(RawWorld.directory)/transport, no enclave
        published  0.0.0.0:8084 → 80
        published  [::]:8084 → 80
        link       tombolo0: 10.118.0.2/30, MTU 1500, rules in nf_tables
        queue 0    from the enclave 4 packets 328 bytes (mean 82), to it 0 packets 0 bytes (mean 0), dropped 7 (bad source 5, truncated 2), unsent 0, reconnects 1, no stream
        DNS        0 queries, 0 failed, 0 under way
      status 1

      """)
  }

  func testMistakesAreSaid() {
    for (arguments, sentence) in [
      ("--cid any --raw", "--raw: with --cid any several enclaves would share one link"),
      ("--cid 16 --raw-range 10.0.0.0/8", "--raw-range: expected --raw with it"),
      ("--cid 16 --raw --raw-range ten", "--raw-range: found \"ten\", expected a prefix such as 10.0.0.0/8"),
      ("--cid 16 --raw-firewall xtables", "--raw-firewall: expected --raw with it"),
    ] {
      let outcome = RawWorld.bash("$H $T host \(arguments); echo $?")
      XCTAssertEqual(outcome.output, "125\n", outcome.errors)
      XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors)
    }
  }
}
