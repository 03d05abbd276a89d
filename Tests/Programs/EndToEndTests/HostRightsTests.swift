import Foundation
import XCTest

/// What a host side in other hands could do to the machine: its user, its capabilities, its system calls.
final class HostRightsTests: XCTestCase {
  let tombolo = World.tombolo

  override class func setUp() {
    World.setUp(bigFile: false)
    bash(
      """
      \(SystemCallInjection.setUp)
      cat > \(World.directory)/lib.sh <<'X'
      rights() { sed -n 's/[[:space:]]\\+/ /gp' /proc/$1/status | grep -E '^(Uid|Groups|CapEff|NoNewPrivs|Seccomp):' | sed 's/ $//' | tr '\\n' ' '; echo; }
      rules() { ip netns exec \(World.host) sh -c 'nft list ruleset; iptables-legacy-save; ip6tables-legacy-save' | grep -ciE 'queue|tombolo'; }
      child() { for c in $(cat /proc/$1/task/*/children); do [ "$(cat /proc/$c/comm)" = $2 ] && echo $c; done; }
      care() { child $1 tombolo-care; }
      gone() { for n in $(seq 200); do grep -qs '^State:.[^Z]' /proc/$1/status || return; sleep 0.05; done; echo "$1 is still there"; }
      # Whoever executes the program next is its process: ip netns exec becomes it.
      up() { for i in $(seq 200); do grep -q up "$1" && break; sleep 0.05; done; }
      X
      """)
  }
  override class func tearDown() { World.tearDown() }

  private static let host = "Uid: 61043 61043 61043 61043 Groups: CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 \n"
  /// To signal init.
  private static let run = "Uid: 61043 61043 61043 61043 Groups: CapEff: 0000000000000020 NoNewPrivs: 1 Seccomp: 2 \n"
  /// To take away what is in directories of others.
  private static let caretaker = "Uid: 0 0 0 0 CapEff: 000000000000000a NoNewPrivs: 1 Seccomp: 2 \n"

  func testALocalEnclaveOfRoots() {
    let outcome = bash(
      """
      cd \(World.directory); . ./lib.sh; mkdir -p t; rm -f go; mkfifo go
      TMPDIR=$PWD/t \(World.run) -i -p 127.0.0.1:9494:80 -- sh -c 'nginx; echo up; read x; curl -sS http://10.9.0.2:8080/file; exit 6' < go > out 2> err & r=$!
      exec 4> go; up out; rights $r; rights $(care $r) | sed 's/Groups: \\([0-9]* \\)*Cap/Cap/'
      for i in $(seq 100); do ip netns exec \(World.host) curl -s http://127.0.0.1:9494/ | grep -o "Welcome to nginx!" | head -1 | grep . && break; sleep 0.05; done
      \(tombolo) status $r | grep -c "pid $r"; ls t | wc -l
      echo >&4; exec 4>&-; wait $r; echo "status $?"; cat out err; ls t | wc -l
      """, timeout: 60)
    XCTAssertEqual(
      outcome.output,
      Self.run + Self.caretaker + "Welcome to nginx!\n1\n1\nstatus 6\nup\ncontent-of-file\n0\n", outcome.errors)
  }

  /// What it is made to do ends it and its enclave with it; nothing is left behind when the next one has started.
  func testAForbiddenCallEndsALocalEnclave() {
    let execve = 59
    let kill = 62
    for (call, name) in [(execve, "execve (59)"), (kill, "kill (62)")] {
      let outcome = bash(
        """
        cd \(World.directory); . ./lib.sh; mkdir -p t
        TMPDIR=$PWD/t \(World.run) -- sh -c 'echo up; exec sleep 100.25' > out 2> err & r=$!
        up out; c=$(care $r); i=$(pgrep -P $r tombolo-init); \(World.python) inject.py $r \(call) 1
        wait $r; echo "status $?"; cat err
        for n in $(seq 100); do [ -e /proc/$i ] || [ -e /proc/$c ] || break; sleep 0.05; done; ls -d /proc/$i /proc/$c 2>/dev/null; pgrep -ax sleep | grep -o "sleep 100.25"
        TMPDIR=$PWD/t \(World.run) -- true; echo "status $?"; ls t | wc -l
        """, timeout: 60)
      XCTAssertEqual(
        outcome.output,
        "status 159\na system call that this process must not make: \(name)\nstatus 0\n0\n", outcome.errors)
    }
  }

  /// The link, its rules and forwarding are the caretaker's; packets pass through a process that may change none of them.
  func testRawModeOfRoots() {
    let outcome = bash(
      """
      cd \(World.directory); . ./lib.sh; mkdir -p t; rm -f go out; mkfifo go; touch out
      inhost() { ip netns exec \(World.host) "$@"; }
      left() { echo "$(inhost nft list tables | grep -c tombolo) $(inhost ip -o link | grep -c tombolo) $(inhost cat /proc/sys/net/ipv4/ip_forward)"; }
      left; TMPDIR=$PWD/t \(World.run) --mode raw -i -p 9496:80 -- sh -c 'nginx; echo up; read x; curl -sS http://10.9.0.2:8080/file; exit 6' < go > out 2> err & r=$!
      exec 4> go; up out; rights $r; rights $(care $r) | sed 's/Groups: \\([0-9]* \\)*Cap/Cap/'; left
      for i in $(seq 100); do ip netns exec \(World.server) curl -s -m 5 http://10.9.0.1:9496/ | grep -o "Welcome to nginx!" | head -1 | grep . && break; sleep 0.05; done
      echo >&4; exec 4>&-; wait $r; echo "status $?"; cat out err; ls t | wc -l; left
      """, timeout: 60)
    XCTAssertEqual(
      outcome.output,
      "0 0 0\n" + Self.run + Self.caretaker.replacingOccurrences(of: "000a", with: "300a")
        + "2 1 1\nWelcome to nginx!\nstatus 6\nup\ncontent-of-file\n0\n0 0 0\n", outcome.errors)
  }

  /// With a shared address each verdict on a packet takes CAP_NET_ADMIN: a keeper has it, and nothing else.
  func testASharedAddressOfRoots() {
    let outcome = bash(
      """
      cd \(World.directory); . ./lib.sh; mkdir -p t; rm -f go out; mkfifo go; touch out
      inhost() { ip netns exec \(World.host) "$@"; }
      left() { echo $(rules | sed 's/^[1-9].*/rules/') $(inhost cat /proc/sys/net/ipv4/ip_local_port_range); }
      left; TMPDIR=$PWD/t \(World.run) --mode raw --capture nfqueue -i -p 80:80 -- sh -c 'nginx; echo up; read x; curl -sS http://10.9.0.2:8080/file; exit 6' < go > out 2> err & r=$!
      exec 4> go; up out; k=$(child $r tombolo-keeper); rights $r; rights $k; rights $(care $r) | sed 's/Groups: \\([0-9]* \\)*Cap/Cap/'; left
      for i in $(seq 100); do ip netns exec \(World.server) curl -s -m 5 http://10.9.0.1/ | grep -o "Welcome to nginx!" | head -1 | grep . && break; sleep 0.05; done
      ip netns exec \(World.server) curl -s -m 5 http://10.9.0.1:8081/; echo "refused: $?"
      echo >&4; exec 4>&-; wait $r; echo "status $?"; gone $k; cat out err; ls t | wc -l; left
      """, timeout: 60)
    XCTAssertEqual(
      outcome.output,
      "0 32768 60999\n" + Self.run + Self.host.replacingOccurrences(of: "0000 NoNew", with: "1000 NoNew")
        + Self.caretaker.replacingOccurrences(of: "000a", with: "300a")
        + "rules 61440 65535\nWelcome to nginx!\nrefused: 7\nstatus 6\nup\ncontent-of-file\n0\n0 32768 60999\n",
      outcome.errors)
  }

  /// The same where the enclave comes when the rights are gone; a daemon without its keeper, which passes no packets, ends, and
  /// the next one has another.
  func testADaemonOfASharedAddressAndTheEndOfItsKeeper() {
    let outcome = bash(
      """
      cd \(World.directory); . ./lib.sh; rm -rf daemon2; mkdir daemon2
      printf '[network]\\nmode = "raw"\\ncapture = "nfqueue"\\ntransport = "unix:%s"\\n' $PWD/daemon2 > shared.toml
      start() { ip netns exec \(World.host) \(tombolo) host --transport unix:$PWD/daemon2 --raw --raw-capture nfqueue --log-format raw >> daemon2.out 2>> daemon2.err & h=$!
        for i in $(seq 200); do [ -n "$(child $h tombolo-keeper)" ] && grep -q 'Seccomp:.2' /proc/$h/status && break; sleep 0.05; done; }
      enclave() { timeout 30 unshare -n \(World.binaries)/tombolo-init --config shared.toml -- curl -sS http://10.9.0.2:8080/file 2> daemon2.inside; echo "status $?"; }
      start; k=$(child $h tombolo-keeper); rights $h; rights $k; rights $(care $h) | sed 's/Groups: \\([0-9]* \\)*Cap/Cap/'; enclave
      \(World.python) inject.py $k 59; wait $h; echo "status $?"; gone $k
      start; enclave; kill $h; wait $h; echo "status $?"; cat daemon2.out; grep -o "a system call that.*" daemon2.err; grep -o "the keeper of verdicts has.*" daemon2.err; rules
      """, timeout: 90)
    XCTAssertEqual(
      outcome.output,
      Self.host + Self.host.replacingOccurrences(of: "0000 NoNew", with: "1000 NoNew")
        + Self.caretaker.replacingOccurrences(of: "000a", with: "300a")
        + "status 0\nstatus 125\nstatus 0\nstatus 0\ncontent-of-file\ncontent-of-file\n"
        + "a system call that this process must not make: execve (59)\n"
        + "the keeper of verdicts has ended: no more packets pass\n0\n",
      outcome.errors + bash("cat \(World.directory)/daemon2.err").output)
  }

  /// A local enclave has no network then that it could have again, and ends in order.
  func testAForbiddenCallEndsAKeeperAndItsEnclave() {
    let outcome = bash(
      """
      cd \(World.directory); . ./lib.sh; mkdir -p t; rm -f out; touch out
      TMPDIR=$PWD/t \(World.run) --mode raw --capture nfqueue -- sh -c 'echo up; exec sleep 100.25' > out 2> err & r=$!
      up out; k=$(child $r tombolo-keeper); \(World.python) inject.py $k 59; wait $r; echo "status $?"; gone $k; cat err; ls t | wc -l; rules
      """, timeout: 60)
    XCTAssertEqual(
      outcome.output,
      "status 125\na system call that this process must not make: execve (59)\n"
        + "tombolo: the keeper of verdicts has ended: no more packets pass\n0\n0\n", outcome.errors)
  }

  /// What it would have taken away the next start takes away; the enclave goes on, and a daemon ends for the next to come.
  func testAForbiddenCallEndsACaretaker() {
    let refused = "a system call that this process must not make: execve (59)\n"
    let said =
      "the caretaker has ended: what this process has made on this machine stays until the next start takes it away\n"
    for mode in ["tcp", "raw", "raw --capture nfqueue"] {
      let outcome = bash(
        """
        cd \(World.directory); . ./lib.sh; mkdir -p t; rm -f go out; mkfifo go; touch out
        TMPDIR=$PWD/t \(World.run) --mode \(mode) -i -- sh -c 'echo up; read x; curl -sS http://10.9.0.2:8080/file; exit 6' < go > out 2> err & r=$!
        exec 4> go; up out; c=$(care $r); \(World.python) inject.py $c 59
        for i in $(seq 100); do grep -q "caretaker has" err && break; sleep 0.05; done
        echo >&4; exec 4>&-; wait $r; echo "status $?"; cat out err
        TMPDIR=$PWD/t \(World.run) --mode \(mode) -- true; echo "status $?"; ls t | wc -l; rules
        """, timeout: 60)
      XCTAssertEqual(
        outcome.output, "status 6\nup\ncontent-of-file\n\(refused)tombolo: \(said)status 0\n0\n0\n",
        mode + outcome.errors)
    }
    let outcome = bash(
      """
      cd \(World.directory); . ./lib.sh; rm -rf daemon; mkdir daemon
      ip netns exec \(World.host) \(tombolo) host --transport unix:$PWD/daemon 2> err & h=$!
      for i in $(seq 100); do [ -n "$(care $h)" ] && grep -q 'Seccomp:.2' /proc/$h/status && break; sleep 0.05; done
      \(World.python) inject.py $(care $h) 59; wait $h; echo "status $?"; cat err
      """, timeout: 30)
    XCTAssertEqual(outcome.output, "status 125\n\(refused)tombolo: \(said)", outcome.errors)
  }

  /// `tombolo status` reads what host sides say: it waits for one that is stopped.
  func testAForbiddenCallEndsAStatus() {
    let outcome = bash(
      """
      cd \(World.directory); . ./lib.sh; rm -f out; touch out
      \(World.run) -- sh -c 'echo up; exec sleep 100.25' > out 2> err & r=$!
      up out; kill -STOP $r; \(tombolo) status $r > status.out 2> status.err & s=$!
      for i in $(seq 100); do grep -q 'Seccomp:.2' /proc/$s/status && grep -q poll /proc/$s/wchan && break; sleep 0.02; done
      rights $s | sed 's/Groups: \\([0-9]* \\)*Cap/Cap/'; \(World.python) inject.py $s 59; wait $s; echo "status $?"; cat status.out status.err
      kill -CONT $r; kill $r; wait $r; echo "status $?"
      """, timeout: 30)
    XCTAssertEqual(
      outcome.output,
      "Uid: 0 0 0 0 CapEff: 0000000000000002 NoNewPrivs: 1 Seccomp: 2 \nstatus 159\n"
        + "a system call that this process must not make: execve (59)\nstatus 143\n", outcome.errors)
  }

  /// PID 1 loads nothing into the kernel, mounts nothing and makes no namespaces any more; where memory ends, the proxy goes.
  func testPIDOneAndItsProxy() {
    let outcome = bash(
      """
      \(World.run) -- sh -c '
        for p in 1 $(cd /proc; grep -l tombolo-proxy [0-9]*/comm | cut -d/ -f1) $$; do
          echo $(cat /proc/$p/comm; grep -hE "^(CapEff|NoNewPrivs|Seccomp):" /proc/$p/status | grep -v "CapEff.*a00425fb"; cat /proc/$p/oom_score_adj); done'
      """, timeout: 30)
    XCTAssertEqual(
      outcome.output,
      """
      tombolo-init CapEff: 00000000026001e3 NoNewPrivs: 1 Seccomp: 2 0
      tombolo-proxy CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 1000
      sh NoNewPrivs: 1 Seccomp: 2 0

      """, outcome.errors)
  }

  /// What maps a guest's memory and reads its packets.
  func testAVsockDevice() {
    let outcome = bash(
      """
      cd \(World.directory); . ./lib.sh; rm -rf dev; mkdir dev
      \(tombolo) vsock-device --socket dev/s --cid 5 --uds dev/v 2> err & d=$!
      for i in $(seq 100); do grep -q 'Seccomp:.2' /proc/$d/status && break; sleep 0.05; done
      rights $d | sed 's/Groups: \\([0-9]* \\)*Cap/Cap/'; kill $d; wait $d; echo "status $?"; ls dev | wc -l
      \(tombolo) vsock-device --socket dev/s --cid 5 --uds dev/v 2> err & d=$!
      for i in $(seq 100); do grep -q 'Seccomp:.2' /proc/$d/status && break; sleep 0.05; done
      \(World.python) inject.py $d 59; wait $d; echo "status $?"; cat err
      """, timeout: 30)
    XCTAssertEqual(
      outcome.output,
      "Uid: 0 0 0 0 CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 \nstatus 0\n0\nstatus 159\n"
        + "a system call that this process must not make: execve (59)\n", outcome.errors)
  }

  /// A daemon that root starts, at Unix sockets that only root may connect to: connections in, names, and the boot that the next
  /// daemon has to know.
  func testADaemonOfRoots() {
    let outcome = bash(
      """
      cd \(World.directory); . ./lib.sh; rm -rf daemon; mkdir daemon; printf '[network]\\ntransport = "unix:/run/outside"\\n[ingress]\\nports = [80]\\n' > daemon.toml
      start() { ip netns exec \(World.host) \(tombolo) host --transport unix:$PWD/daemon --log-format raw --dns 10.9.0.2 -p 127.0.0.1:9495:80 >> daemon.out 2>> daemon.err & h=$!; }
      start; for i in $(seq 100); do [ -S daemon/host_7766 ] && break; sleep 0.05; done
      unshare -fpmn --mount-proc sh -c 'mkdir -p /run/outside && mount --bind '$PWD'/daemon /run/outside && exec \(World.binaries)/tombolo-init --config daemon.toml -- sh -c "
        nginx; echo up; curl -sS http://web.test:8080/file; while [ ! -e /run/outside/stop ]; do sleep 0.1; done; exit 5"' > inside.out 2>&1 & e=$!
      up daemon.out; rights $h; rights $(care $h) | sed 's/Groups: \\([0-9]* \\)*Cap/Cap/'
      greet() { for i in $(seq 100); do ip netns exec \(World.host) curl -s http://127.0.0.1:9495/ | grep -o "Welcome to nginx!" | head -1 | grep . && break; sleep 0.05; done; }
      greet; ls -l /run/tombolo/status/ | awk '/boots-unix.*daemon/ {print $1, $3}'
      kill -KILL $h; wait $h 2>/dev/null; start; greet; touch daemon/stop; wait $e; echo "status $?"
      for i in $(seq 100); do grep -q "ended with status" daemon.err && break; sleep 0.05; done
      kill $h; wait $h; echo "status $?"; grep content daemon.out; ls daemon; ls /run/tombolo/status/*daemon* 2>/dev/null
      """, timeout: 60)
    XCTAssertEqual(
      outcome.output,
      Self.host + Self.caretaker
        + "Welcome to nginx!\n-rw------- root\nWelcome to nginx!\nstatus 5\nstatus 0\ncontent-of-file\nenclave_7766\nstop\n",
      outcome.errors + bash("cat \(World.directory)/daemon.err \(World.directory)/inside.out").output)
  }

  func testAForbiddenCallEndsADaemon() {
    let outcome = bash(
      """
      cd \(World.directory); . ./lib.sh; rm -rf daemon; mkdir daemon
      ip netns exec \(World.host) \(tombolo) host --transport unix:$PWD/daemon 2> err & h=$!
      for i in $(seq 100); do [ -n "$(care $h)" ] && break; sleep 0.05; done; c=$(care $h)
      for i in $(seq 100); do grep -q 'Seccomp:.2' /proc/$h/status && break; sleep 0.05; done
      \(World.python) inject.py $h 59; wait $h; echo "status $?"; cat err
      for i in $(seq 100); do [ -e /proc/$c ] || break; sleep 0.05; done; ls -d /proc/$c 2>/dev/null
      """, timeout: 30)
    XCTAssertEqual(
      outcome.output, "status 159\na system call that this process must not make: execve (59)\n", outcome.errors)
  }

  /// Without root it stays that user, and has no more system calls.
  func testALocalEnclaveWithoutRoot() {
    let outcome = bash(
      """
      cd \(World.directory); . ./lib.sh; d=$(mktemp -d); chown 65534 $d; rm -f go out; mkfifo go; touch out
      TMPDIR=$d ip netns exec \(World.host) setpriv --reuid 65534 --regid 65534 --clear-groups \(tombolo) run -i -- sh -c 'echo up; read x; curl -sS http://10.9.0.2:8080/file; exit 6' < go > out 2> err & r=$!
      exec 4> go; up out; rights $r; rights $(care $r) | sed 's/Groups: \\([0-9]* \\)*Cap/Cap/'
      echo >&4; exec 4>&-; wait $r; echo "status $?"; cat out err; ls $d | wc -l; rmdir $d
      """, timeout: 60)
    let user = "Uid: 65534 65534 65534 65534 CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 \n"
    XCTAssertEqual(
      outcome.output,
      user.replacingOccurrences(of: "Cap", with: "Groups: Cap") + user + "status 6\nup\ncontent-of-file\n0\n",
      outcome.errors)
  }
}
