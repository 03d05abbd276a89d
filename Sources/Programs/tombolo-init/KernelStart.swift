import BootPlanning
import Booting
import CLinux
import Digests
import EnclaveConfig
import Inet
import LinuxSystem
import Logging
import SystemText
import Wire

// The story of a boot.
//
//   console ▶ /proc, /dev, /sys, modules ▶ configuration ▶ heartbeat ▶ /cmd and /env ▶ root, mounts, entropy, clock
//   ▶ network ▶ host found ▶ log, proxy, program ▶ … ▶ status reported, log drained ▶ reboot or power-off
//
// A failure anywhere says its sentence on the console and, where the host can be reached, on the log channel, and ends
// the machine as configured: a panic says nothing that an operator can use.

/// Init of a kernel: of our own image, or in the place of nitro-cli's `init`.
enum KernelStart {
  /// A console that is a serial line needs a moment before the machine goes.
  private static let consoleMilliseconds = 50

  static func run(_ arguments: InitArguments, _ signals: FileHandle) throws {
    var configuration = Configuration()
    do {
      var notes: [EarlyNote] = []
      try BootRunner.run(BootPlan.early) { notes.append(EarlyNote(sentence: $0)) }
      let age = (monotonicNanoseconds() &- clinux_started_at()) / 1_000_000
      say("version \(tomboloVersion), started by the kernel \(age) ms ago")
      let root = fileKind("/rootfs") == .directory ? "/rootfs" : ""
      var digest = ConfigurationDigest()
      configuration = try readConfiguration(KernelArguments.own(arguments), root: root, digest: &digest)
      if configuration.boot.heartbeat != .never {
        try ParentSearch.beat(cid: configuration.parentCID, timeout: configuration.boot.heartbeatTimeout)
      }
      try applyContract(&configuration, &digest)
      try unwrap(&configuration, &digest, root: root)
      var role = EnclaveRole(KernelArguments.own(arguments), .kernel(hasRootfs: !root.isEmpty), nil, signals)
      try role.run(known: (configuration, digest), notes: notes) { [end = configuration.boot.end] status in
        say("the program ended with status \(status)")
        finish(end)
      }
    } catch {
      say("\(error)")
      LastWords.deliver("\(error)", configuration)
    }
    finish(configuration.boot.end)
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
  private static func applyContract(
    _ configuration: inout Configuration, _ digest: inout ConfigurationDigest
  ) throws {
    let command = try takeLines("/cmd")
    if configuration.program.command.isEmpty {
      if command?.isEmpty == true { throw BadContract(description: "/cmd is empty: there is no program to start") }
      configuration.program.command = command ?? []
    }
    for word in command ?? [] { digest.add(systemBytes(word)) }
    for entry in try takeLines("/env") ?? [] {
      digest.add(systemBytes(entry))
      guard let equals = entry.utf8.firstIndex(of: UInt8(ascii: "=")), equals != entry.startIndex else {
        throw BadContract(description: "/env: found \"\(entry)\", expected KEY=VALUE")
      }
      let name = String(entry[..<equals])
      if configuration.program.environment[name] == nil {
        configuration.program.environment[name] = String(entry[entry.utf8.index(after: equals)...])
      }
    }
  }

  /// An image whose ENTRYPOINT is tombolo-init, as docs/boot.md has it for nitro-cli: what that one would do is done
  /// already, by us, and of its command line the program and `--config` count.
  private static func unwrap(
    _ configuration: inout Configuration, _ digest: inout ConfigurationDigest, root: String
  ) throws {
    guard let first = configuration.program.command.first, first == "tombolo-init" || first.hasSuffix("/tombolo-init")
    else {
      return
    }
    let entrypoint = try InitArguments(Array(configuration.program.command.dropFirst()))
    guard entrypoint.role == .enclave else { return }
    let known = configuration.program
    if entrypoint.configurationPath != nil {
      configuration = try readConfiguration(entrypoint, root: root, digest: &digest)
      for (name, value) in known.environment where configuration.program.environment[name] == nil {
        configuration.program.environment[name] = value
      }
      if configuration.program.user == nil { configuration.program.user = known.user }
      if configuration.program.workingDirectory == nil {
        configuration.program.workingDirectory = known.workingDirectory
      }
    } else {
      configuration.program.command = entrypoint.command
    }
  }

  /// Any bytes but the NUL, which no argument can have.
  private static func takeLines(_ path: String) throws -> [String]? {
    guard fileKind(path) != nil else { return nil }
    let bytes = try readFile(path)
    removeFile(path)
    guard !bytes.contains(0) else { throw BadContract(description: "\(path): found a NUL byte, expected none") }
    return bytes.split(separator: UInt8(ascii: "\n")).map(systemText)
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
