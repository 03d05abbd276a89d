import CLinux
import DNSClient
import EventLoop
import LinuxSystem
import Roles
import Seccomp
import Wire

// The DNS client: asks the servers of `dns.upstream`, in a program of its own because the TLS in it is a library's. Started by
// tombolo-init, which hands it a document and two descriptors; what it may do is `RoleFilter.dnsClient`.

let help = """
  usage: tombolo-dns --version

  Asks the name servers of dns.upstream (docs/policy.md). It stands beside tombolo-init, which starts it.

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
  setProcessName("tombolo-dns")
  // Where memory ends because of a flood, this goes, which is started again, and not the program. While /proc/self is still
  // ours.
  try? writeFile("/proc/self/oom_score_adj", "1000")
  try forbidInspection()
  ignoreBrokenPipes()
  let plan: UpstreamPlan
  do {
    let document = OwnedFileDescriptor(3)
    plan = try UpstreamPlan(document: try readToEnd(document.rawValue))
  }
  let roots = plan.certificates.isEmpty ? nil : try TLSRoots(pem: plan.certificates)
  let loop = try EventLoop()
  let signals = try openSignals([SIGTERM])
  let stop = StopSource(signals)
  _ = try loop.add(signals.rawValue, [.readable], stop)
  let link = FileReference(OwnedFileDescriptor(Int32(plan.link)))
  let client = try DNSClient(loop: loop, servers: plan.servers, roots: roots, link: link) {
    say($0 + "\n")
  }
  // Before the first foreign byte is read. Kernels without Landlock have the other two.
  try forbidNewPrivileges()
  try? restrictFiles(readable: [], signalsOthers: false)
  if hasSystemCallFilters() {
    try confineSystemCalls(
      RoleFilter.dnsClient.instructions.map {
        sock_filter(code: $0.code, jt: $0.jumpTrue, jf: $0.jumpFalse, k: $0.value)
      })
  }
  let readiness = OwnedFileDescriptor(Int32(plan.readiness))
  try writeAll(readiness.rawValue, [UInt8(1)], "readiness pipe")
  client.start()
  try withExtendedLifetime((client, stop)) { try loop.run() }
}

do {
  switch processArguments().first {
  case "--handed": try serve()
  case "--version": try writeAll(1, "tombolo-dns \(tomboloVersion)\n".utf8)
  case "--help": try writeAll(1, help.utf8)
  default:
    say(help)
    exit(125)
  }
} catch {
  say("tombolo-dns: \(error)\n")
  exit(125)
}
