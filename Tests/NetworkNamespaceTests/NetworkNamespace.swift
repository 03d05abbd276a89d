import CLinux
import Foundation
import Testing

/// Runs `body` in a new network namespace; commands that it starts are in there too. The kernel removes the namespace
/// when the thread has gone back to its own and the last socket is closed, so nothing is left behind. Needs root.
///
/// The thread stays the same throughout, because tests that are not `async` have no place to suspend.
func inNetworkNamespace<T>(_ body: () throws -> T) throws -> T {
  let home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
  guard home >= 0 else { throw TestFailure("/proc/thread-self/ns/net: errno \(errno)") }
  defer { close(home) }
  guard unshare(CLONE_NEWNET) == 0 else { throw TestFailure("unshare(CLONE_NEWNET): errno \(errno); root?") }
  defer {
    // On this thread other tests will run; better none than one in the wrong namespace.
    if setns(home, CLONE_NEWNET) != 0 { fatalError("setns: errno \(errno)") }
  }
  return try body()
}

struct TestFailure: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// What a command prints on both its outputs; throws where it fails.
@discardableResult
func shell(_ command: String) throws -> String {
  guard let pipe = popen("exec 2>&1; \(command)", "re") else { throw TestFailure("popen \(command)") }
  var output = Data()
  var buffer = [UInt8](repeating: 0, count: 65536)
  while true {
    let count = fread(&buffer, 1, buffer.count, pipe)
    if count == 0 { break }
    output.append(contentsOf: buffer[..<count])
  }
  let text = String(decoding: output, as: UTF8.self)
  let status = pclose(pipe)
  guard status == 0 else { throw TestFailure("\(command): status \(status): \(text)") }
  return text
}

/// The list of objects that `ip -j` prints.
func json(_ command: String) throws -> [[String: Any]] {
  let text = try shell(command)
  let value = try JSONSerialization.jsonObject(with: Data(text.utf8))
  guard let list = value as? [[String: Any]] else { throw TestFailure("\(command) printed \(text)") }
  // iproute2 prints an empty object for every line that it has filtered out.
  return list.filter { !$0.isEmpty }
}
