import CLinux
import Foundation
import Testing

/// A network namespace with no name: the kernel removes it when nothing uses it any more, however the tests end. Needs
/// root.
final class NetworkNamespace {
  private let fd: Int32

  /// The one that the thread is in.
  private init(ofThisThread: Void) throws {
    fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
    guard fd >= 0 else { throw TestFailure("/proc/thread-self/ns/net: errno \(errno)") }
  }

  deinit { close(fd) }

  /// A new one.
  static func make() throws -> NetworkNamespace {
    let home = try NetworkNamespace(ofThisThread: ())
    guard unshare(CLONE_NEWNET) == 0 else { throw TestFailure("unshare(CLONE_NEWNET): errno \(errno); root?") }
    defer { home.enter() }
    return try NetworkNamespace(ofThisThread: ())
  }

  /// Runs `body` in the namespace; commands that it starts are in there too. The thread stays the same throughout: tests
  /// that are not `async` have no place to suspend.
  @discardableResult
  func run<T>(_ body: () throws -> T) throws -> T {
    let home = try NetworkNamespace(ofThisThread: ())
    enter()
    defer { home.enter() }
    return try body()
  }

  /// What ip(8) takes after `netns`.
  var path: String { "/proc/\(getpid())/fd/\(fd)" }

  private func enter() {
    // On this thread other tests will run; better none than one in the wrong namespace.
    if setns(fd, CLONE_NEWNET) != 0 { fatalError("setns: errno \(errno)") }
  }
}

/// Runs `body` in a new network namespace.
@discardableResult
func inNetworkNamespace<T>(_ body: () throws -> T) throws -> T {
  try NetworkNamespace.make().run(body)
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
