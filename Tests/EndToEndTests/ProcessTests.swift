import Foundation
import XCTest

/// What a program finds around its own process, and what becomes of the process that started it.
final class ProcessTests: XCTestCase {
  let tombolo = World.tombolo
  let run = World.run
  let directory = World.directory

  override class func setUp() { World.setUp(bigFile: false) }
  override class func tearDown() { World.tearDown() }

  // MARK: the program's user

  /// The usual web server of an image: it logs to its standard streams by name, and listens at port 80, without root.
  func testNginxWithoutRootLogsToItsStandardStreamsAndListensAtPort80() {
    let outcome = bash(
      """
      cd \(directory); cat > user.conf <<'X'
      daemon off; error_log /dev/stderr notice; pid /tmp/nginx.pid; worker_processes 1; events {}
      http { access_log /dev/stdout; client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3;
        uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5; server { listen 80; return 200 "served\\n"; } }
      X
      ip netns exec \(World.host) bash -c '
        \(tombolo) run -u www-data -p 127.0.0.1:9097:80 -- nginx -e /dev/stderr -c $PWD/user.conf >user.out 2>user.err & p=$!
        for i in $(seq 100); do [ -d /proc/$p ] || break; curl -s http://127.0.0.1:9097/name && break; sleep 0.1; done
        kill $p; wait $p; echo "status $?"'
      grep -o "GET /name.* 200" user.out; grep -o "start worker process [0-9]" user.err | head -1
      """)
    XCTAssertEqual(
      outcome.output, "served\nstatus 0\nGET /name HTTP/1.1\" 200\nstart worker process 4\n",
      outcome.errors + bash("cat \(directory)/user.err").output)
  }

  func testStandardInputCanBeOpenedByNameWithoutRoot() {
    XCTAssertEqual(bash("echo hello | \(run) -i -u www-data -- cat /dev/stdin").output, "hello\n")
    // What has a name outside keeps its owner, whatever the enclave's user is.
    let outcome = bash(
      """
      cd \(directory); mkfifo -m 600 fifo; echo hello > fifo & echo hello > file; chmod 600 file
      \(run) -i -u www-data -- cat < fifo; \(run) -i -u www-data -- cat < file; stat -c %U fifo file
      """)
    XCTAssertEqual(outcome.output, "hello\nhello\nroot\nroot\n", outcome.errors)
  }

  func testPort80IsForEveryUserWithAndWithoutRoot() {
    let listen = "python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 80)); print(\"listens\")'"
    for mode in ["tcp", "none"] {
      XCTAssertEqual(bash("\(run) --mode \(mode) -u www-data -- \(listen)").output, "listens\n")
    }
    let rootless = bash(
      """
      install -m755 \(World.binaries)/tombolo \(World.binaries)/tombolo-init \(directory); cd /
      setpriv --reuid 1000 --regid 1000 --clear-groups \(directory)/tombolo run --mode none -- cat /proc/sys/net/ipv4/ip_unprivileged_port_start
      """)
    XCTAssertEqual(rootless.output, "0\n", rootless.errors)
    XCTAssertTrue(
      bash("\(World.binaries)/tombolo-init --plan=kernel -- x").output
        .contains("\nsysctl net.ipv4.ip_unprivileged_port_start=0\n"))
  }

  // MARK: names and words

  /// `ps` and `top` tell an operator which process does what.
  func testProcessesHaveNames() {
    let outcome = bash("\(run) -- ps -eo pid=,comm=")
    XCTAssertEqual(
      outcome.output.split(separator: "\n").map { $0.split(separator: " ").joined(separator: " ") },
      ["1 tombolo-init", "2 tombolo-proxy", "3 ps"], outcome.errors)
  }

  /// A script tells "Tombolo could not" from what its program says by one status.
  func testWordsThatNobodyKnowsEndWith125() {
    for words in [
      "--nosuch", "nosuch", "run --nosuch", "run --mode udp -- true", "run -p", "host --nosuch", "host --port x",
      "boot --memory x", "status --nosuch", "image build --nosuch", "vsock-device",
    ] {
      let outcome = bash("\(tombolo) \(words)", timeout: 10)
      XCTAssertEqual(outcome.status, 125, words)
      XCTAssertTrue(outcome.errors.contains("Usage: tombolo"), "\(words): \(outcome.errors)")
      XCTAssertEqual(outcome.output, "", words)
    }
    for words in ["--help", "run --help", "help run", "--version", ""] {
      XCTAssertEqual(bash("\(tombolo) \(words)", timeout: 10).status, 0, words)
    }
  }

  // MARK: where the output goes

  /// A backup that was cut off must not look like one that was stopped: a sentence, and a status of our own.
  func testAnOutputThatTakesNoMoreIsSaid() {
    let sentence = "tombolo: standard output: No space left on device (ENOSPC)"
    for program in ["echo hi", "yes", "--log-format json -- echo hi"] {
      let outcome = bash(
        "\(tombolo) run --mode none \(program.hasPrefix("-") ? program : "-- " + program) > /dev/full; echo $?",
        timeout: 20)
      XCTAssertEqual(outcome.output, "125\n", program)
      XCTAssertTrue(outcome.errors.hasPrefix(sentence), "\(program): \(outcome.errors)")
    }
    let full = bash(
      """
      cd \(directory); mkdir -p small; mount -t tmpfs -o size=64k tombolo-small small; trap 'umount small' EXIT
      \(tombolo) run --mode none -- seq 100000 > small/log; echo $?
      ulimit -f 8; \(tombolo) run --mode none -- seq 100000 > small/../limited; echo $?
      """, timeout: 20)
    XCTAssertEqual(full.output, "125\n125\n", full.errors)
    let lines = full.errors.split(separator: "\n")
    XCTAssertEqual(lines.count, 2, full.errors)
    XCTAssertTrue(lines.first?.hasPrefix(sentence) == true, full.errors)
    XCTAssertTrue(lines.last?.hasPrefix("tombolo: standard output: File too large (EFBIG)") == true, full.errors)
    // Nobody reads what would be said of standard error; the status tells it.
    XCTAssertEqual(bash("\(tombolo) run --mode none -- sh -c 'echo x >&2' 2> /dev/full; echo $?").output, "125\n")
  }

  /// `| head -1` is no error of anybody's.
  func testAPipelineWhoseReaderGoesIsEndedWithoutAWord() {
    let outcome = bash("\(tombolo) run --mode none -- yes | head -1", timeout: 20)
    XCTAssertEqual(outcome.output, "y\n")
    XCTAssertEqual(outcome.errors, "")
  }
}
