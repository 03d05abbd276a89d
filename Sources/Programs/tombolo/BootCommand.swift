import ArgumentParser
import BootPlanning
import HostGateway
import Imaging
import Inet
import LinuxSystem
import LogText
import MachineRunning

extension MachineRequest.Kind: ExpressibleByArgument {}

struct BootCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "boot",
    abstract: "Boot an image in QEMU and be its host side.",
    discussion: """
      The machine is QEMU's nitro-enclave for an EIF where that QEMU has it, else q35; its vsock device is our own. The \
      program's output and exit status are ours, as with `tombolo run`; 125 means that the machine ended without one. \
      Started by root, QEMU runs as a user of its own, and is handed the image open.
      """)

  @Argument(help: "An EIF, as `tombolo image build` or nitro-cli makes it.")
  var image: String?
  @Option(help: ArgumentHelp("Boot this kernel instead of an EIF.", valueName: "file"))
  var kernel: String?
  @Option(help: ArgumentHelp("The initial ramdisk for --kernel.", valueName: "file"))
  var initrd: String?
  @OptionGroup
  var gateway: GatewayOptions
  @Option(help: "raw (the program's bytes as they are), text or json (a line each, escaped, with times and source).")
  var logFormat: LogFormat = .raw
  @OptionGroup
  var rawOptions: RawOptions
  @Flag(help: "Show the machine's console on standard error.")
  var console = false
  @Flag(name: .shortAndLong, help: "Log QEMU's command line and every connection.")
  var verbose = false
  @Option(help: "auto, nitro-enclave, q35 or microvm.")
  var machine: MachineRequest.Kind = .auto
  @Option(help: ArgumentHelp("The QEMU to use (default: qemu-system-x86_64 in PATH).", valueName: "file"))
  var qemu: String?
  @Option(help: ArgumentHelp("QEMU's ROMs (default: \"share\" beside --qemu, else QEMU's own).", valueName: "dir"))
  var qemuData: String?
  @Flag(help: "Start a QEMU that was built without libseccomp, and so cannot confine itself.")
  var noSandbox = false
  @Option(help: "QEMU's accelerator: tcg or kvm.")
  var accel = "tcg"
  @Option(help: "The machine's memory in MiB, 64 to 1048576.")
  var memory = 512
  @Option(help: "The machine's processors, 1 to 64.")
  var cpus = 1
  @Option(help: ArgumentHelp("Words for the kernel's command line; no PCR measures them.", valueName: "text"))
  var append = ""
  @Option(help: ArgumentHelp("The vsock port of the host side, as the image's network.parent_port.", valueName: "port"))
  var port: UInt32 = EnclaveLayout.port
  @Option(help: "The guest's CID on machines other than nitro-enclave, 3 to 4294967294.")
  var cid: UInt32 = 16

  func run() throws {
    do {
      var request = try request()
      request.host.rawGateway = try rawOptions.rawGateway(request.host.published, gateway, isQuiet: !verbose)
      try gateway.check(raw: request.host.rawGateway != nil)
      throw ExitCode(try MachineRun(request, report: say).run())
    } catch let code as ExitCode {
      throw code
    } catch {
      throw fail("\(error)")
    }
  }

  private func request() throws -> MachineRequest {
    var request = MachineRequest(image: try source(), qemu: try findQEMU())
    request.kind = machine
    request.host = try gateway.settings()
    request.host.name = lastComponent(image ?? kernel ?? "enclave")
    if request.host.name.hasSuffix(".eif") { request.host.name.removeLast(4) }
    request.host.logFormat = logFormat
    request.host.verbose = verbose
    request.qemuData = try data(request.qemu)
    guard ["tcg", "kvm"].contains(accel) else { throw Misuse("--accel: found \"\(accel)\", expected tcg or kvm") }
    request.accelerator = accel
    request.isSandboxed = !noSandbox
    guard (64...1_048_576).contains(memory) else {
      throw Misuse("--memory: found \(memory), expected 64 to 1048576 (MiB)")
    }
    request.memory = memory
    guard (1...64).contains(cpus) else { throw Misuse("--cpus: found \(cpus), expected 1 to 64") }
    request.processors = cpus
    guard cid > 2, cid != .max else { throw Misuse("--cid: found \(cid), expected 3 to 4294967294") }
    request.guestCID = cid
    guard port > 0, port != .max, port != 9000 else {
      throw Misuse("--port: found \(port), expected 1 to 4294967294, and not the heartbeat's 9000")
    }
    request.port = port
    request.appended = append
    request.showsConsole = console
    return request
  }

  private func source() throws -> MachineRequest.Image {
    switch (image, kernel, initrd) {
    case (let image?, nil, nil):
      // A damaged image is told here, and not by a machine that says nothing.
      if let damage = try EIFDescription(path: image).damage { throw Misuse("\(image): \(damage)") }
      return .eif(image)
    case (nil, let kernel?, let initrd?):
      for path in [kernel, initrd] where fileKind(path) != .file { throw Misuse("\(path) is not a file") }
      return .kernel(kernel, ramdisk: initrd)
    default: throw Misuse("expected an EIF, or --kernel and --initrd")
    }
  }

  private func findQEMU() throws -> String {
    if let qemu {
      guard fileKind(qemu) == .file, isExecutable(qemu) else { throw Misuse("--qemu: \(qemu) is not a program") }
      return qemu
    }
    for part in (environmentVariable("PATH") ?? "/usr/bin").split(separator: ":") {
      let path = "\(part)/qemu-system-x86_64"
      if fileKind(path) == .file, isExecutable(path) { return path }
    }
    throw Misuse(
      "qemu-system-x86_64 is not in PATH; install it, or name one with --qemu (rootfs/boot-assets builds one)")
  }

  private func data(_ qemu: String) throws -> String? {
    if let qemuData {
      guard fileKind(qemuData) == .directory else { throw Misuse("--qemu-data: \(qemuData) is not a directory") }
      return qemuData
    }
    let beside = (qemu.lastIndex(of: "/").map { String(qemu[...$0]) } ?? "./") + "share"
    return fileKind(beside) == .directory ? beside : nil
  }
}
