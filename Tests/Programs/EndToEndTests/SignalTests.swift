import Foundation
import XCTest

/// What an operator, a terminal or a shell sends reaches the program as it would without an enclave around it.
final class SignalTests: XCTestCase {
  let tombolo = World.tombolo
  static let directory = "/var/tmp/tombolo-signals-\(World.id)"
  let directory = SignalTests.directory

  override class func setUp() {
    bash(
      """
      mkdir -p \(directory); cd \(directory)
      # Reads every signal from 1 to 64, also the two that the C library keeps for itself, and says its number.
      cat > signals.py <<'X'
      import ctypes, os, struct, sys
      call = ctypes.CDLL(None).syscall
      block, signalfd4 = (14, 289) if os.uname().machine == "x86_64" else (135, 74)
      mask = ctypes.c_uint64(2**64 - 1)
      call(block, 0, ctypes.byref(mask), None, 8)
      fd = call(signalfd4, -1, ctypes.byref(mask), 8, 0)
      print("up", flush=True)
      while True:
          signal = struct.unpack("I", os.read(fd, 128)[:4])[0]
          print(signal, flush=True)
          if signal == 15: sys.exit(4)
      X
      # Sends them to a process, one after the other has been seen, and says what did not arrive.
      cat > send.py <<'X'
      import os, subprocess, sys
      to_init = sys.argv[1] == "init"
      run = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE, text=True)
      assert run.stdout.readline() == "up\\n"
      target = run.pid
      if to_init: target = int(open(f"/proc/{run.pid}/task/{run.pid}/children").read().split()[0])
      for signal in sorted(set(range(1, 65)) - {4, 5, 7, 8, 9, 11, 15, 17, 19, 31}):
          os.kill(target, signal)
          line = run.stdout.readline()
          if line != f"{signal}\\n": sys.exit(f"sent {signal}, seen {line!r}")
      for _ in range(20): os.kill(target, 37)
      seen = [run.stdout.readline() for _ in range(20)]
      print("SIGRTMIN+3", seen.count("37\\n"))
      os.kill(target, 15)
      print(repr(run.stdout.read()), run.wait())
      X
      cat > toml <<'X'
      [program]
      stop_timeout = "400ms"
      X
      """)
  }
  override class func tearDown() { bash("rm -rf \(directory)") }

  func check(
    _ script: String, _ expected: String, timeout: TimeInterval = 60, file: StaticString = #filePath, line: UInt = #line
  ) {
    let outcome = bash("cd \(directory)\n" + script, timeout: timeout, file: file, line: line)
    XCTAssertEqual(outcome.output, expected, outcome.errors, file: file, line: line)
  }

  // MARK: which

  func testEverySignalReachesTheProgramAndRealTimeOnesAreCounted() {
    for target in ["run", "init"] {
      check(
        "python3 send.py \(target) \(tombolo) run --mode none -- python3 $PWD/signals.py",
        "SIGRTMIN+3 20\n'15\\n' 4\n")
    }
  }

  /// Under another init, as the ENTRYPOINT of an image.
  func testEverySignalReachesTheProgramUnderAnotherInit() {
    check(
      """
      printf '[network]\\nmode = "none"\\ntransport = "unix:%s"\\n' $PWD > child.toml
      \(tombolo) host --transport unix:$PWD --log-format raw > host.out & h=$!
      for i in $(seq 50); do [ -S host_7766 ] && break; sleep 0.1; done
      unshare --net \(World.binaries)/tombolo-init --config child.toml -- python3 $PWD/signals.py & p=$!
      for i in $(seq 100); do grep -q up host.out && break; sleep 0.1; done
      n=0; for s in $(seq 64); do case $s in 4|5|7|8|9|11|15|17|19|31) continue;; esac
        kill -$s $p; n=$((n + 1)); for i in $(seq 100); do [ $(wc -l < host.out) -gt $n ] && break; sleep 0.05; done; done
      kill $p; wait $p; echo "status $?"; kill $h; wait $h; paste -sd' ' host.out
      """,
      "status 4\nup "
        + (1...64).filter { ![4, 5, 7, 8, 9, 11, 15, 17, 19, 31].contains($0) }.map(String.init).joined(separator: " ")
        + " 15\n")
  }

  /// Without a handler a signal ends the program, not Tombolo: the status says so, and nothing of ours is left.
  func testASignalThatEndsTheProgramIsItsStatus() {
    for signal in [6, 14, 25, 29, 32, 37, 64] {
      check(
        """
        mkdir t; TMPDIR=$PWD/t \(tombolo) run --mode none -- sh -c 'echo up; exec sleep 60' > out & p=$!
        for i in $(seq 100); do grep -q up out && break; sleep 0.05; done; sleep 0.1
        kill -\(signal) $p; wait $p 2>/dev/null; echo $?; ls t | wc -l; rm -r t
        """, "\(128 + signal)\n0\n")
    }
  }

  /// `docker stop` right after `docker run`: what comes while init itself is only starting waits for it.
  func testASignalAtTheVeryStartIsNotLost() {
    check(
      """
      for i in 1 2 3 4 5; do
        mkdir t; TMPDIR=$PWD/t \(tombolo) run --mode none -- sleep 60 & p=$!
        until [ -n "$(cat /proc/$p/task/$p/children)" ]; do :; done; kill $p; wait $p; echo $?; rm -r t
      done
      """, String(repeating: "143\n", count: 5))
  }

  // MARK: which of them end the program

  /// Ctrl-C at a Python prompt is KeyboardInterrupt, and not its end ten seconds later.
  func testOneInterruptLeavesAnInteractiveProgramAlone() {
    check(
      """
      mkfifo in; \(tombolo) run --config toml --mode none -i -- python3 -iqu < in > out 2> err & p=$!
      exec 3> in; echo 'print("up")' >&3; for i in $(seq 100); do grep -q up out && break; sleep 0.05; done
      kill -INT $p; for i in $(seq 100); do grep -q KeyboardInterrupt err && break; sleep 0.05; done
      sleep 1.2; echo 'print(6 * 7)' >&3; exec 3>&-; wait $p; echo "status $?"; cat out; rm in
      """, "status 0\nup\n42\n")
  }

  /// A thread dump must not cost the service.
  func testQuitDumpsAJVMsThreadsAndNothingElse() {
    check(
      """
      mkdir -p java; cat > java/Up.java <<'X'
      class Up { public static void main(String[] a) throws Exception {
        System.out.println("up"); Thread.sleep(Long.parseLong(a[0])); System.out.println("still here"); } }
      X
      javac -d java java/Up.java
      \(tombolo) run --config toml --mode none -- java -XX:TieredStopAtLevel=1 -cp $PWD/java Up 2500 > out & p=$!
      for i in $(seq 300); do grep -q up out && break; sleep 0.05; done; kill -QUIT $p; wait $p; echo "status $?"
      grep -c "Full thread dump" out; tail -1 out
      """, "status 0\n1\nstill here\n")
  }

  /// Two of them are meant.
  func testASecondInterruptEndsAProgramThatIgnoresIt() {
    check(
      """
      \(tombolo) run --config toml --mode none -- sh -c 'trap "" INT; echo up; while :; do sleep 0.05; done' > out & p=$!
      for i in $(seq 100); do grep -q up out && break; sleep 0.05; done
      kill -INT $p; sleep 1; kill -0 $p && echo runs; kill -INT $p; wait $p; echo $?
      """, "runs\n137\n")
  }

  // MARK: jobs

  /// Ctrl-Z, `fg`, Ctrl-C at a terminal: bash sees a stopped job, and what runs in the enclave stands still meanwhile.
  func testAShellStopsAndContinuesAJob() {
    check(
      """
      cat > terminal.py <<'X'
      import os, pty, re, sys, time
      pid, fd = pty.fork()
      if pid == 0: os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], os.environ | {"PS1": "ready> "})
      seen = ""
      def until(pattern):
          global seen
          while not re.search(pattern, seen): seen += os.read(fd, 4096).decode()
          seen = seen[re.search(pattern, seen).end():]
      def states():
          found = {}
          for process in filter(str.isdigit, os.listdir("/proc")):
              try:
                  words = open(f"/proc/{process}/cmdline").read().split("\\0")
                  if "4243" in words and words[0] == "sleep": found[process] = open(f"/proc/{process}/stat").read().rsplit(")")[1].split()[0]
              except OSError: pass
          return sorted(found.values())
      def wait(expected):
          for _ in range(400):
              if states() == expected: return print(*expected)
              time.sleep(0.05)
          print("found", states(), "expected", expected)
      until("ready> ")
      os.write(fd, f"{sys.argv[1]} run --mode none -- sh -c 'sleep 4243 & exec sleep 4243'\\n".encode()); wait(["S", "S"])
      os.write(fd, b"\\x1a"); until("Stopped"); until("ready> "); wait(["T", "T"])
      os.write(fd, b"fg\\n"); wait(["S", "S"])
      os.write(fd, b"\\x03"); until("ready> "); wait([])
      os.write(fd, b"echo status $?\\n"); until("status 130"); print("status 130")
      os.write(fd, b"exit\\n")
      X
      python3 terminal.py \(tombolo)
      """, "S S\nT T\nS S\n\nstatus 130\n")
  }

  /// Each of the three stops a job, by `kill` too, and a program that handles one goes on, and Tombolo with it.
  func testOnlyAProgramThatStopsIsAStoppedJob() {
    check(
      """
      for s in TSTP TTIN TTOU; do
        \(tombolo) run --mode none -- sh -c 'echo up; exec sleep 4244' > out & p=$!
        for i in $(seq 100); do grep -q up out && break; sleep 0.05; done; sleep 0.1
        kill -$s $p; for i in $(seq 100); do [ "$(ps -o stat= $p | cut -c1)" = T ] && break; sleep 0.05; done
        ps -o stat= $p | cut -c1; ps -eo stat=,args= | grep '[s]leep 4244$' | grep -v sh | cut -c1
        kill -CONT $p; kill $p; wait $p 2>/dev/null; echo $?
      done
      \(tombolo) run --mode none -- sh -c 'trap "echo quiet" TSTP; trap "exit 5" TERM; echo up; while :; do sleep 0.05; done' > out & p=$!
      for i in $(seq 100); do grep -q up out && break; sleep 0.05; done
      kill -TSTP $p; for i in $(seq 100); do grep -q quiet out && break; sleep 0.05; done; sleep 0.3
      ps -o stat= $p | cut -c1; kill $p; wait $p; echo $?; cat out
      """, String(repeating: "T\nT\n143\n", count: 3) + "S\n5\nup\nquiet\n")
  }

  /// A window that changes its size while a slow reader has not had everything yet must not cost the rest.
  func testTheEndOfTheOutputSurvivesAWindowThatChanges() {
    check(
      """
      mkfifo pipe; \(tombolo) run --mode none -- sh -c 'yes | head -c 100000' > pipe & p=$!
      exec 3< pipe; read -rn1 first <&3; while pgrep -P $p tombolo-init >/dev/null; do sleep 0.05; done
      for s in WINCH CONT URG ALRM; do kill -$s $p; sleep 0.05; done; cat <&3 | wc -c; exec 3<&-; wait $p; echo $?; rm pipe
      """, "99999\n0\n")
  }
}
