import Foundation
import XCTest

/// What a program sees in an enclave is what it sees outside, but for what docs/differences.md lists. The scripts of
/// Tests/differences ask, compare, and end with status 1 where anything else differs.
final class DifferencesTests: XCTestCase {
  private static let scripts = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("differences").path

  private func check(_ script: String, file: StaticString = #filePath, line: UInt = #line) {
    let outcome = bash("\(Self.scripts)/\(script)", timeout: 300, file: file, line: line)
    XCTAssertEqual(outcome.status, 0, outcome.output + outcome.errors, file: file, line: line)
    print(outcome.output.split(separator: "\n").last.map(String.init) ?? "")
  }

  /// Results, errors, names, poll bits and time-outs of sockets, in each mode.
  func testSocketsAnswerAsOutside() { check("sockets") }

  /// Each case of docs/tcp-semantics.md directly, in both ways of TCP mode, and in raw mode.
  func testTheCasesOfTCPAreAsTheTableSays() { check("cases") }

  /// curl, wget, git, ssh, rsync, psql, redis-cli, Node, Java, Go and Python fetch, fall back and fail.
  func testClientsFetchFallBackAndFailAsOutside() { check("clients") }
}
