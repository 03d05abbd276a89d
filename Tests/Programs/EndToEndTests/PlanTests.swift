import Foundation
import XCTest

/// What `--plan` prints is what a start does: an auditor who has read it knows the enclave.
final class PlanTests: XCTestCase {
  let directory = World.directory
  static let plans =
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("plans").path

  override class func setUp() { World.setUp(bigFile: false) }
  override class func tearDown() { World.tearDown() }

  /// The text of the plan of `plan`, and what `start` said in its log that it has done. The directories of a run have names
  /// of their own.
  private func compare(_ plan: String, _ start: String, file: StaticString = #filePath, line: UInt = #line) {
    let outcome = bash(
      """
      cd \(directory); mkdir -p tmp; export TMPDIR=\(directory)/tmp; chmod 1777 tmp
      same() { sed "s|\(directory)/tmp/[^/ ]*|DIRECTORY|g"; }
      { \(plan); } | same > planned; { \(start); } > started.out 2> started.err; echo "status $?"
      sed -n 's/.*debug: step: //p' started.err started.out | same > done
      diff planned done && grep -c . done
      ls tmp; cat started.err >&2
      """, timeout: 60)
    let lines = outcome.output.split(separator: "\n")
    XCTAssertEqual(lines.first, "status 3", outcome.output + outcome.errors, file: file, line: line)
    XCTAssertEqual(lines.count, 2, outcome.output + outcome.errors, file: file, line: line)
    XCTAssertGreaterThan(Int(lines.last ?? "") ?? 0, 15, outcome.output, file: file, line: line)
  }

  func testTheProgramPrintsTheGoldenPlans() {
    for kind in ["child", "kernel", "kernel-without-rootfs"] {
      let outcome = bash(
        """
        cd \(directory); printf '[program]\\nuser = "www-data"\\n[ingress]\\nports = [443, 80]\\n' > server.toml
        \(World.binaries)/tombolo-init --plan=\(kind) --config server.toml -- /bin/server -v | diff \(Self.plans)/\(kind).txt -
        """)
      XCTAssertEqual(outcome.output, "", kind)
    }
    let wrong = bash("\(World.binaries)/tombolo-init --plan=nitro")
    XCTAssertEqual(wrong.status, 125)
    XCTAssertTrue(
      wrong.errors.contains(
        "--plan: found \"nitro\", expected one of child, kernel, kernel-without-rootfs"), wrong.errors)
  }

  func testALocalEnclaveDoesWhatItsPlanSays() {
    bash("mkdir -p \(directory)/image/bin; cp /bin/busybox \(directory)/image/bin/sh")
    for options in ["", "--mode none", "--rootfs \(directory)/image", "--mode raw", "--mode raw --capture nfqueue"] {
      let words = "\(options) -- sh -c 'exit 3'"
      compare("\(World.run) --plan \(words)", "\(World.run) -v -v \(words)")
    }
  }

  func testALocalEnclaveWithoutRootDoesWhatItsPlanSays() {
    bash("install -m755 \(World.binaries)/tombolo \(World.binaries)/tombolo-init \(directory)")
    let run = "setpriv --reuid 1000 --regid 1000 --clear-groups \(directory)/tombolo run"
    compare("\(run) --plan --mode none -- sh -c 'exit 3'", "\(run) -v -v --mode none -- sh -c 'exit 3'")
  }

  func testUnderAnotherInitTheStartDoesWhatItsPlanSays() {
    let enclave = "\(World.binaries)/tombolo-init --config child.toml"
    compare(
      "printf '[network]\\ntransport = \"unix:\(directory)/tmp/c\"\\n[logs]\\nlevel = \"debug\"\\n' > child.toml; \(enclave) --plan -- sh -c 'exit 3'",
      """
      mkdir tmp/c; ip netns exec \(World.host) \(World.tombolo) host --transport unix:$PWD/tmp/c & h=$!
      for i in $(seq 50); do [ -S tmp/c/host_7766 ] && break; sleep 0.1; done
      unshare --net --mount --pid --fork --mount-proc \(enclave) -- sh -c 'exit 3'; s=$?
      sleep 0.3; kill $h; wait $h; rm -r tmp/c; (exit $s)
      """)
  }
}
