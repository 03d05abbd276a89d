import ArgumentParser
import Capabilities
import HostRights
import HostStatus
import LinuxSystem
import Seccomp

struct StatusCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "Show the enclaves that this machine is the host side of, and what has passed.",
    discussion: """
      Lists every running `tombolo run`, `tombolo host` and `tombolo boot` of this user (root's: also those of services \
      and of users who are logged in), or those that NAME names: a process id, an enclave's name, or its link in raw mode. \
      Ends with status 1 when NAME names none, or one does not answer.
      """)

  @Flag(help: "Print a JSON array, an object for each.")
  var json = false
  @Argument(help: ArgumentHelp("Only this one.", valueName: "name|pid"))
  var name: String?

  func run() throws {
    do {
      try show()
    } catch let code as ExitCode {
      throw code
    } catch {
      throw fail("\(error)", status: 1)
    }
  }

  /// What host sides say is read from here on. Root asks those of other users, in directories of theirs.
  private func reduceRights() throws {
    try HostRights.reduce(
      to: .status, keeping: .reachingOthers, becoming: nil, readable: StatusDirectory.all, removable: true,
      note: { _ in })
  }

  private func show() throws {
    try reduceRights()
    let outcome = try StatusQuery.run()
    for problem in outcome.problems { say(problem) }
    var shown = outcome.found
    if let name {
      shown = shown.filter { $0.answers(to: name) }
      guard !shown.isEmpty else {
        let others = outcome.found.map { "\($0.name) (pid \($0.pid))" }.joined(separator: ", ")
        let rest = others.isEmpty ? "none is running" : "running: \(others)"
        throw Misuse("no enclave here has the name, process id or link \"\(name)\"; \(HostStatus.printable(rest))")
      }
    }
    if json {
      print(try HostStatus.document(shown))
    } else if shown.isEmpty {
      print("No enclave is running here.")
    } else {
      print(shown.map(\.description).joined(separator: "\n"))
    }
    if !outcome.problems.isEmpty { throw ExitCode(1) }
  }
}
