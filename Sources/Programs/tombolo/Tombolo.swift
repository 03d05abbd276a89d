import ArgumentParser
import CLinux
import Inet
import LinuxSystem
import SystemText
import Wire

@main
struct Tombolo: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tombolo",
    abstract: "Runs ordinary programs in enclaves, and is their other half on the host.",
    version: "tombolo \(tomboloVersion)",
    subcommands: [
      RunCommand.self, HostCommand.self, BootCommand.self, StatusCommand.self, CheckCommand.self, VerifyCommand.self,
      ImageCommand.self,
      VsockDeviceCommand.self,
    ])

  /// The parser's own `main` gives 64 (EX_USAGE) for words that it does not know; docker(1) gives 125, and so do we for
  /// every other mistake.
  static func main() {
    do {
      var command = try parseAsRoot(processArguments())
      try command.run()
    } catch {
      guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
      exit(withError: fail(usage: fullMessage(for: error)))
    }
  }
}

/// - Parameter usage: what is wrong and how it is written, as the parser says it.
private func fail(usage: String) -> ExitCode {
  _ = try? writeAll(2, Array((shownText(usage) + "\n").utf8))
  return ExitCode(125)
}

/// Ends with a sentence on stderr; `status` as docker(1) gives it: 125 for our own errors.
func fail(_ sentence: String, status: Int32 = 125) -> ExitCode {
  say(sentence)
  return ExitCode(status)
}
