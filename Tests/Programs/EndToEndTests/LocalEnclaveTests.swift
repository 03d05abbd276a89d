import Foundation
import XCTest

/// Whole enclaves with real, unmodified programs, as a user starts them.
final class LocalEnclaveTests: XCTestCase {
  let run = World.run
  let directory = World.directory

  override class func setUp() { World.setUp() }
  override class func tearDown() { World.tearDown() }

  // MARK: egress

  func testCurlFetchesOverIPv4AndIPv6() {
    for url in ["http://10.9.0.2:8080/file", "http://[fd09::2]:8080/file"] {
      let outcome = bash("\(run) -- curl -gsS '\(url)'")
      XCTAssertEqual(outcome.output, "content-of-file\n", outcome.errors)
      XCTAssertEqual(outcome.status, 0)
    }
  }

  func testOneGibibyteArrivesUnchangedBothWays() {
    let sum = bash("cat \(directory)/big.sum").output
    // Through the program's own hands, and through its standard output as a log stream.
    let down = bash("\(run) -- sh -c 'curl -sS http://10.9.0.2:8080/big | sha256sum | cut -d\" \" -f1'", timeout: 120)
    XCTAssertEqual(down.output, sum, down.errors)
    let through = bash("\(run) -- curl -sS http://10.9.0.2:8080/big | sha256sum | cut -d' ' -f1", timeout: 120)
    XCTAssertEqual(through.output, sum, through.errors)
    let up = bash(
      "\(run) -- curl -sS -T \(directory)/www/big http://10.9.0.2:8080/up/big && sha256sum \(directory)/www/up/big | cut -d' ' -f1; rm -f \(directory)/www/up/big",
      timeout: 120)
    XCTAssertEqual(up.output, sum, up.errors)
  }

  func testNamesResolve() {
    let outcome = bash(
      """
      \(run) --dns 10.9.0.2 -- sh -c '
        curl -sS http://web.test:8080/file
        dig +short web.test AAAA; dig +short @192.0.2.1 web.test; dig +tcp +short web.test
        dig +short +bufsize=512 TXT big.test | wc -c; dig +noedns +ignore big.test TXT | grep -c "flags:.* tc "
        getent ahosts web.test | cut -d" " -f1 | sort -u | xargs
        python3 -c "import socket; print(sorted({a[4][0] for a in socket.getaddrinfo(\\"web.test\\", 80, flags=socket.AI_ADDRCONFIG)}))"'
      """)
    XCTAssertEqual(
      outcome.output,
      "content-of-file\nfd09::2\n10.9.0.2\n10.9.0.2\n1518\n1\n10.9.0.2 fd09::2\n['10.9.0.2', 'fd09::2']\n",
      outcome.errors)
  }

  func testTheHostsOwnResolvConfIsUsed() {
    let outcome = bash(
      """
      mkdir -p /etc/netns/\(World.host); trap 'rm -r /etc/netns/\(World.host); rmdir /etc/netns 2>/dev/null' EXIT
      echo nameserver 10.9.0.2 > /etc/netns/\(World.host)/resolv.conf
      \(run) -- curl -sS http://web.test:8080/file
      """)
    XCTAssertEqual(outcome.output, "content-of-file\n", outcome.errors)
  }

  /// `http://web/` is found inside where it is found outside, and what the command line says goes over it.
  func testSearchDomainsAndOptionsAreTheMachines() {
    let outcome = bash(
      """
      mkdir -p /etc/netns/\(World.host); trap 'rm -r /etc/netns/\(World.host); rmdir /etc/netns 2>/dev/null' EXIT
      printf 'nameserver 10.9.0.2\\nsearch test nothing.example\\noptions ndots:2 timeout:3\\n' > /etc/netns/\(World.host)/resolv.conf
      \(run) -- sh -c 'curl -sS http://web:8080/file; cat /etc/resolv.conf'
      \(run) --mode none --dns-search lab.example --dns-search b --dns-option rotate -- cat /etc/resolv.conf
      \(run) --mode none --dns-search . -- cat /etc/resolv.conf
      """)
    let server = "nameserver 169.254.53.53\n"
    XCTAssertEqual(
      outcome.output,
      "content-of-file\n\(server)search test nothing.example\noptions ndots:2 timeout:3\n"
        + "\(server)search lab.example b\noptions rotate\n\(server)options ndots:2 timeout:3\n", outcome.errors)
  }

  /// A connection that the host cannot make must fail at once, as outside, and not hang as a success that says nothing.
  func testARefusedConnectionIsRefused() {
    let outcome = bash("time -p \(run) -- curl -sS -m 10 http://10.9.0.2:9/; echo $?", timeout: 15)
    XCTAssertTrue(outcome.output.hasSuffix("7\n"), outcome.output + outcome.errors)
  }

  /// With `connect = "early"` its connect succeeds first.
  func testARefusedConnectionIsResetWhereConnectIsEarly() {
    let outcome = bash(
      """
      printf '[network]\\nconnect = "early"\\n' > \(directory)/early.toml
      time -p \(run) --config \(directory)/early.toml -- curl -sS -m 10 http://10.9.0.2:9/; echo $?
      """, timeout: 15)
    XCTAssertTrue(outcome.output.hasSuffix("56\n") || outcome.output.hasSuffix("7\n"), outcome.output + outcome.errors)
  }

  /// Nobody listens there, and the program hears of it at once.
  func testUDPToAClosedPortFailsAtOnce() {
    let outcome = bash(
      """
      \(run) -- python3 -c '
      import socket, time
      s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); t = time.time()
      try:
          s.connect(("10.9.0.2", 99)); s.send(b"x"); s.recv(1)
          print("received?")
      except OSError as e: print(type(e).__name__ != "timeout" and time.time() - t < 1)'
      """)
    XCTAssertEqual(outcome.output, "True\n", outcome.errors)
  }

  /// A client that has sent everything and shuts its side still gets the answer; a server may speak first.
  func testHalfCloseAndServerSpeaksFirst() {
    let outcome = bash(
      """
      ip netns exec \(World.server) python3 -c '
      import socket, hashlib
      l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(("10.9.0.2", 7001)); l.listen(8)
      c, _ = l.accept(); c.sendall(b"220 hello\\n"); h = hashlib.sha256()
      while True:
          b = c.recv(65536)
          if not b: break
          h.update(b)
      c.sendall(h.hexdigest().encode() + b"\\n"); c.close()' & server=$!
      sleep 0.5
      head -c 5000000 /dev/urandom > \(directory)/half
      \(run) -- sh -c 'socat -t 10 - TCP:10.9.0.2:7001 < \(directory)/half'
      sha256sum < \(directory)/half | cut -d' ' -f1; wait $server
      """)
    let lines = outcome.output.split(separator: "\n")
    XCTAssertEqual(lines.count, 3, outcome.output + outcome.errors)
    XCTAssertEqual(lines.first, "220 hello")
    XCTAssertEqual(lines.dropFirst().first, lines.last)
  }

  /// A server that resets in the middle: the program must not take it for the end of the data.
  func testAResetArrivesAsAReset() {
    let outcome = bash(
      """
      ip netns exec \(World.server) python3 -c '
      import socket, struct, time
      l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(("10.9.0.2", 7002)); l.listen(8)
      c, _ = l.accept(); c.sendall(b"some"); time.sleep(0.3)
      c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); c.close()' & server=$!
      sleep 0.5
      \(run) -- python3 -c '
      import socket
      s = socket.create_connection(("10.9.0.2", 7002)); s.settimeout(10); got = b""
      try:
          while True:
              b = s.recv(100)
              if not b: print("end", got); break
              got += b
      except ConnectionResetError: print("reset", got)'
      wait $server
      """)
    XCTAssertEqual(outcome.output, "reset b'some'\n", outcome.errors)
  }

  // MARK: ingress

  /// Starts an enclave in the background, waits for `ready` to succeed in H, runs `body` there, stops the enclave.
  func published(_ options: String, _ program: String, ready: String, _ body: String, timeout: TimeInterval = 60)
    -> Outcome
  {
    bash(
      """
      \(World.tombolo.isEmpty ? "" : "")
      exec 3>&1
      ip netns exec \(World.host) bash -c '
        \(World.tombolo) run \(options) -- \(program) >&2 & enclave=$!
        for i in $(seq 100); do \(ready) >/dev/null 2>&1 && break; sleep 0.1; done
        \(body)
        kill -TERM $enclave; wait $enclave; echo "status $?"'
      """, timeout: timeout)
  }

  func testNginxServes10000RequestsAt100Connections() {
    let outcome = published(
      "-p 127.0.0.1:9090:80", "nginx -g \"daemon off;\"", ready: "curl -sS http://127.0.0.1:9090/",
      "ab -q -n 10000 -c 100 http://127.0.0.1:9090/ | grep -E \"Complete|Failed|Non-2xx\"")
    XCTAssertTrue(outcome.output.contains("Complete requests:      10000"), outcome.output + outcome.errors)
    XCTAssertTrue(outcome.output.contains("Failed requests:        0"), outcome.output)
    XCTAssertFalse(outcome.output.contains("Non-2xx"), outcome.output)
    XCTAssertTrue(outcome.output.hasSuffix("status 0\n"), outcome.output)
  }

  func testPostgreSQLAnswersPsql() {
    _ = bash(
      """
      cat > \(directory)/pg.sh <<'X'
      set -e
      bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); data=/tmp/pg
      mkdir -p /run/postgresql $data; chown postgres /run/postgresql $data
      as="setpriv --reuid postgres --regid postgres --init-groups"
      $as $bin/initdb -D $data -A trust --no-sync >/dev/null
      exec $as $bin/postgres -D $data -c listen_addresses=0.0.0.0
      X
      """)
    let psql = "psql -h 127.0.0.1 -p 5433 -U postgres -Atc"
    let outcome = published(
      "-p 127.0.0.1:5433:5432", "sh \(directory)/pg.sh", ready: "\(psql) \"select 1\"",
      "\(psql) \"create table t as select generate_series(1, 100000) as n; select sum(n) from t\"")
    XCTAssertTrue(outcome.output.contains("\n5000050000\n"), outcome.output + outcome.errors)
  }

  /// Only ports that are asked for can be reached, whatever the host tries: a host with the boot's own token, in Python.
  func testAPortThatIsNotPublishedIsDenied() {
    let outcome = bash(
      """
      cd \(directory); mkdir -p liar; printf '[network]\\ntransport = "unix:%s"\\n[ingress]\\nports = [80]\\n' $PWD/liar > liar.toml
      cat > liar.py <<'X'
      import socket, time
      listener = socket.socket(socket.AF_UNIX); listener.bind("liar/host_7766"); listener.listen(); listener.settimeout(10)
      held, s = [], None
      while s is None:
          c, _ = listener.accept(); hello = c.recv(1000); held.append(c)
          if hello[5:6] == b"\\6": c.sendall(b"TMBL\\2\\0\\0\\0"); token = hello[8 + 32 + 16 + 32:][:32]; s = c
      for channel, parameters in [(1, "000051000000"), (1, "04010050000000"), (2, "")]:
          for _ in range(100):
              e = socket.socket(socket.AF_UNIX); e.settimeout(5)
              try: e.connect("liar/enclave_7766"); break
              except OSError: time.sleep(0.1)
          p = bytes.fromhex(parameters); e.sendall(b"TMBL\\2" + bytes([channel]) + len(p).to_bytes(2, "big") + token + p)
          print(e.recv(100).hex(), flush=True)
      s.sendall(bytes([0x10, 0, 0, 0])); time.sleep(0.3)
      X
      ip netns exec \(World.host) /usr/bin/python3 liar.py & p=$!
      unshare -n \(World.binaries)/tombolo-init --config liar.toml -- python3 -m http.server 81; echo "status $?"; wait $p
      """, timeout: 40)
    // Denied by policy; a request in error; a channel that is not the host's. Then the host's order to stop.
    XCTAssertEqual(
      outcome.output, "544d424c02050000\n544d424c02080000\n544d424c02090000\nstatus 143\n", outcome.errors)
  }

  // MARK: the program's life

  func testExitStatuses() {
    let cases: [(String, Int32, String)] = [
      ("sh -c 'exit 7'", 7, ""), ("sh -c 'kill -9 $$'", 137, ""), ("true", 0, ""),
      ("no-such-program", 127, "no-such-program: not found in the enclave's PATH"),
      ("/no/such", 127, "/no/such: not found in the enclave"), ("/etc/passwd", 126, "/etc/passwd: not executable"),
      ("/usr", 126, "is a directory"),
    ]
    for (program, status, sentence) in cases {
      let outcome = bash("\(run) -- \(program)", timeout: 10)
      XCTAssertEqual(outcome.status, status, "\(program): \(outcome.errors)")
      XCTAssertTrue(sentence.isEmpty || outcome.errors.contains(sentence), "\(program): \(outcome.errors)")
    }
  }

  func testSignalsReachTheProgram() {
    for (signal, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("USR1", 10), ("USR2", 12), ("QUIT", 3)] {
      let outcome = bash(
        """
        rm -f \(directory)/sig
        ip netns exec \(World.host) bash -c '
          \(World.tombolo) run -- sh -c "trap \\"echo got \(signal); exit \(number)\\" \(signal); echo up; while :; do sleep 0.05; done" > \(directory)/sig & p=$!
          for i in $(seq 50); do grep -qs up \(directory)/sig && break; sleep 0.1; done
          kill -\(signal) $p; wait $p; echo "status $?"'; cat \(directory)/sig
        """, timeout: 20)
      XCTAssertEqual(outcome.output, "status \(number)\nup\ngot \(signal)\n", outcome.errors)
    }
  }

  func testAProgramThatWillNotStopIsKilledAfterItsTime() {
    let outcome = bash(
      """
      printf '[program]\\nstop_timeout = "500ms"\\n' > \(directory)/stop.toml
      rm -f \(directory)/sig
      ip netns exec \(World.host) bash -c '
        \(World.tombolo) run --config \(directory)/stop.toml -- sh -c "trap : TERM; echo up; while :; do sleep 0.05; done" > \(directory)/sig & p=$!
        for i in $(seq 50); do grep -qs up \(directory)/sig && break; sleep 0.1; done
        s=$(date +%s%N); kill $p; wait $p; echo "status $? $(( ($(date +%s%N) - s) / 100000000 ))"'
      """, timeout: 20)
    let words = outcome.output.split(separator: " ")
    XCTAssertEqual(words.dropFirst().first, "137", outcome.output + outcome.errors)
    XCTAssertTrue((4...20).contains(Int(words.last?.dropLast() ?? "") ?? 0), outcome.output)
  }

  func testAThousandOrphansLeaveNoZombie() {
    _ = bash(
      """
      cat > \(directory)/orphans.sh <<'X'
      i=0; while [ $i -lt 1000 ]; do (sh -c 'sleep 0.2 &' &) ; i=$((i+1)); done; sleep 3
      ps -eo stat= | grep -c Z; ps -e --no-headers | wc -l
      X
      """)
    let outcome = bash("\(run) -- sh \(directory)/orphans.sh")
    // PID 1, the proxy, sh, ps and wc.
    XCTAssertEqual(outcome.output, "0\n5\n", outcome.errors)
  }

  func testStandardInputOnRequest() {
    XCTAssertEqual(bash("echo hello | \(run) -i -- cat").output, "hello\n")
    XCTAssertEqual(bash("echo hello | \(run) -- cat").output, "")
  }

  func testStreamsAreKeptApartAndBinarySafe() {
    let outcome = bash(
      "\(run) -- sh -c 'head -c 300000 /dev/zero; echo oops >&2' 2>\(directory)/err | wc -c; cat \(directory)/err")
    XCTAssertEqual(outcome.output, "300000\noops\n")
  }

  /// `| head -1`: the reader has gone, and the enclave is not left writing for ever.
  func testAClosedPipelineEndsTheEnclave() {
    let outcome = bash("\(run) -- yes | head -1; echo ${PIPESTATUS[0]}", timeout: 20)
    XCTAssertEqual(outcome.output, "y\n143\n", outcome.errors)
  }

  // MARK: inside

  func testInsideAsRoot() {
    let outcome = bash(
      """
      printf '[program]\\ncapabilities = ["NET_ADMIN"]\\n' > \(directory)/look.toml # nft needs it, to read too
      \(run) --config \(directory)/look.toml -- sh -c 'nft list ruleset | grep -c "redirect to :61001"; ps -e --no-headers -o pid= -o args= | cut -c1-30
      grep -E "^(CapEff|NoNewPrivs|Uid)" /proc/2/status; ip route; ip -6 route show table all | grep default; hostname
      ls /sys/class/net'
      """)
    let text = outcome.output
    XCTAssertTrue(text.hasPrefix("2\n"), text + outcome.errors)
    let processes = text.split(separator: "\n").filter { $0.contains("tombolo-init") }
    XCTAssertEqual(processes.count, 2, text)
    XCTAssertTrue(text.contains("CapEff:\t0000000000000000"), text)
    XCTAssertTrue(text.contains("NoNewPrivs:\t1"), text)
    XCTAssertTrue(text.contains("Uid:\t61042\t61042\t61042\t61042"), text)
    XCTAssertTrue(text.contains("default dev tun0 scope link src 192.0.0.2"), text)
    XCTAssertTrue(text.contains("default dev tun0 src fd54:6f6d:626f:1::2"), text)
    XCTAssertTrue(text.hasSuffix("enclave\nlo\ntun0\n"), text)
  }

  /// The same over legacy xtables, which is all that stock enclave kernels have.
  func testTheSameOverXtables() {
    let outcome = bash(
      """
      printf '[network]\\nfirewall = "xtables"\\n[program]\\ncapabilities = ["NET_ADMIN", "NET_RAW"]\\n' > \(directory)/xt.toml
      \(run) --config \(directory)/xt.toml --dns 10.9.0.2 -- sh -c '
        curl -sS http://web.test:8080/file; curl -gsS "http://[fd09::2]:8080/file"
        iptables-legacy-save | grep -c REDIRECT; nft list ruleset 2>/dev/null | grep -c redirect'
      """)
    XCTAssertEqual(outcome.output, "content-of-file\ncontent-of-file\n3\n0\n", outcome.errors)
  }

  /// Whoever starts enclaves with a mask that keeps their own files private has a network in them all the same.
  func testUnderAStrictUmask() {
    let outcome = bash(
      "umask 077; \(run) --dns 10.9.0.2 -- sh -c 'umask; stat -c %a /etc/resolv.conf /etc/hosts; curl -sS http://web.test:8080/file'"
    )
    XCTAssertEqual(outcome.output, "0022\n644\n644\ncontent-of-file\n", outcome.errors)
  }

  /// A full disk on the host must not cost a line of the log: the daemon says it, keeps it, and so does the enclave.
  func testAFullDiskLosesNoLine() {
    let outcome = bash(
      """
      cd \(directory); mkdir -p full transport; chmod 755 transport; mount -t tmpfs -o size=64k tombolo-full full
      printf "[network]\\ntransport = \\"unix:$PWD/transport\\"\\n" > full.toml
      ip netns exec \(World.host) \(World.tombolo) host --transport unix:$PWD/transport --log-format raw > full/log 2> full.err & h=$!
      for i in $(seq 50); do [ -S transport/host_7766 ] && break; sleep 0.1; done
      unshare --net --mount --pid --fork --mount-proc \(World.binaries)/tombolo-init --config full.toml -- sh -c 'seq 200000; exit 4' & e=$!
      for i in $(seq 100); do grep -q "the log waits: .*ENOSPC" full.err && break; sleep 0.1; done
      grep -c "the log waits" full.err; sleep 1.5
      mount -o remount,size=8m tombolo-full full
      wait $e; echo "init says $?"; sleep 1.5; kill $h; wait $h
      grep '^[0-9]*$' full/log | md5sum | cut -c1-8; seq 200000 | md5sum | cut -c1-8
      umount full
      """, timeout: 60)
    let lines = outcome.output.split(separator: "\n")
    XCTAssertEqual(lines.prefix(2), ["1", "init says 4"], outcome.output + outcome.errors)
    XCTAssertEqual(lines.count, 4)
    XCTAssertEqual(lines.dropFirst(2).first, lines.last, outcome.output)
    bash("mountpoint -q \(directory)/full && umount \(directory)/full; true")
  }

  /// Without anybody to take the log, the daemon ends with a sentence instead of throwing it away.
  func testADaemonWhoseLogNobodyTakesEnds() {
    let outcome = bash(
      """
      cd \(directory); mkdir -p gone; chmod 755 gone
      printf "[network]\\ntransport = \\"unix:$PWD/gone\\"\\n" > gone.toml
      { ip netns exec \(World.host) \(World.tombolo) host --transport unix:$PWD/gone --log-format raw 2> gone.err; echo "host says $?" > gone.status; } | true & h=$!
      for i in $(seq 50); do [ -S gone/host_7766 ] && break; sleep 0.1; done
      unshare --net --mount --pid --fork --mount-proc \(World.binaries)/tombolo-init --config gone.toml -- sh -c 'echo hello; sleep 1; echo again; sleep 1' & e=$!
      for i in $(seq 60); do [ -e gone.status ] && break; sleep 0.1; done; cat gone.status gone.err
      kill $e; wait $e $h
      """, timeout: 30)
    XCTAssertTrue(outcome.output.hasPrefix("host says 125\n"), outcome.output + outcome.errors)
    XCTAssertTrue(outcome.output.contains("nobody takes the log"), outcome.output)
  }

  func testUserEnvironmentAndDirectory() {
    let outcome = bash(
      "\(run) -u www-data -e A=1 -e 'B=x y' -w /usr/share --hostname box -- sh -c 'id -un; id -Gn; echo $A $B $HOME $HOSTNAME; pwd; hostname'"
    )
    XCTAssertEqual(outcome.output, "www-data\nwww-data\n1 x y /var/www box\n/usr/share\nbox\n", outcome.errors)
  }

  func testWritesVanish() {
    let outcome = bash("\(run) -- sh -c 'echo x > /etc/tmb-test && cat /etc/tmb-test'; ls /etc/tmb-test")
    XCTAssertEqual(outcome.output, "x\n")
    XCTAssertNotEqual(outcome.status, 0)
  }

  /// One static file and an empty directory are all it takes, and the directory is left as it was.
  func testAnEmptyRoot() {
    let outcome = bash(
      """
      file -b \(World.binaries)/tombolo-init | grep -c 'static-pie linked'
      mkdir -p \(directory)/empty && cp /bin/busybox \(directory)/empty/
      \(run) --rootfs \(directory)/empty -- /busybox sh -c '/busybox cat /etc/resolv.conf; /busybox wget -qO- http://10.9.0.2:8080/file'
      ls -A \(directory)/empty
      """)
    XCTAssertEqual(
      outcome.output, "1\nnameserver 169.254.53.53\ncontent-of-file\nbusybox\n", outcome.errors)
  }

  func testAKilledProxyComesBackAndOnlyItsConnectionsAreReset() {
    _ = bash(
      """
      cat > \(directory)/kill.sh <<'X'
      (curl -sS --limit-rate 1M http://10.9.0.2:8080/big -o /dev/null; echo "old connection: $?") &
      sleep 0.5; kill -9 $(ps -eo pid=,args= | awk '/tombolo-init [p]roxy/{print $1}')
      for i in 1 2 3 4 5 6 7 8 9 10; do curl -sS http://10.9.0.2:8080/file && break; sleep 0.1; done; wait
      X
      """)
    let outcome = bash("\(run) -- sh \(directory)/kill.sh")
    XCTAssertEqual(
      Set(outcome.output.split(separator: "\n")), ["content-of-file", "old connection: 56"], outcome.errors)
  }

  /// Without root, where the kernel allows it.
  func testUnprivileged() {
    let outcome = bash(
      """
      install -m755 \(World.binaries)/tombolo \(World.binaries)/tombolo-init \(directory)
      cd /; as="ip netns exec \(World.host) setpriv --reuid 1000 --regid 1000 --clear-groups \(directory)/tombolo run"
      $as -- sh -c 'id -u; curl -sS http://10.9.0.2:8080/file; grep CapEff /proc/2/status; exit 3'; echo $?
      $as -u www-data -- id; echo $?
      """)
    XCTAssertEqual(
      outcome.output, "0\ncontent-of-file\nCapEff:\t0000000000000000\n3\n125\n", outcome.errors)
    XCTAssertTrue(outcome.errors.contains("this user namespace has no such id"), outcome.errors)
  }
}
