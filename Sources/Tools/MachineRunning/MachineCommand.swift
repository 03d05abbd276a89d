import Imaging
import LinuxSystem

/// QEMU's command line for a request: decided apart from starting it.
struct MachineCommand {
  /// No other program, no other user, no call that has been replaced (qemu(1), -sandbox).
  static let sandbox = ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]

  var arguments: [String]

  /// - Parameters:
  ///   - machines: what `qemu -M help` printed.
  ///   - device: connected to the vsock device.
  ///   - directory: for what has to be taken out of an EIF.
  ///   - files: gets what QEMU opens.
  init(
    _ request: MachineRequest, machines: String, device: FileReference, directory: String, files: inout MachineFiles
  ) throws {
    let hasNitro = machines.contains("nitro-enclave")
    var kind = request.kind
    if kind == .auto {
      if case .eif = request.image, hasNitro { kind = .nitroEnclave } else { kind = .q35 }
    }
    if kind == .nitroEnclave, !hasNitro {
      throw MachineError(
        "--machine nitro-enclave: \(request.qemu) does not have it (it needs QEMU 9.2 built with libcbor)")
    }
    arguments = request.isSandboxed ? Self.sandbox : []
    arguments += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]
    arguments += [
      "-accel", request.accelerator, "-cpu", "max", "-m", "\(request.memory)M", "-smp", "\(request.processors)",
    ]
    arguments += ["-chardev", "socket,id=vsock,fd=\(files.hand(device))"]
    if let data = request.qemuData { arguments += ["-L", try files.directory(data)] }
    // reboot=t: there is no keyboard controller that could reset the machine, and a warm jump would boot it again.
    let appended = request.appended.isEmpty ? "quiet reboot=t" : "quiet reboot=t " + request.appended
    if kind == .nitroEnclave {
      guard case .eif(let path) = request.image else {
        throw MachineError("--machine nitro-enclave boots an EIF, not a kernel and a ramdisk")
      }
      arguments += [
        "-M", "nitro-enclave,vsock=vsock,id=tombolo", "-kernel", try files.image(path), "-append", appended,
      ]
      return
    }
    let parts = try Self.parts(request.image, directory)
    let adapter = kind == .microvm ? "vhost-user-vsock-device" : "vhost-user-vsock-pci"
    arguments += ["-object", "memory-backend-memfd,id=memory,size=\(request.memory)M,share=on"]
    // Devices on the kernel's command line: kernels of an enclave's shape have no ACPI to find them by.
    let options = kind == .microvm ? ",acpi=off,auto-kernel-cmdline=on,pit=on,pic=on,rtc=on" : ""
    arguments += ["-M", "\(kind.rawValue),memory-backend=memory\(options)", "-device", "\(adapter),chardev=vsock"]
    arguments += ["-kernel", try files.image(parts.kernel), "-initrd", try files.image(parts.ramdisk)]
    arguments += ["-append", "\(parts.commandLine) panic=-1 \(appended)"]
  }

  private static func parts(
    _ image: MachineRequest.Image, _ directory: String
  ) throws -> (kernel: String, ramdisk: String, commandLine: String) {
    switch image {
    case .kernel(let kernel, let ramdisk): return (kernel, ramdisk, "console=ttyS0")
    case .eif(let path):
      let kernel = directory + "/kernel"
      let ramdisk = directory + "/ramdisk"
      let description = try EIFDescription(path: path)
      try description.extract(.kernel, from: path, to: kernel)
      try description.extract(.ramdisk, from: path, to: ramdisk)
      // The device is on PCI here.
      let words = description.commandLine.split(separator: " ").filter { $0 != "pci=off" }
      return (kernel, ramdisk, words.joined(separator: " "))
    }
  }
}
