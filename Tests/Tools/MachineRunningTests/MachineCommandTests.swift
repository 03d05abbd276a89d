import LinuxSystem
import Testing

@testable import MachineRunning

/// QEMU's command line: a wrong word and the machine has no vsock, boots again at its end, or does not boot.
struct MachineCommandTests {
  private static let withNitro = "nitro-enclave  AWS Nitro Enclave\nmicrovm  microvm (i386)\nq35  Standard PC\n"
  private static let without = "microvm  microvm (i386)\nq35  Standard PC\n"

  private func request(_ image: MachineRequest.Image, _ kind: MachineRequest.Kind = .auto) -> MachineRequest {
    var request = MachineRequest(image: image, qemu: "/opt/qemu")
    request.kind = kind
    return request
  }

  /// The command line, and what the numbers in it stand for.
  private func command(
    _ request: MachineRequest, machines: String = withNitro, directory: String = "/nowhere"
  ) throws -> (words: [String], files: MachineFiles) {
    var files = MachineFiles(isOther: false)
    let device = try makePipe().reading
    let made = try MachineCommand(request, machines: machines, device: device, directory: directory, files: &files)
    #expect(files.handles.first === device)
    return (made.arguments, files)
  }

  private func value(_ option: String, _ words: [String]) -> String? {
    words.firstIndex(of: option).flatMap { words.indices.contains($0 + 1) ? words[$0 + 1] : nil }
  }

  /// What a name of QEMU's leads to.
  private func content(_ option: String, _ made: (words: [String], files: MachineFiles)) throws -> String {
    let name = try #require(value(option, made.words))
    let number = try #require(Int(name.split(separator: "/").last ?? ""))
    #expect(name == "/proc/self/fd/\(number)")
    try #require(made.files.handles.indices.contains(number - 3))
    return try readText("/proc/self/fd/\(made.files.handles[number - 3].rawValue)")
  }

  private func inDirectory(_ body: (String) throws -> Void) throws {
    let directory = try makeTemporaryDirectory("/tmp/tombolo-machine-")
    defer { removeTree(directory) }
    for name in ["a.eif", "kernel", "ramdisk"] { try writeFile("\(directory)/\(name)", "the \(name)") }
    try body(directory)
  }

  @Test func anEIFBootsOnTheNitroEnclaveMachine() throws {
    try inDirectory { directory in
      let made = try command(request(.eif(directory + "/a.eif")))
      #expect(value("-M", made.words) == "nitro-enclave,vsock=vsock,id=tombolo")
      let kernel = try content("-kernel", made)
      #expect(kernel == "the a.eif" && value("-initrd", made.words) == nil)
      #expect(value("-append", made.words) == "quiet reboot=t")
      #expect(value("-chardev", made.words) == "socket,id=vsock,fd=3")
    }
  }

  @Test func aKernelAndItsRamdiskBootOnQ35() throws {
    try inDirectory { directory in
      var request = request(.kernel(directory + "/kernel", ramdisk: directory + "/ramdisk"))
      request.memory = 1024
      request.processors = 2
      request.appended = "mitigations=off"
      let made = try command(request)
      let words = made.words
      #expect(value("-M", words) == "q35,memory-backend=memory")
      #expect(value("-object", words) == "memory-backend-memfd,id=memory,size=1024M,share=on")
      #expect(value("-device", words) == "vhost-user-vsock-pci,chardev=vsock")
      #expect(value("-m", words) == "1024M" && value("-smp", words) == "2" && value("-accel", words) == "tcg")
      let kernel = try content("-kernel", made)
      let ramdisk = try content("-initrd", made)
      #expect(kernel == "the kernel" && ramdisk == "the ramdisk")
      #expect(value("-append", words) == "console=ttyS0 panic=-1 quiet reboot=t mitigations=off")
      // The machine ends, and is not started again, when the enclave's init restarts it.
      #expect(words.contains("-no-reboot"))
    }
  }

  @Test func microvmFindsItsDevicesOnTheCommandLine() throws {
    try inDirectory { directory in
      let words = try command(
        request(.kernel(directory + "/kernel", ramdisk: directory + "/ramdisk"), .microvm), machines: Self.without
      ).words
      #expect(value("-device", words) == "vhost-user-vsock-device,chardev=vsock")
      #expect(value("-M", words)?.contains("auto-kernel-cmdline=on") == true)
    }
  }

  @Test func itConfinesItselfUnlessToldNotTo() throws {
    try inDirectory { directory in
      var request = request(.eif(directory + "/a.eif"))
      let confined = try command(request).words
      #expect(value("-sandbox", confined) == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
      request.isSandboxed = false
      let free = try command(request).words
      #expect(!free.contains("-sandbox") && confined.suffix(free.count) == free[...])
    }
  }

  @Test func whatCannotBeBootedIsSaid() {
    for (request, machines, sentence) in [
      (
        request(.eif("/a.eif"), .nitroEnclave), Self.without,
        "--machine nitro-enclave: /opt/qemu does not have it (it needs QEMU 9.2 built with libcbor)"
      ),
      (
        request(.kernel("/k", ramdisk: "/r"), .nitroEnclave), Self.withNitro,
        "--machine nitro-enclave boots an EIF, not a kernel and a ramdisk"
      ),
      (request(.eif("/no/such.eif")), Self.withNitro, "open /no/such.eif: No such file or directory (ENOENT)"),
    ] {
      #expect { try command(request, machines: machines) } throws: { "\($0)" == sentence }
    }
  }

  /// Without that machine an EIF is taken apart; a file that is none is named.
  @Test func anEIFThatIsNone() throws {
    try inDirectory { directory in
      let path = directory + "/a.eif"
      #expect {
        try command(request(.eif(path)), machines: Self.without, directory: directory)
      } throws: { "\($0)".contains(path) }
    }
  }
}
