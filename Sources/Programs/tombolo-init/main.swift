import BootPlanning
import CLinux
import Inet
import LinuxSystem
import PacketRelaying
import Proxying
import Seccomp
import Wire

// The story of a start; every role ends the process itself.

do {
  // A kernel's words are not ours to refuse.
  let isKernelInit = processID() == 1 && clinux_started_bare()
  let arguments = isKernelInit ? InitArguments() : try InitArguments(processArguments())
  switch arguments.role {
  case .help: try writeAll(1, InitArguments.help.utf8)
  case .version: try writeAll(1, "tombolo-init \(tomboloVersion)\n".utf8)
  case .plan(let kind): try PlanRole.run(kind, arguments)
  case .proxy: try ProxyRole.run()
  case .verdicts(let sockets):
    setProcessName("tombolo-keeper")
    try forbidInspection()
    try confine(.keeper)
    VerdictKeeper.run(sockets: sockets)
  case .mount: try MountRole.run()
  case .enclave: try EnclaveRole.run(arguments)
  }
} catch {
  writeToStandardError("tombolo-init: \(error)\n")
  exit(125)
}
