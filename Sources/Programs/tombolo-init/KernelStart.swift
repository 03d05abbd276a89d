import BootPlanning
import Booting
import CLinux
import EnclaveConfig
import LinuxSystem
import Wire

// The story of a boot.
//
//   console ▶ /proc, /dev, /sys, modules, entropy ▶ configuration ▶ /cmd and /env ▶ heartbeat ▶ host found, session
//   ▶ the plan ▶ root, mounts, clock ▶ network ▶ rights ▶ log, proxy, program ▶ … ▶ status reported, log drained
//   ▶ reboot or power-off
//
// A failure anywhere says its sentence on the console and, where the host can be reached, on the log channel, and ends
// the machine as configured: a panic says nothing that an operator can use.

/// Init of a kernel: of our own image, or in the place of nitro-cli's `init`.
enum KernelStart {
  /// A console that is a serial line needs a moment before the machine goes.
  private static let consoleMilliseconds = 50
  /// What is still mounted from a server that is away keeps what was written to it.
  private static let syncMilliseconds: Int32 = 5000

  static func run(_ signals: FileReference) -> Never {
    let discovery = Discovery(kernel: fileKind("/rootfs") == .directory)
    do {
      try discovery.prepare()
      let age = (monotonicNanoseconds() &- clinux_started_at()) / 1_000_000
      say("version \(tomboloVersion), started by the kernel \(age) ms ago")
      let start = Start(try discovery.find(), signals)
      try start.run { [end = discovery.configuration.boot.end] status in
        say("the program ended with status \(status)")
        finish(end)
      }
    } catch {
      say("\(error)")
      LastWords.deliver("\(error)", discovery.configuration)
    }
    finish(discovery.configuration.boot.end)
  }

  private static func say(_ sentence: String) { writeToStandardError("tombolo-init: \(sentence)\n") }

  private static func finish(_ end: Configuration.End) -> Never {
    syncFileSystems(within: syncMilliseconds)
    sleepMilliseconds(consoleMilliseconds)
    _ = clinux_reboot(end == .poweroff)
    // Without the right or a way to do it the machine stands still, but does not panic.
    while true { sleepMilliseconds(1000) }
  }
}
