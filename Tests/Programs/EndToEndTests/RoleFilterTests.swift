import Foundation
import XCTest

/// The proxy in other hands: what it is made to ask the kernel for ends it, is named in the log, and PID 1 starts another.
final class RoleFilterTests: XCTestCase {
  override class func setUp() {
    World.setUp(bigFile: false)
    bash(SystemCallInjection.setUp)
  }
  override class func tearDown() { World.tearDown() }

  func testAForbiddenCallEndsTheProxyAndIsNamed() {
    for mode in ["tcp", "raw", "raw --capture nfqueue"] {
      let outcome = bash(
        """
        cd \(World.directory); rm -f go; mkfifo go
        \(World.run) -i --mode \(mode) -- sh -c '
          for p in $(cd /proc; ls -d [0-9]*); do grep -qE "tombolo-(proxy|keeper)" /proc/$p/comm && grep -hE "^(NoNewPrivs|Seccomp|CapEff):" /proc/$p/status | xargs; done
          read x; curl -sS http://10.9.0.2:8080/file' < go > role.out 2> role.err & r=$!
        exec 4> go; for i in $(seq 100); do grep -q Seccomp role.out && break; sleep 0.1; done
        init=$(pgrep -P $r tombolo-init); proxy=$(pgrep -P $init tombolo-proxy); \(World.python) inject.py $proxy 59
        for i in $(seq 100); do new=$(pgrep -P $init tombolo-proxy); [ -n "$new" ] && [ "$new" != "$proxy" ] && break; sleep 0.1; done
        sleep 0.5; echo >&4; exec 4>&-; wait $r; echo "status $?"; cat role.out; grep -o "a system call that.*" role.err; grep -o "the proxy exited with status 159; starting it again" role.err
        """, timeout: 60)
      let filtered = "CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2\n"
      let keeper = "CapEff: 0000000000001000 NoNewPrivs: 1 Seccomp: 2\n"
      XCTAssertEqual(
        outcome.output,
        "status 0\n" + (mode.contains("nfqueue") ? keeper : "") + filtered
          + "content-of-file\na system call that this process must not make: execve (59)\n"
          + "the proxy exited with status 159; starting it again\n", mode + outcome.errors)
    }
  }
}
