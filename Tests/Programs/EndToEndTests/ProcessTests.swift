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

  /// As `cd` and `docker run -w`: from where the program would start otherwise.
  func testARelativeWorkingDirectory() {
    let outcome = bash(
      """
      mkdir -p \(directory)/wd/etc \(directory)/wd/srv/sub \(directory)/wd/bin; cd \(directory); cp /bin/busybox wd/bin
      cd /usr; \(tombolo) run --mode none -w share -- pwd; cd /; \(tombolo) run --mode none -w usr/share/.. -- pwd
      in="\(tombolo) run --mode none --rootfs \(directory)/wd"
      $in -w srv -- /bin/busybox pwd
      echo 'program.working_directory = "/srv"' > \(directory)/wd/etc/tombolo.toml; $in -w sub -- /bin/busybox pwd
      echo 'program.working_directory = "srv"' > \(directory)/wd/etc/tombolo.toml; $in -- /bin/busybox pwd; echo $?
      cd /usr; \(tombolo) run --mode none -w nosuch -- pwd; echo $?; \(tombolo) run --mode none -w '' -- pwd; echo $?
      """)
    XCTAssertEqual(outcome.output, "/usr/share\n/usr\n/srv\n/srv/sub\n125\n125\n125\n", outcome.errors)
    for sentence in [
      "tombolo.toml:1: program.working_directory: found \"srv\", expected an absolute path",
      "/usr/nosuch is not a directory of the enclave", "program.working_directory: found \"\", expected a path",
    ] { XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors) }
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

  // MARK: what is left

  /// Prints what stands in $TMPDIR, without the part of a name that is random each time.
  private static let inTemporaryDirectory = """
    export TMPDIR=\(World.directory)/temporary; mkdir -m 1777 $TMPDIR; cd $TMPDIR
    started() { for i in $(seq 200); do [ $(ls -d tombolo-??????/host/host_7766 2>/dev/null | wc -l) = $1 ] && break; sleep 0.05; done; }

    """

  func testTheNextRunRemovesWhatAKilledOneLeft() {
    let outcome = bash(
      Self.inTemporaryDirectory + """
        \(tombolo) run --mode none -- sleep 4245 & living=$!; started 1; kept=$(echo tombolo-*)
        (for i in 1 2; do \(tombolo) run --mode none -- sleep 4245 & dead="$dead $!"; done; started 3; kill -9 $dead; wait) 2>/dev/null
        ls -d tombolo-?????? | wc -l
        # A link in the dead one's directory leads to somewhere else.
        dead=$(ls -d tombolo-?????? | grep -v $kept | head -1); mkdir ../elsewhere; touch ../elsewhere/file
        ln -s $TMPDIR/../elsewhere $dead/link; mkdir -p "$dead/a/b"; touch "$dead/a/$(printf '\\xff')"
        \(tombolo) run --mode none -- true; echo "status $?"
        ls -d tombolo-?????? | sed "s/$kept/the living one/"; ls ../elsewhere; kill $living; wait $living; echo $?; ls
        cd ..; rm -r temporary elsewhere
        """)
    XCTAssertEqual(outcome.output, "3\nstatus 0\nthe living one\nfile\n143\n", outcome.errors)
  }

  /// What is not certainly a dead run of this user stays, whatever its name.
  func testNothingElseIsRemoved() {
    let outcome = bash(
      Self.inTemporaryDirectory + """
        mkdir ../target; touch ../target/lock ../target/file; ln -s ../target tombolo-alinks
        mkdir -m 700 tombolo-nolock; touch tombolo-nolock/file
        mkdir -m 755 tombolo-public; touch tombolo-public/lock
        mkdir -m 700 tombolo-fifola; mkfifo tombolo-fifola/lock
        mkdir -m 700 tombolo-linked; ln -s ../../target/lock tombolo-linked/lock
        mkdir -m 700 tombolo-others; touch tombolo-others/lock; chown -R 65534 tombolo-others
        mkdir -m 700 tombolo-locked; touch tombolo-locked/lock; mkdir -m 700 tombolo-toolong; touch tombolo-toolong/lock
        touch tombolo-afiles
        flock tombolo-locked/lock \(tombolo) run --mode none -- true; echo "status $?"
        ls | paste -sd' '; ls ../target | paste -sd' '
        \(tombolo) run --mode none -- true; ls -d tombolo-locked 2>/dev/null; cd ..; rm -r temporary target
        """)
    XCTAssertEqual(
      outcome.output,
      "status 0\ntombolo-afiles tombolo-alinks tombolo-fifola tombolo-linked tombolo-locked tombolo-nolock "
        + "tombolo-others tombolo-public tombolo-toolong\nfile lock\n", outcome.errors)
  }

  /// Many at once, some of which are killed: none takes another one's directory from under it.
  func testRunsThatStartTogetherLeaveEachOtherAlone() {
    let outcome = bash(
      Self.inTemporaryDirectory + """
        for round in 1 2 3; do
          pids=; for i in $(seq 8); do \(tombolo) run --mode none -- sh -c 'sleep 0.1; exit 7' & pids="$pids $!"
            \(tombolo) run --mode none -- sleep 4246 & doomed="$doomed $!"; done
          for p in $pids; do wait $p; echo $?; done; started 8; kill -9 $doomed; wait $doomed; doomed=
        done 2>/dev/null | sort | uniq -c | tr -s ' '
        \(tombolo) run --mode none -- true; ls | wc -l; cd ..; rm -r temporary
        """)
    XCTAssertEqual(outcome.output, " 24 7\n0\n", outcome.errors)
  }
}
