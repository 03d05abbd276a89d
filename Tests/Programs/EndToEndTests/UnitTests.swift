import Foundation
import XCTest

/// The systemd unit of a host side, and its drop-ins, in the words of systemd itself.
final class UnitTests: XCTestCase {
  static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("rootfs").path

  /// The exposure that systemd-analyze(1) finds in a unit, from 0 to 10. A drop-in's lines count as if they stood behind the
  /// unit's (systemd.unit(5)).
  func exposure(_ files: [String]) -> Double? {
    let outcome = bash(
      """
      cd $(mktemp -d); trap 'rm -r "$PWD"' EXIT
      for f in \(files.joined(separator: " ")); do cat "\(Self.folder)/$f"; echo; done > tombolo-host@.service
      systemd-analyze security --offline=true --no-pager tombolo-host@.service | grep -o 'exposure level.*: [0-9.]*' | grep -o '[0-9.]*$'
      """, timeout: 30)
    return Double(outcome.output.trimmingCharacters(in: .whitespacesAndNewlines))
  }

  func testADaemonInOtherHandsHasLittleOfTheMachine() throws {
    XCTAssertLessThanOrEqual(try XCTUnwrap(exposure(["tombolo-host@.service"])), 1.5)
    XCTAssertLessThanOrEqual(try XCTUnwrap(exposure(["tombolo-host@.service", "tombolo-host-ports.conf"])), 2.0)
    XCTAssertLessThanOrEqual(try XCTUnwrap(exposure(["tombolo-host@.service", "tombolo-host-raw.conf"])), 3.0)
  }

  /// A key that this systemd does not know would be passed over, and what it was to forbid would be allowed.
  func testEveryLineIsUnderstood() {
    for files in [[], ["tombolo-host-ports.conf"], ["tombolo-host-raw.conf"]] {
      let outcome = bash(
        """
        cd $(mktemp -d); trap 'rm -r "$PWD"' EXIT
        for f in tombolo-host@.service \(files.joined(separator: " ")); do cat "\(Self.folder)/$f"; echo; done | sed 's|/usr/local/bin/tombolo|/bin/true|' > tombolo-host@.service
        systemd-analyze verify --man=no ./tombolo-host@.service 2>&1 | grep tombolo-host
        """, timeout: 30)
      XCTAssertEqual(outcome.output, "", "\(files)")
    }
  }

  /// The socket unit is the service's of the same instance.
  func testTheSocketUnitIsUnderstood() {
    let outcome = bash(
      """
      cd $(mktemp -d); trap 'rm -r "$PWD"' EXIT
      sed 's|/usr/local/bin/tombolo|/bin/true|' "\(Self.folder)/tombolo-host@.service" > tombolo-host@16.service
      cp "\(Self.folder)/tombolo-host@.socket" tombolo-host@16.socket
      systemd-analyze verify --man=no ./tombolo-host@16.socket ./tombolo-host@16.service 2>&1 | grep tombolo-host; true
      """, timeout: 30)
    XCTAssertEqual(outcome.output, "")
  }

  func testWhatTheUnitLimits() {
    let unit = try? String(contentsOfFile: Self.folder + "/tombolo-host@.service", encoding: .utf8)
    for line in ["IPAddressDeny=link-local multicast", "MemoryMax=", "TasksMax=", "LogRateLimitBurst="] {
      XCTAssertTrue(unit?.contains("\n\(line)") == true, line)
    }
  }
}
