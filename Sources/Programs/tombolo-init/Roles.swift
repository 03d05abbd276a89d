import BootPlanning
import Booting
import CLinux
import EventLoop
import LinuxSystem
import Mounting
import Proxying
import Seccomp
import SystemText
import Volumes

/// `--plan`: what a start would do.
enum PlanRole {
  static func run(_ kind: InitArguments.PlanKind, _ arguments: InitArguments) throws {
    let facts = try Discovery.outline(kind, arguments, try arguments.localDescriptor.map(readLocalDocument))
    try writeAll(1, (shownText(StartPlan.text(facts)) + "\n").utf8)
  }
}

func readLocalDocument(_ fd: Int32) throws -> LocalDocument.Content {
  let file = OwnedFileDescriptor(fd)
  guard let content = LocalDocument.decode(try readFile("/proc/self/fd/\(file.rawValue)")) else {
    throw InitArguments.Misuse(description: "--local: not what `tombolo run` writes")
  }
  return content
}

/// The networking proxy; started by PID 1, with its descriptors open.
enum ProxyRole {
  static func run() throws {
    setProcessName("tombolo-proxy")
    // Where memory ends because of a flood, the proxy goes, which is started again, and not the program. While /proc/self is
    // still ours.
    try? writeFile("/proc/self/oom_score_adj", "1000")
    try forbidInspection()
    ignoreBrokenPipes()
    let plan = try ProxyPlan(document: handedDocument())
    let loop = try EventLoop(spin: EventLoop.dataSpin)
    let signals = try openSignals([SIGTERM, SIGUSR1, SIGUSR2])
    let proxy = try EnclaveProxy(plan, loop: loop) { writeToStandardError($0 + "\n") }
    let stop = SignalSource(signals) { [proxy] signal in
      switch signal {
      case SIGUSR1: proxy.report()
      case SIGUSR2: proxy.drain()
      default: exit(0)
      }
    }
    _ = try loop.add(signals.rawValue, [.readable], stop)
    try confine(.proxy)
    if let ready = plan.descriptors.readiness { try proxy.announceReadiness(on: ready) }
    try withExtendedLifetime(proxy) { try loop.run() }
  }
}

/// The process of one mount that needs the network; started by PID 1.
enum MountRole {
  private static let readinessDescriptor: Int32 = 4

  static func run() throws {
    setProcessName("tombolo-mount")
    try forbidInspection()
    ignoreBrokenPipes()
    let work = try MountWork(document: handedDocument())
    let ready = FileReference(OwnedFileDescriptor(readinessDescriptor))
    try confine(.volume)
    try VolumeKeeper(work, ready: ready) { writeToStandardError($0 + "\n") }.run()
  }
}

/// Gives up every system call that the role does not need, before the first foreign byte is read.
func confine(_ role: RoleFilter) throws(SystemError) {
  guard hasSystemCallFilters() else {
    return writeToStandardError("this kernel has no filters of system calls (CONFIG_SECCOMP_FILTER)\n")
  }
  try confineSystemCalls(
    role.instructions.map { sock_filter(code: $0.code, jt: $0.jumpTrue, jf: $0.jumpFalse, k: $0.value) })
}

/// What PID 1 has handed over; nobody else can read it any more when this returns.
private func handedDocument() throws(SystemError) -> [UInt8] {
  let file = OwnedFileDescriptor(ProxyHandOver.documentDescriptor)
  return try readToEnd(file.rawValue)
}

/// Calls with each signal.
final class SignalSource: EventSource {
  private let signals: FileReference
  private let received: (Int32) -> Void

  init(_ signals: FileReference, _ received: @escaping (Int32) -> Void) {
    self.signals = signals
    self.received = received
  }

  override func ready(_ events: EventSet, tag: Int) {
    while let signal = nextSignal(signals) { received(signal) }
  }
}
