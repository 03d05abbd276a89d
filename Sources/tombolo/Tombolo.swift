import ArgumentParser
import CLinux
import Inet
import LinuxSystem

@main
struct Tombolo: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tombolo",
    abstract: "Runs ordinary programs in enclaves, and is their other half on the host.",
    version: "tombolo \(tomboloVersion)",
    subcommands: [
      RunCommand.self, HostCommand.self, BootCommand.self, StatusCommand.self, ImageCommand.self,
      VsockDeviceCommand.self,
    ])
}

/// Ends with a sentence on stderr; `status` as docker(1) gives it: 125 for our own errors.
func fail(_ sentence: String, status: Int32 = 125) -> ExitCode {
  _ = try? writeAll(2, Array("tombolo: \(sentence)\n".utf8))
  return ExitCode(status)
}
