import BootPlanning
import CLinux
import LinuxSystem
import Proxying
import Testing

@testable import Booting

/// Steps that say they were done and were not, or after one that failed, leave an enclave that is not what its plan says.
@Suite(.serialized) struct BootRunnerTests {
  private func inDirectory(_ body: (String) throws -> Void) throws {
    let directory = try makeTemporaryDirectory("/tmp/tombolo-steps-")
    defer { removeTree(directory) }
    try body(directory)
  }

  @Test func aFailedStepIsTheLast() throws {
    try inDirectory { directory in
      let steps: [BootStep] = [
        .makeDirectory(directory + "/a", mode: 0o1777), .makeLink(directory + "/a/link", to: "x"),
        .makeFile(directory + "/none/file"), .makeDirectory(directory + "/b", mode: 0o755),
      ]
      var runner = BootRunner { Issue.record("\($0)") }
      #expect { try runner.run(steps) } throws: {
        "\($0)" == "open \(directory)/none/file: No such file or directory (ENOENT)"
      }
      #expect(runner.done == Array(steps.prefix(2)))
      #expect(fileKind(directory + "/b") == nil)
      #expect(fileOwner(directory + "/a")?.mode == 0o1777)
      let target = try readLink(directory + "/a/link")
      #expect(target == "x")
    }
  }

  /// A key that a kernel does not have is no error; one that cannot be written is said, and does not end the start.
  @Test func sysctlsThatAreNotThere() throws {
    var said: [String] = []
    var runner = BootRunner { said.append($0) }
    try runner.run([.setSysctl("tombolo.no_such_key", value: "0"), .removeFiles(["/tmp/tombolo-no-such-file"])])
    #expect(said.isEmpty)
    // Read-only for everybody.
    try runner.run([.setSysctl("kernel.ostype", value: "Linux")])
    #expect(said.count == 1 && said[0].hasPrefix("sysctl kernel.ostype stays as it is: "), "\(said)")
    #expect(runner.done.count == 3)
  }

  @Test func whatIsReadIsRemoved() throws {
    try inDirectory { directory in
      for name in ["cmd", "env"] { try writeFile("\(directory)/\(name)", "x") }
      var runner = BootRunner { _ in }
      try runner.run([.removeFiles(["\(directory)/cmd", "\(directory)/env", "\(directory)/none"])])
      #expect(try directoryEntries(directory).isEmpty)
    }
  }

  /// The proxy has a group and a user of its own, and every other user of the machine is kept out.
  @Test func theEnclavesSocketIsForItsOwnerAndGroup() throws {
    try inDirectory { directory in
      var runner = BootRunner { _ in }
      try runner.run([.listenForHost(.unix(directory + "/enclave"))])
      #expect(fileOwner(directory + "/enclave")?.mode == 0o660)
      #expect(runner.sockets.descriptors.transportListener != nil && runner.sockets.keeper.isEmpty)
    }
  }

  /// linuxkit's /etc/resolv.conf leads to a file that is not there; a program without one resolves no name.
  @Test func aDanglingLinkGetsItsFile() throws {
    try inDirectory { directory in
      try makeDirectories(directory + "/etc")
      try makeSymbolicLink(directory + "/etc/resolv.conf", to: "../run/resolvconf/resolv.conf")
      try FileProvision.provide(directory + "/etc/resolv.conf", "nameserver 169.254.53.53\n")
      #expect(try readText(directory + "/run/resolvconf/resolv.conf") == "nameserver 169.254.53.53\n")
      try makeSymbolicLink(directory + "/loop", to: "loop")
      #expect(throws: SystemError("readlink", directory + "/loop", errno: ELOOP)) {
        try FileProvision.provide(directory + "/loop", "")
      }
    }
  }

  /// The security module's answer, byte for byte; anything else is no entropy, and no trap.
  @Test func onlyRandomBytesAreTakenForSuch() {
    let head: [UInt8] = [0xa1, 0x69] + Array("GetRandom".utf8) + [0xa1, 0x66] + Array("random".utf8)
    let bytes = (0..<256).map { UInt8(truncatingIfNeeded: $0) }
    #expect(KernelSteps.randomBytes(head + [0x59, 1, 0] + bytes) == bytes)
    #expect(KernelSteps.randomBytes(head + [0x58, 32] + bytes.prefix(32)) == Array(bytes.prefix(32)))
    #expect(KernelSteps.randomBytes(head + [0x43, 7, 8, 9]) == [7, 8, 9])
    for wrong in [
      [], head, head + [0x59, 1, 0] + bytes.dropLast(), head + [0x58, 1] + bytes, head + [0x40], head + [0x59, 255],
      Array("Error".utf8),
    ] as [[UInt8]] {
      #expect(KernelSteps.randomBytes(wrong) == nil, "\(wrong.count) bytes")
    }
    for _ in 0..<20_000 {
      _ = KernelSteps.randomBytes(head + (0..<Int.random(in: 0...8)).map { _ in UInt8.random(in: 0...255) })
    }
  }
}
