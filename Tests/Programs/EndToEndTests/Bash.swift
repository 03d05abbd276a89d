import Foundation
import XCTest

/// What a command did.
struct Outcome {
  var status: Int32
  var output: String
  var errors: String
}

/// Runs bash with `script`, bounded in time by timeout(1).
///
/// By posix_spawn(3) and not by Foundation's Process, whose wait ends only when every descendant has closed the
/// descriptors it inherited, which a daemon never does.
@discardableResult
func bash(_ script: String, timeout: TimeInterval = 60, file: StaticString = #filePath, line: UInt = #line) -> Outcome {
  let base = "/tmp/tmb-bash-\(ProcessInfo.processInfo.processIdentifier)-\(UInt64.random(in: 0...UInt64.max))"
  let out = base + ".out"
  let err = base + ".err"
  defer {
    unlink(out)
    unlink(err)
  }
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
  posix_spawn_file_actions_addopen(&actions, 1, out, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  posix_spawn_file_actions_addopen(&actions, 2, err, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  let words = ["/usr/bin/timeout", "--kill-after=5", "\(timeout)", "bash", "-c", script]
  var argv: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
  defer { for word in argv { free(word) } }
  var pid: pid_t = 0
  let code = posix_spawn(&pid, words[0], &actions, nil, &argv, environ)
  guard code == 0 else {
    XCTFail("bash: errno \(code)", file: file, line: line)
    return Outcome(status: -1, output: "", errors: "")
  }
  var raw: Int32 = 0
  while waitpid(pid, &raw, 0) < 0, errno == EINTR {}
  let status = raw & 0x7f == 0 ? (raw >> 8) & 0xff : 128 + (raw & 0x7f)
  func text(_ path: String) -> String {
    String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
  }
  if status == 124 { XCTFail("took longer than \(timeout) s: \(script)", file: file, line: line) }
  return Outcome(status: status, output: text(out), errors: text(err))
}
