import BootPlanning
import Booting
import CLinux
import EnclaveConfig
import Inet
import LinuxSystem
import Logging

// The story of a boot.
//
//   console ▶ /proc, /dev, /sys, modules ▶ configuration ▶ heartbeat ▶ /cmd and /env ▶ root, mounts, entropy, clock
//   ▶ network ▶ host found ▶ log, proxy, program ▶ … ▶ status reported, log drained ▶ reboot or power-off
//
// A failure anywhere says its sentence on the console and ends the machine as configured: a panic says nothing that an
// operator can use.

/// Init of a kernel: of our own image, or in the place of nitro-cli's `init`.
enum KernelStart {
  /// A console that is a serial line needs a moment before the machine goes.
  private static let consoleMilliseconds = 50

  static func run(_ arguments: InitArguments, _ signals: FileHandle) throws {
    var end = Configuration.End.reboot
    do {
      var notes: [(Logger.Level, String)] = []
      try BootRunner.run(BootPlan.early) { notes.append((.info, $0)) }
      let age = (monotonicNanoseconds() &- clinux_started_at()) / 1_000_000
      say("version \(tomboloVersion), started by the kernel \(age) ms ago")
      let hasRootfs = fileKind("/rootfs") == .directory
      var configuration = try readConfiguration(KernelArguments.own(arguments), root: hasRootfs ? "/rootfs" : "")
      end = configuration.boot.end
      if configuration.boot.heartbeat != .never {
        try ParentSearch.beat(cid: configuration.parentCID, timeout: configuration.boot.heartbeatTimeout)
      }
      try applyContract(&configuration)
      var role = EnclaveRole(KernelArguments.own(arguments), .kernel(hasRootfs: hasRootfs), nil, signals)
      try role.run(known: configuration, notes: notes) { [end] status in
        say("the program ended with status \(status)")
        finish(end)
      }
    } catch {
      say("\(error)")
    }
    finish(end)
  }

  private static func say(_ sentence: String) { writeToStandardError("tombolo-init: \(sentence)\n") }

  private static func finish(_ end: Configuration.End) -> Never {
    syncFileSystems()
    sleepMilliseconds(consoleMilliseconds)
    _ = clinux_reboot(end == .poweroff)
    // Without the right or a way to do it the machine stands still, but does not panic.
    while true { sleepMilliseconds(1000) }
  }

  /// `/cmd` and `/env` of AWS's first ramdisk: one entry a line, read and removed. What the configuration says wins,
  /// except that it need not say anything.
  private static func applyContract(_ configuration: inout Configuration) throws {
    let command = try takeLines("/cmd")
    if configuration.program.command.isEmpty {
      if command?.isEmpty == true { throw BadContract(description: "/cmd is empty: there is no program to start") }
      configuration.program.command = command ?? []
    }
    for entry in try takeLines("/env") ?? [] {
      guard let equals = entry.firstIndex(of: "="), equals != entry.startIndex else {
        throw BadContract(description: "/env: found \"\(entry)\", expected KEY=VALUE")
      }
      let name = String(entry[..<equals])
      if configuration.program.environment[name] == nil {
        configuration.program.environment[name] = String(entry[entry.index(after: equals)...])
      }
    }
  }

  private static func takeLines(_ path: String) throws(SystemError) -> [String]? {
    guard fileKind(path) != nil else { return nil }
    let text = try readText(path)
    removeFile(path)
    return text.split(separator: "\n").map(String.init)
  }

  private struct BadContract: Error, CustomStringConvertible {
    var description: String
  }
}

/// What a kernel's command line leaves for init: words that the kernel does not know, such as AWS's `nomodules`, and
/// nothing that anybody meant for us.
enum KernelArguments {
  static func own(_ arguments: InitArguments) -> InitArguments {
    var own = arguments
    own.command = []
    return own
  }
}
