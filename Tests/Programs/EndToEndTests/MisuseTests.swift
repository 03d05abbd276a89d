import Foundation
import XCTest

/// What goes wrong is said in a sentence, ends with a status, and leaves nothing behind.
final class MisuseTests: XCTestCase {
  let tombolo = World.tombolo

  /// What a run that was killed has left goes with the next start: now, and not between two looks at what is there.
  override class func setUp() { bash("\(World.tombolo) run --mode none -- true") }

  /// Everything that an enclave makes on the host. A zombie is nothing of it: the init of a `tombolo run` that was killed
  /// waits for the machine's own PID 1 to reap it.
  func leftovers() -> String {
    bash(
      "ls -d /tmp/tombolo-?????? 2>/dev/null; ps -eo stat=,args= | grep '[t]ombolo-init' | grep -v ^Z; grep tombolo /proc/self/mountinfo"
    ).output
  }

  func testMistakesAreSaidAndLeaveNothing() {
    let before = leftovers()
    let config = "/tmp/tmb-misuse-\(World.id).toml"
    let cases: [(setup: String, arguments: String, status: Int32, sentence: String)] = [
      (
        "printf '[network]\\nmode = \"udp\"' > \(config)", "--config \(config) -- true", 125,
        "\(config):2: network.mode: found \"udp\", expected"
      ),
      ("printf '[program]\\nusr = \"x\"' > \(config)", "--config \(config) -- true", 125, "program.usr: unknown key"),
      ("printf 'a = ' > \(config)", "--config \(config) -- true", 125, "not TOML"),
      ("true", "--config /no/such -- true", 125, "open /no/such: No such file or directory (ENOENT)"),
      ("true", "-u nosuchuser -- true", 125, "user \"nosuchuser\" is not in the enclave's /etc/passwd"),
      ("true", "-w /nosuch -- true", 125, "program.working_directory: /nosuch is not a directory of the enclave"),
      ("true", "-p 80 -- true", 125, "-p: found \"80\", expected [ADDR:]HOSTPORT:ENCLAVEPORT"),
      ("true", "-e =x -- true", 125, "-e: found \"=x\", expected KEY=VALUE"),
      ("true", "--dns example.com -- true", 125, "--dns: found \"example.com\", expected an IP address"),
      ("true", "--dns-search 'a b' -- true", 125, "dns.search: found \"a b\", expected a domain name"),
      ("true", "--dns-option ndots:99 -- true", 125, "dns.options: found \"ndots:99\", expected an option"),
      ("true", "--rootfs /no/such -- true", 125, "--rootfs: /no/such is not a directory"),
      ("true", "--hostname 'a b' -- true", 125, "hostname: found \"a b\", expected a host name"),
      ("true", "--", 127, "no program: [program] command is empty"),
      ("true", "--nosuch -- true", 125, "Unknown option '--nosuch'"),
    ]
    for (setup, arguments, status, sentence) in cases {
      let outcome = bash("\(setup); \(tombolo) run \(arguments)", timeout: 15)
      XCTAssertEqual(outcome.status, status, "\(arguments): \(outcome.errors)")
      XCTAssertTrue(outcome.errors.contains(sentence), "\(arguments): \(outcome.errors)")
    }
    bash("rm -f \(config)")
    XCTAssertEqual(leftovers(), before)
  }

  func testAPortThatIsTakenIsSaid() {
    let before = leftovers()
    let outcome = bash(
      """
      python3 -c 'import socket,time; s=socket.socket(); s.bind(("127.0.0.1",18099)); s.listen(); time.sleep(5)' & p=$!
      sleep 0.5; \(tombolo) run -p 127.0.0.1:18099:80 -- true; echo $?; kill $p
      """)
    XCTAssertEqual(outcome.output, "125\n")
    XCTAssertTrue(outcome.errors.contains("port 18099 is already taken on this machine"), outcome.errors)
    XCTAssertEqual(leftovers(), before)
  }

  func testMissingRightIsNamed() {
    // Root without CAP_SYS_ADMIN, as in a container.
    let outcome = bash("capsh --drop=cap_sys_admin -- -c '\(tombolo) run -- true'; echo $?")
    XCTAssertEqual(outcome.output, "125\n")
    XCTAssertTrue(outcome.errors.contains("CAP_SYS_ADMIN"), outcome.errors)
  }

  /// SIGKILL to the host side in the middle: init and everything in its namespaces goes with it.
  func testAKilledHostLeavesNoProcess() {
    let outcome = bash(
      """
      export TMPDIR=$(mktemp -d); \(tombolo) run -- sleep 4242 & p=$!; sleep 0.7; ps -eo args= | grep -c '[s]leep 4242'
      kill -9 $p; sleep 0.5; ps -eo args= | grep -c '^[s]leep 4242'; rm -rf $TMPDIR
      """)
    XCTAssertEqual(outcome.output.split(separator: "\n").last, "0", outcome.output)
  }

  /// A stream that speaks something else ends with a sentence, and the host goes on serving.
  func testGarbageFromTheEnclaveEndsItsStreamOnly() {
    let outcome = bash(
      """
      d=$(mktemp -d); \(tombolo) host --transport unix:$d -v 2>$d/log & p=$!
      for i in $(seq 50); do [ -S $d/host_7766 ] && break; sleep 0.1; done
      python3 - $d <<'X'
      import socket, sys
      proof = b"p" * 32
      def ask(b, keep=[]):
          s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1] + "/host_7766"); s.sendall(b); keep.append(s)
          try: return s.recv(100).hex()
          except ConnectionResetError: return "reset"
      ask(b"TMBL\\x02\\x06\\0\\x84" + b"s" * 32 + bytes(15) + b"\\1" + proof + b"h" * 32 + bytes(48) + b"test")
      print(ask(b"GET / HTTP/1.1\\r\\n\\r\\n"))
      print(ask(b"TMBL\\x01\\x01\\0\\0"))
      print(ask(b"TMBL\\x02\\x01\\xff\\xff"))
      print(ask(b"TMBL\\x02\\x63\\0\\0" + proof))
      print(ask(b"TMBL\\x02\\x01\\0\\0" + proof))
      print(ask(b"TMBL\\x02\\x01\\0\\x0a" + proof + bytes.fromhex("0400167f000001000000")))
      print(ask(b"TMBL\\x02\\x02\\0\\0" + proof))
      X
      kill $p; wait $p; echo $?; cat $d/log; ls $d; rm -r $d
      """)
    let lines = outcome.output.split(separator: "\n").map(String.init)
    // bad request four times, bad request for an empty connect, denied for the host's loopback, ok
    XCTAssertEqual(
      Array(lines.prefix(8)),
      Array(repeating: "544d424c02080000", count: 5) + ["544d424c02050000", "544d424c02000000", "0"], outcome.output)
    for sentence in [
      "found the magic 47 45 54 20", "found protocol version 1", "found parameters of 65535 bytes", "found channel 99",
      "message ends too early",
      "connection to 127.0.0.1:22 denied: built-in rule \"host\": it is an address of this machine",
    ] {
      XCTAssertTrue(outcome.output.contains(sentence), "\(sentence): \(outcome.output)")
    }
    XCTAssertEqual(lines.last, "log")
  }

  /// A daemon with the wrong words would serve nobody, or somebody else's enclave.
  func testTheHostSidesWords() {
    for (words, sentence) in [
      ("", "expected exactly one of --cid, --hybrid and --transport"),
      ("--cid 2", "--cid: found \"2\", expected \"any\", 1 or a number from 3 to 4294967294"),
      ("--cid 16 --port 0", "--port: found 0, expected 1 to 4294967294"),
      ("--cid any -p 8080:80", "-p: with --cid any it is not known which enclave a port belongs to"),
      ("--transport unix:/tmp --port 7767", "--port is for --cid and --hybrid"),
    ] {
      let outcome = bash("\(tombolo) host \(words)", timeout: 10)
      XCTAssertEqual(outcome.status, 125, words + outcome.errors)
      XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors)
    }
  }

  func testHelpAndVersionNeedNoRights() {
    for command in [
      "tombolo --help", "tombolo run --help", "tombolo host --help", "tombolo status --help", "tombolo --version",
      "tombolo-init --help",
      "tombolo-init --version",
    ] {
      let outcome = bash(
        "setpriv --reuid 65534 --regid 65534 --clear-groups bash -c 'exec 0</dev/null; cd /; exec \"$0\" $1' <(:) 2>/dev/null; \(World.binaries)/\(command)"
      )
      XCTAssertEqual(outcome.status, 0, command)
      XCTAssertFalse(outcome.output.isEmpty, command)
    }
  }

  func testThePlanNeedsNoRights() {
    let outcome = bash("\(World.binaries)/tombolo-init --plan -- /bin/server")
    XCTAssertTrue(outcome.output.contains("redirect to :61001"), outcome.output)
    XCTAssertTrue(outcome.output.hasSuffix("start as root: /bin/server\n"), outcome.output)
    let wrong = bash("\(World.binaries)/tombolo-init --nosuch")
    XCTAssertEqual(wrong.status, 125)
    XCTAssertTrue(wrong.errors.contains("unknown option --nosuch"), wrong.errors)
  }
}
