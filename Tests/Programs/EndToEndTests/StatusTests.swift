import Foundation
import XCTest

/// `tombolo status` beside running enclaves. Each test has a directory of its own for the sockets, as users other than root
/// have, and one has root's.
final class StatusTests: XCTestCase {
  let tombolo = World.tombolo
  override class func setUp() { World.setUp(bigFile: false) }
  override class func tearDown() { World.tearDown() }

  /// A user, with the namespaces that users may have, and a directory for the sockets.
  static let prelude = """
    d=$(mktemp -d /var/tmp/tombolo-status-XXXXXX); chmod 755 $d; mkdir -m 700 $d/run; chown -R 65534 $d/run
    user="setpriv --reuid 65534 --regid 65534 --clear-groups"
    status() { XDG_RUNTIME_DIR=$d/run $user \(World.tombolo) status "$@"; }
    host() { mkdir -p $d/$1; chown 65534 $d/$1; (XDG_RUNTIME_DIR=$d/run exec $user \(World.tombolo) host --transport unix:$d/$1 2>>$d/log) & }
    listed() { for i in $(seq 100); do [ $(ls $d/run/tombolo 2>/dev/null | wc -l) = $1 ] && break; sleep 0.05; done; }

    """
  private func check(
    _ script: String, _ expected: String, errors: String = "", timeout: TimeInterval = 30,
    file: StaticString = #filePath, line: UInt = #line
  ) {
    let outcome = bash(Self.prelude + script + "\nrm -r $d", timeout: timeout, file: file, line: line)
    XCTAssertEqual(outcome.output, expected, outcome.errors, file: file, line: line)
    XCTAssertEqual(outcome.errors, errors, file: file, line: line)
  }

  func testNothingRuns() {
    check(
      "status; echo $?; status --json; echo $?; status web; echo $?",
      "No enclave is running here.\n0\n[\n\n]\n0\n1\n",
      errors: "tombolo: no enclave here has the name, process id or link \"web\"; none is running\n")
  }

  /// What an operator looks for: how many connections, how much, how many refused, whether names resolve.
  func testCountersOfARun() {
    let outcome = bash(
      """
      cd \(World.directory)
      ip netns exec \(World.host) \(tombolo) run --hostname counted --dns 10.9.0.2 -p 127.0.0.1:9393:80 -- sh -c '
        curl -sS http://10.9.0.2:8080/file; curl -s http://10.9.0.2:9/; getent hosts web.test | head -1; curl -s http://127.0.0.1:9/
        python3 -u -c "
      import socket
      keep = socket.create_connection((\\"10.9.0.2\\", 8080))
      s = socket.create_server((\\"127.0.0.1\\", 80)); print(\\"up\\"); c, _ = s.accept(); c.sendall(b\\"y\\" * 1000); c.close(); s.accept()"' > out & p=$!
      for i in $(seq 100); do grep -q up out && break; sleep 0.1; done
      for i in $(seq 100); do \(tombolo) status counted | grep -q "nothing listens" || break; sleep 0.05; done
      ip netns exec \(World.host) python3 -c 'import socket; c = socket.create_connection(("127.0.0.1", 9393)); print(len(c.makefile("rb").read()))'
      \(tombolo) status counted | sed "s/pid $p/pid P/; s/up .*/up/; s/unix:.*host,/unix:T,/; s/\\(bytes *\\)[0-9]* from the enclave, [0-9]* to/\\1A from, B to/; s/DNS .* queries/DNS N queries/; s/boot  *[0-9a-f]* *,/boot B,/; s/init [0-9.]*;/init V;/; s/policy  *[0-9a-f]\\{96\\}$/policy D/; s/[0-9]* × dns/N × dns/"
      \(tombolo) status --json $p | python3 -c '
      import json, sys
      [s] = json.load(sys.stdin); t = s["traffic"]
      print(s["command"], s["log_connected"], t["outgoing"], t["incoming"], 1000 <= t["bytes_from_enclave"] < 2000, 15 < t["bytes_to_enclave"] < 2000, s["names"]["queries"] > 0, "raw" in s)'
      \(tombolo) status counted2 2>&1 | grep -o "no enclave here.*running:"
      kill $p; wait $p; \(tombolo) status $p 2>/dev/null; echo $?
      """, timeout: 60)
    XCTAssertEqual(
      outcome.output,
      """
      1000
      counted (pid P): tombolo run, TCP mode, up
        transport  unix:T, the enclave is there
        boot B, tombolo-init V; proxy ready, program ready
        policy D
        published  127.0.0.1:9393 → 80
        out        1 open, 3 in all, 1 failed, 0 denied
        in         0 open, 1 in all, 0 failed
        bytes      A from, B to it
        DNS N queries, 0 failed, 0 under way
        used       2 × 10.9.0.2:8080
        used       1 × 10.9.0.2:9
        used       N × dns web.test
      run True {'denied': 0, 'failed': 1, 'open': 1, 'total': 3} {'failed': 0, 'open': 0, 'total': 1} True True True False
      no enclave here has the name, process id or link "counted2"; running:
      1

      """, outcome.errors)
  }

  /// Two of them side by side, one of which is killed: its socket stays behind, is not shown, and is taken away.
  func testAKilledHostIsNotListed() {
    check(
      """
      host one; p=$!; host two; q=$!; listed 2
      status | grep -o '^[a-z]* (pid'; status two | grep -c transport; stat -c %a $d/run/tombolo $d/run/tombolo/*
      kill -9 $p; wait $p 2>/dev/null; ls $d/run/tombolo | wc -l; status | grep -o '^[a-z]* (pid'; ls $d/run/tombolo | wc -l
      kill $q; wait $q; ls $d/run | wc -l; status
      """,
      "one (pid\ntwo (pid\n1\n700\n600\n600\n2\ntwo (pid\n1\n0\nNo enclave is running here.\n")
  }

  /// A process that is stopped, or is no host side at all, must not hold the list up.
  func testOneThatDoesNotAnswer() {
    check(
      """
      host one; p=$!; host two; q=$!; listed 2; kill -STOP $p
      status 2>$d/err | grep -o '^[a-z]* (pid'; echo "${PIPESTATUS[0]}"; sed 's/.*: did/did/' $d/err
      kill -CONT $p; kill $p $q; wait $p $q
      """, "two (pid\n1\ndid not answer in time\n")
  }

  /// Counters are nobody else's business: the socket is its user's and root's alone.
  func testOtherUsersAreNotAnswered() {
    check(
      """
      host one; p=$!; listed 1; chmod 711 $d/run $d/run/tombolo; chmod 666 $d/run/tombolo/*
      ask() { python3 -c 'import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(len(s.makefile("rb").read()) > 0)' "$@"; }
      setpriv --reuid 65533 --regid 65533 --clear-groups bash -c "$(declare -f ask); ask $(echo $d/run/tombolo/*)"
      ask $d/run/tombolo/*
      kill $p; wait $p
      """, "False\nTrue\n")
  }

  /// Somebody else's directory in /tmp is not trusted; the host side says so and works.
  func testADirectoryThatIsNotOurs() {
    check(
      """
      mkdir $d/t $d/t/tombolo-status-65534; mkdir -p $d/one; chown 65534 $d/one; chmod 777 $d/t
      unset XDG_RUNTIME_DIR; (TMPDIR=$d/t exec $user \(World.tombolo) host --transport unix:$d/one 2>$d/log) & p=$!
      for i in $(seq 50); do [ -S $d/one/host_7766 ] && break; sleep 0.1; done
      TMPDIR=$d/t $user \(World.tombolo) status
      sed "s#$d##" $d/log; kill $p; wait $p
      """,
      "No enclave is running here.\n"
        + "tombolo: the boots of enclaves cannot be kept, so a restart of this daemon will not know them: mkdir /t/tombolo-status-65534: Operation not permitted (EPERM)\n"
        + "tombolo: `tombolo status` will not list this enclave: mkdir /t/tombolo-status-65534: Operation not permitted (EPERM)\n"
    )
  }
}
