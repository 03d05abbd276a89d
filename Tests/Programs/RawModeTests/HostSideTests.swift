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
      rules | grep '^-A tombolo0' | sort -s -k 2,2 | sed 's/dport [0-9]\\{5\\}/dport NNNNN/'
      $S curl -sS http://10.8.0.1:8084/; $S curl -gsS http://[fd08::1]:8084/; $H curl -sS http://127.0.0.1:8084/; $H curl -sS http://10.8.0.1:8084/
      $H curl -s --max-time 5 http://10.8.0.2:8084/; echo "another machine's: $?"
      kill -TERM $h; wait $h; echo "status $?"
      rules | diff $D/rules.before - && echo same rules; snapshot > $D/after; diff $D/before $D/after && echo same
      kill $e; wait $e
      for p in iptables ip6tables; do for t in filter nat; do $H $p-legacy -t $t -F INPUT; done; done
      """,
      """
      rules in legacy xtables
      -A tombolo0_forward -o tombolo0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
      -A tombolo0_forward -d 10.118.0.2/32 -o tombolo0 -p tcp -m tcp --dport 80 -j ACCEPT
      -A tombolo0_forward -o tombolo0 -p tcp -j REJECT --reject-with tcp-reset
      -A tombolo0_forward -o tombolo0 -j REJECT --reject-with icmp-admin-prohibited
      -A tombolo0_forward ! -i tombolo+ ! -o tombolo+ -j DROP
      -A tombolo0_forward -o tombolo0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
      -A tombolo0_forward -d fd74:6f6d:626f::2/128 -o tombolo0 -p tcp -m tcp --dport 80 -j ACCEPT
      -A tombolo0_forward -o tombolo0 -p tcp -j REJECT --reject-with tcp-reset
      -A tombolo0_forward -o tombolo0 -j REJECT --reject-with icmp6-adm-prohibited
      -A tombolo0_forward ! -i tombolo+ ! -o tombolo+ -j DROP
      -A tombolo0_input -i tombolo0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
      -A tombolo0_input -d 169.254.53.53/32 -i tombolo0 -p udp -m udp --dport NNNNN -j ACCEPT
      -A tombolo0_input -d 169.254.53.53/32 -i tombolo0 -p tcp -m tcp --dport NNNNN -j ACCEPT
      -A tombolo0_input -i tombolo0 -p tcp -j REJECT --reject-with tcp-reset
      -A tombolo0_input -i tombolo0 -j REJECT --reject-with icmp-admin-prohibited
      -A tombolo0_input -i tombolo0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
      -A tombolo0_input -i tombolo0 -p tcp -j REJECT --reject-with tcp-reset
      -A tombolo0_input -i tombolo0 -j REJECT --reject-with icmp6-adm-prohibited
      -A tombolo0_output -p tcp -m tcp --dport 8084 -m addrtype --dst-type LOCAL -j DNAT [unsupported revision]
      -A tombolo0_output -d ::1/128 -j ACCEPT
      -A tombolo0_output -p tcp -m tcp --dport 8084 -m addrtype --dst-type LOCAL -j DNAT [unsupported revision]
      -A tombolo0_postrouting -s 10.118.0.2/32 -j MASQUERADE
      -A tombolo0_postrouting -s 127.0.0.0/8 -o tombolo0 -j MASQUERADE
      -A tombolo0_postrouting -s fd74:6f6d:626f::2/128 -j MASQUERADE
      -A tombolo0_prerouting -d 169.254.53.53/32 -i tombolo0 -p udp -m udp --dport 53 -j DNAT [unsupported revision]
      -A tombolo0_prerouting -d 169.254.53.53/32 -i tombolo0 -p tcp -m tcp --dport 53 -j DNAT [unsupported revision]
      -A tombolo0_prerouting -p tcp -m tcp --dport 8084 -m addrtype --dst-type LOCAL -j DNAT [unsupported revision]
      -A tombolo0_prerouting -p tcp -m tcp --dport 8084 -m addrtype --dst-type LOCAL -j DNAT [unsupported revision]
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

  /// An enclave's side in Python, as docs/protocol.md has it: a boot's session, and hellos with its tokens.
  private static let enclave = """
    cat > $D/enclave.py <<'X'
    import os, socket, time
    token = [os.urandom(32) for _ in range(3)]
    def hello(channel, parameters=b"", proof=None): return b"TMBL\\x02" + bytes([channel]) + len(parameters).to_bytes(2, "big") + (token[0 if channel in (4, 5, 6) else 1] if proof is None else proof) + parameters
    def connected(path):
        s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(path); return s
    def session(path, boot=os.urandom(16)):
        # The enclave of the test before this one may still be known: "later" is 7.
        for _ in range(100):
            s = connected(path); s.sendall(hello(6, boot + token[1] + token[2] + bytes(48) + b"test")); answer = s.recv(8)
            if answer == b"TMBL\\x02\\0\\0\\0": return s
            assert answer == b"TMBL\\x02\\7\\0\\0", answer; time.sleep(0.1)
        s = connected(path); s.sendall(hello(6, boot + token[1] + token[2] + bytes(48) + b"test")); answer = s.recv(8); assert answer == b"TMBL\\x02\\0\\0\\0", answer; return s
    X

    """

  /// The numbers of `tombolo status`, frame for frame: an operator finds out by them what an enclave does.
  func testStatusCountsEveryFrame() {
    check(
      Self.enclave + """
        host
        cat > $D/frames.py <<'X'
        import json, socket, struct, subprocess, sys
        from enclave import *
        tombolo, directory, pid = sys.argv[1:]
        def connect():
            s = connected(directory + "/host_7766")
            s.sendall(hello(3, struct.pack(">BBHI", 0, 1, 1500, 0) + bytes([4, 10, 118, 0, 2, 30, 0])))
            assert s.recv(12)[:6] == b"TMBL\\x02\\x00"; return s
        def frame(source, data, cut=0):
            packet = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 0, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton("10.8.0.2")) + data
            bytes = b"\\0" * 10 + packet; bytes = bytes[:len(bytes) - cut]; return struct.pack(">I", len(bytes)) + bytes
        def show():
            [s] = json.loads(subprocess.run([tombolo, "status", "--json", pid], check=True, stdout=subprocess.PIPE).stdout)
            [q] = s["raw"]["queues"]; print(q["connected"], q["from_enclave"], q["dropped"], q["reconnects"], flush=True)
        mine = session(directory + "/host_7766"); s = connect()
        s.sendall(3 * frame("10.118.0.2", b"x" * 80) + 5 * frame("10.118.0.3", b"x" * 80) + 2 * frame("10.118.0.2", b"x" * 80, 95))
        # Read after the frames, hence behind them in the counters as well.
        s.sendall(frame("10.118.0.2", struct.pack(">HHHH", 9, 9, 8, 0)))
        while json.loads(subprocess.run([tombolo, "status", "--json", pid], stdout=subprocess.PIPE).stdout)[0]["raw"]["queues"][0]["from_enclave"]["packets"] < 4: pass
        show()
        s.sendall(b"\\0\\0\\0\\0"); print(s.recv(1) == b""); show()
        t = connect(); show()
        X
        python3 $D/frames.py $T $D/transport $h
        $T status $h | sed '1s/.* raw/raw/; 1s/, up.*//; s/boot  *[0-9a-f]*,/boot B,/'; kill $h; wait $h; $T status $h; echo "status $?"
        """,
      """
      True {'bytes': 328, 'mean_size': 82, 'packets': 4} {'bad source': 5, 'truncated': 2} 0
      True
      False {'bytes': 328, 'mean_size': 82, 'packets': 4} {'bad source': 5, 'truncated': 2} 0
      True {'bytes': 328, 'mean_size': 82, 'packets': 4} {'bad source': 5, 'truncated': 2} 1
      raw mode
        transport  unix:\(RawWorld.directory)/transport, no enclave
        boot B, tombolo-init test, no session
        published  0.0.0.0:8084 → 80
        published  [::]:8084 → 80
        link       tombolo0: 10.118.0.2/30, MTU 1500, rules in nf_tables
        queue 0    from the enclave 4 packets 328 bytes (mean 82), to it 0 packets 0 bytes (mean 0), dropped 7 (bad source 5, truncated 2), unsent 0, reconnects 1, no stream
        DNS        0 queries, 0 failed, 0 under way
      status 1

      """)
  }

  // MARK: addresses from the host

  private static let asking = """
    asking() { # name, options of the host side: a host side and the configuration of an enclave that asks it
      mkdir -p $D/$1; printf '[network]\\nmode = "raw"\\naddress = "host"\\naddress6 = "host"\\nqueues = 1\\ntransport = "unix:%s"\\n' $D/$1 > $D/$1.toml
      $H $T host --transport unix:$D/$1 --log-format raw "${@:2}" > $D/$1.out 2> $D/$1.log & h="$h $!"
      for i in $(seq 50); do [ -S $D/$1/host_7766 ] && break; sleep 0.1; done
    }
    child() { unshare -n $I --config $D/$1.toml -- sh -c 'hostname -I | xargs -n1; ip link show tun0 | grep -o "mtu [0-9]*"; curl -sS http://10.8.0.2:8080/file' 2>&1; echo "status $?"; }

    """

  /// Several enclaves of one image side by side: the host's operator need not build an image for each.
  func testEachEnclaveIsGivenAnAddressOfItsOwn() {
    check(
      Self.asking + """
        asking one --raw; asking two --raw --raw-mtu 1400
        child one; child two; child one
        cat $D/one.out; echo; cat $D/two.out; grep -h 'is given' $D/one.log $D/two.log
        kill $h; wait $h
        printf '[network]\\naddress = "host"\\nallowed = ["10.118.0.0/24"]\\n' > $D/local.toml
        run --config $D/local.toml -- sh -c 'hostname -I | xargs -n1; curl -sS http://10.8.0.2:8080/file'
        """,
      """
      status 0
      status 0
      status 0
      10.118.0.2
      fd74:6f6d:626f::2
      mtu 1500
      content-of-file
      10.118.0.2
      fd74:6f6d:626f::2
      mtu 1500
      content-of-file

      10.118.0.6
      fd74:6f6d:626f:1::2
      mtu 1400
      content-of-file
      tombolo: the enclave is given 10.118.0.2/30, fd74:6f6d:626f::2/64
      tombolo: the enclave is given 10.118.0.2/30, fd74:6f6d:626f::2/64
      tombolo: the enclave is given 10.118.0.6/30, fd74:6f6d:626f:1::2/64
      10.118.0.2
      fd74:6f6d:626f::2
      content-of-file

      """)
  }

  /// An image decides where its enclave may be. A host that wants something else, or nothing, gets no enclave, and whoever
  /// looks for the reason reads it.
  func testAddressesThatCannotBe() {
    check(
      Self.asking + """
        asking outside --raw; echo 'allowed = ["192.168.0.0/16", "fd74:6f6d:626f::/48"]' >> $D/outside.toml; child outside
        asking tcp; child tcp
        mkdir -p $D/silent; sed "s#$D/tcp#$D/silent#" $D/tcp.toml > $D/silent.toml; printf '[boot]\\nhost_timeout = "1s"\\n' >> $D/silent.toml
        child silent | sed "s#$D##"
        python3 -c 'import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(30)' $D/silent/host_7766 & p=$!
        for i in $(seq 50); do [ -S $D/silent/host_7766 ] && break; sleep 0.1; done
        child silent; kill $p; rm $D/silent/host_7766
        # The loopback's address, an answer that is too short, and one that is none.
        cat > $D/liar.py <<'X'
        import socket, sys
        s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
        ok = b"TMBL\\x02\\0\\0"; held = []
        for answer in [ok + b"\\x18\\0\\0\\x7f\\0\\0\\2\\x08" + bytes(17), ok + b"\\x05" + bytes(5)] + 100 * [b"HTTP/1.1 200 OK"]:
            while True:
                c, _ = s.accept(); asked = c.recv(1000); held.append(c)
                if len(asked) == 44: break
                # The session is taken, and whatever else comes is not answered.
                if asked[5:6] == b"\\6": c.sendall(ok + b"\\0")
            c.sendall(answer); held.append(c)
        X
        timeout 20 python3 $D/liar.py $D/silent/host_7766 & p=$!
        for i in $(seq 50); do [ -S $D/silent/host_7766 ] && break; sleep 0.1; done
        child silent; child silent; child silent | sed "s#$D##"; kill $p $h; wait $p $h
        """,
      """
      tombolo-init: the host gave the address 10.118.0.2/30, which is outside what the image allows (network.allowed): 192.168.0.0/16, fd74:6f6d:626f::/48
      status 125
      tombolo-init: the host gives no addresses (network.address = "host"): it was not started for raw mode (--raw)
      status 125
      tombolo-init: no session with the host within 1.0 seconds (boot.host_timeout): connect /silent/host_7766: No such file or directory (ENOENT)
      status 125
      tombolo-init: no session with the host within 1.0 seconds (boot.host_timeout): it does not answer
      status 125
      tombolo-init: the host gave the address 127.0.0.2/8, which no machine can have as its own
      status 125
      tombolo-init: asked for an address, the host answered with something else: message ends too early
      status 125
      tombolo-init: the host gave no address within 1.0 seconds (network.address = "host", boot.host_timeout): /silent/host_7766: found the magic 48 54 54 50, expected 54 4d 42 4c (TMBL)
      status 125

      """)
  }

  /// An enclave that was given one address must not come with its neighbour's.
  func testAnEnclaveKeepsToTheAddressItWasGiven() {
    check(
      Self.enclave + """
        host
        cat > $D/neighbour.py <<'X'
        import struct, sys
        from enclave import *
        path = sys.argv[1] + "/host_7766"; mine = session(path)
        def ask(channel, parameters):
            s = connected(path); s.sendall(hello(channel, parameters)); return s.recv(100)[5:]
        print(ask(5, bytes([1, 1]) + struct.pack(">H", 1500)).hex())
        for last in [6, 2]: print(ask(3, struct.pack(">BBHI", 0, 1, 1500, 0) + bytes([4, 10, 118, 0, last, 30, 0]))[0])
        print(ask(5, bytes([3])).hex(), ask(5, bytes([1, 0, 5, 220])).hex())
        X
        python3 $D/neighbour.py $D/transport; grep -o 'was given.*' $D/host.log; kill $h; wait $h
        """,
      """
      00001800000a7600021e0000000000000000000000000000000000
      5
      0
      090000 080000
      was given the address 10.118.0.2/30 and has come with 10.118.0.6/30

      """)
  }

  func testMistakesAreSaid() {
    for (arguments, sentence) in [
      ("--cid any --raw", "--raw: with --cid any several enclaves would share one link"),
      ("--cid 16 --raw-range 10.0.0.0/8", "--raw-range: expected --raw with it"),
      ("--cid 16 --raw --raw-range ten", "--raw-range: found \"ten\", expected a prefix such as 10.0.0.0/8"),
      ("--cid 16 --raw-mtu 1400", "--raw-mtu: expected --raw with it"),
      ("--cid 16 --raw --raw-mtu 100", "--raw-mtu: found 100, expected 1280 to 65535"),
      ("--cid 16 --raw-firewall xtables", "--raw-firewall: expected --raw with it"),
    ] {
      let outcome = RawWorld.bash("$H $T host \(arguments); echo $?")
      XCTAssertEqual(outcome.output, "125\n", outcome.errors)
      XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors)
    }
  }
}
