import Foundation
import XCTest

/// The services of a whole enclave: in which order they come and go.
final class ServiceTests: XCTestCase {
  let run = World.run

  override class func setUp() { World.setUp(bigFile: false) }
  override class func tearDown() { World.tearDown() }

  /// A program that starts before its network is ready, or loses it before it has ended, fails in ways that depend on luck.
  func testTheProgramComesAfterTheProxyAndGoesBeforeIt() {
    let outcome = bash(
      """
      set -o pipefail
      \(run) -vv -- sh -c 'exit 3' 2>&1 | grep -oE 'the (proxy|program): (down|backoff|starting|up|ready|stopping|killed|finished|failed)$'
      """)
    XCTAssertEqual(
      outcome.output,
      """
      the proxy: starting
      the proxy: up
      the proxy: ready
      the program: starting
      the program: ready
      the program: finished
      the proxy: stopping
      the proxy: finished

      """, outcome.errors)
    XCTAssertEqual(outcome.status, 3)
  }
}
