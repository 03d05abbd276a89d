import AttestationCalls
import Attesting
import CLinux
import EventLoop
import LinuxSystem
import Roles
import Seccomp
import Wire

// The attestation service: answers the program over HTTP with what /dev/nsm says. Started by tombolo-init, which hands it a
// document, the open device and listening sockets; what it may do is `RoleFilter.attestation`.

let help = """
  usage: tombolo-attest --version

  Gives programs of the enclave attestation documents and keys (docs/attestation.md). It stands beside tombolo-init, which starts it.

  """

/// What is said at once in one piece on standard error, which is the log.
func say(_ text: String) { try? writeAll(2, text.utf8, "standard error") }

/// Ends the process when it is told to.
final class StopSource: EventSource {
  private let signals: FileReference

  init(_ signals: FileReference) { self.signals = signals }

  override func ready(_ events: EventSet, tag: Int) { if nextSignal(signals) != nil { exit(0) } }
}

func serve() throws {
  setProcessName("tombolo-attest")
  // Where memory ends because of a flood, this goes, which is started again, and not the program. While /proc/self is still
  // ours.
  try? writeFile("/proc/self/oom_score_adj", "1000")
  try forbidInspection()
  ignoreBrokenPipes()
  let plan: AttestationPlan
  do {
    let document = OwnedFileDescriptor(3)
    plan = try AttestationPlan(document: try readToEnd(document.rawValue))
  }
  func file(_ number: UInt32) -> FileReference { FileReference(OwnedFileDescriptor(Int32(number))) }
  let loop = try EventLoop()
  let signals = try openSignals([SIGTERM])
  let stop = StopSource(signals)
  _ = try loop.add(signals.rawValue, [.readable], stop)
  let module: any ModuleDevice = plan.module.map { OpenModule(file($0)) } ?? ModuleInMemory()
  let listeners = plan.listeners.map(file)
  let keyFiles = plan.keys.map { BootKeys.File($0, file($0.file)) }
  let publicHalves = plan.publicHalves.map(file)
  if !keyFiles.isEmpty { try BootKeys.prepare() }
  // Before the first foreign byte is read. Kernels without Landlock have the other two.
  try forbidNewPrivileges()
  let documentFiles = plan.documentFiles.map(file)
  let hasDocument = !documentFiles.isEmpty
  try? restrictFiles(readable: hasDocument ? ["."] : [], replaceable: hasDocument, signalsOthers: false)
  if hasSystemCallFilters() {
    try confineSystemCalls(
      (hasDocument ? RoleFilter.attestationWithDocument : .attestation).instructions.map {
        sock_filter(code: $0.code, jt: $0.jumpTrue, jf: $0.jumpFalse, k: $0.value)
      })
  }
  try RuntimeMeasurement.record(plan.runtime, in: UInt16(clamping: plan.runtimeRegister), of: module)
  let keys = try publicHalves.map { try BootKeys.all(keyFiles, keptIn: $0, module) } ?? []
  let server = try AttestationServer(
    loop: loop, module: module, listeners: listeners,
    settings: .init(
      callers: plan.callers.map { Set($0) }, registers: Set(plan.registers.map { UInt16(clamping: $0) }),
      rate: Int(plan.rate), keys: keys)
  ) { say("attestation: \($0)\n") }
  let document =
    try hasDocument
    ? DocumentFile(
      loop: loop, module: module, publicKey: keys.first?.publicHalf, files: documentFiles,
      report: { say("attestation: \($0)\n") }) : nil
  let readiness = OwnedFileDescriptor(Int32(plan.readiness))
  try writeAll(readiness.rawValue, [UInt8(1)], "readiness pipe")
  try withExtendedLifetime((server, document, stop)) { try loop.run() }
}

do {
  switch processArguments().first {
  case "--handed": try serve()
  case "--version": try writeAll(1, "tombolo-attest \(tomboloVersion)\n".utf8)
  case "--help": try writeAll(1, help.utf8)
  default:
    say(help)
    exit(125)
  }
} catch {
  say("tombolo-attest: \(error)\n")
  exit(125)
}
