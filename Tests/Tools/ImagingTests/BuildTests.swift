import Foundation
import XCTest

@testable import Imaging

/// Whole images, as `tombolo image build` makes them.
final class BuildTests: XCTestCase {
  private struct Fixture {
    let scratch: Scratch
    var request: ImageRequest

    init(output: String = "out.eif") throws {
      scratch = try Scratch()
      try scratch.write("root/bin/app", "program", mode: 0o755)
      try scratch.write("root/etc/os-release", "ID=test\n")
      request = ImageRequest(
        root: .directory(scratch.path + "/root"), output: scratch.path + "/" + output,
        initPath: try scratch.write("tombolo-init", staticProgram, mode: 0o700), name: "out", toolVersion: "0")
      request.kernel = try scratch.write("bzImage", kernelImage())
      request.command = ["/bin/app", "a b"]
    }

    @discardableResult
    func build() throws -> ImageResult { try ImageBuilder.build(request, warn: { _ in }, progress: { _, _ in }) }

    func output() throws -> [UInt8] { try FileSlice(path: request.output).all(limit: 1 << 24) }

    /// The members of all ramdisks, by path; only for a .cpio.
    func members() throws -> [String: CpioMember] {
      var reader = CpioReader(try FileSlice(path: request.output))
      var members: [String: CpioMember] = [:]
      while let member = try reader.next() { members[String(decoding: member.path, as: UTF8.self)] = member }
      return members
    }

    func text(_ path: String) throws -> String? {
      try members()[path].map { String(decoding: try $0.content.all(limit: 1 << 20), as: UTF8.self) }
    }
  }

  func testTheLayoutIsThatOfTheAWSContract() throws {
    let fixture = try Fixture(output: "out.cpio")
    try fixture.build()
    let members = try fixture.members()
    XCTAssertEqual(
      members.keys.sorted(),
      [
        "cmd", "dev", "dev/console", "env", "init", "rootfs", "rootfs/bin", "rootfs/bin/app", "rootfs/etc",
        "rootfs/etc/os-release",
        "rootfs/etc/tombolo.toml",
      ])
    XCTAssertEqual(members["init"]?.mode, 0o100755)
    XCTAssertEqual(try fixture.text("cmd"), "/bin/app\na b\n")
    XCTAssertEqual(try fixture.text("env"), "")
    XCTAssertEqual(try fixture.text("rootfs/etc/tombolo.toml"), "[program]\ncommand = [\"/bin/app\", \"a b\"]\n")
    XCTAssertTrue(members.values.allSatisfy { $0.time == 0 })
  }

  func testTheSameInputGivesTheSameFileWhateverItsTimesAndTheOrderItWasWrittenIn() throws {
    var first = try Fixture()
    for name in ["z", "a", "m"] { try first.scratch.write("root/\(name)", name) }
    try first.build()
    let one = try first.output()
    var second = try Fixture()
    for name in ["m", "z", "a"] { try second.scratch.write("root/\(name)", name) }
    try shell("find $1/root -exec touch -d 2001-02-03 {} +", second.scratch.path)
    try second.build()
    XCTAssertEqual(one, try second.output())
    second.request.time = 1_700_000_000
    try second.build()
    XCTAssertNotEqual(one, try second.output(), "SOURCE_DATE_EPOCH counts")
    first.request.time = 1_700_000_000
    try first.build()
    XCTAssertEqual(try first.output(), try second.output())
  }

  func testARebuildReplacesTheOldFileAndAFailureLeavesItAndNothingElse() throws {
    var fixture = try Fixture()
    try fixture.scratch.write("out/keep.eif", "old")
    fixture.request.output = fixture.scratch.path + "/out/keep.eif"
    let text = fixture.scratch.path + "/root/etc/os-release"
    let failures: [(String, (inout ImageRequest) -> Void)] = [
      ("is not a Linux kernel", { $0.kernel = text }),
      ("is not a 64-bit ELF program", { $0.initPath = text }),
      ("No such file", { $0.configuration = "/nonexistent/tombolo.toml" }),
      ("is not a directory", { $0.root = .directory($0.initPath) }),
      ("is not a tar archive", { $0.root = .archive($0.initPath) }),
      ("names no command", { $0.command = [] }),
      ("an EIF needs a kernel", { $0.kernel = nil }),
      ("--module needs --modules", { $0.moduleNames = ["tun"] }),
      ("needs both", { $0.privateKey = "x" }),
    ]
    for (sentence, change) in failures {
      var broken = fixture
      change(&broken.request)
      let said = failure { try broken.build() }
      XCTAssertTrue(said.contains(sentence), "\(sentence): \(said)")
      XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: fixture.scratch.path + "/out"), ["keep.eif"])
      XCTAssertEqual(try fixture.output(), Array("old".utf8))
    }
    try fixture.build()
    XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: fixture.scratch.path + "/out"), ["keep.eif"])
    XCTAssertNil(try EIFDescription(path: fixture.request.output).damage)
  }

  func testADynamicallyLinkedInitIsRefusedBecauseItCouldNotStart() throws {
    var fixture = try Fixture()
    fixture.request.initPath = "/usr/bin/env"
    XCTAssertTrue(failure { try fixture.build() }.contains("dynamically linked"))
  }

  func testAContainerImagesProgramIsKeptAndTheConfigurationWinsKeyByKey() throws {
    var image = ImageProgram()
    image.command = ["/entry", "cmd"]
    image.environment = ["PATH=/bin", "A=image", "A=last", "junk"]
    image.user = "app:staff"
    image.workingDirectory = "/srv"

    let alone = try ProgramConfiguration(given: nil, image: image, command: [])
    XCTAssertEqual(
      alone.toml,
      """
      [program]
      command = ["/entry", "cmd"]
      env = { PATH = "/bin", A = "last" }
      user = "app:staff"
      working_directory = "/srv"

      """)

    let commented = "# kept\nhostname = \"h\"\n[ingress]\nports = [1]"
    let appended = try ProgramConfiguration(given: ("c.toml", commented), image: image, command: [])
    XCTAssertEqual(appended.toml, commented + "\n\n" + alone.toml)

    let own = "[program]\ncommand = [\"/mine\"]\nuser = \"root\"\nenv = { A = \"config\", B = \"x\" }\n"
    let merged = try ProgramConfiguration(given: ("c.toml", own), image: image, command: [])
    XCTAssertEqual(merged.command, ["/mine"])
    XCTAssertEqual(merged.environment, ["A=config", "B=x", "PATH=/bin"])
    let text = merged.toml.replacingOccurrences(of: "'", with: "\"")
    XCTAssertTrue(text.contains("user = \"root\""), text)
    XCTAssertTrue(text.contains("working_directory = \"/srv\""), text)

    let asked = try ProgramConfiguration(given: ("c.toml", own), image: image, command: ["/asked"])
    XCTAssertEqual(asked.command, ["/asked"])
    // What was made is a document that means the same again.
    let again = try ProgramConfiguration(given: ("again", merged.toml), image: ImageProgram(), command: [])
    XCTAssertEqual(again.command, merged.command)
    XCTAssertEqual(again.environment, merged.environment)
  }

  func testStrangeCommandsSurviveAndAreKeptOutOfFilesThatCannotHoldThem() throws {
    var fixture = try Fixture(output: "out.cpio")
    let strange = ["/bin/sh", "-c", "echo \"a\\b\"\n\tline two \u{1}\u{7f} é"]
    fixture.request.command = strange
    try fixture.build()
    XCTAssertNil(try fixture.text("cmd"), "half a command in /cmd would be run by AWS's init")
    let toml = try XCTUnwrap(try fixture.text("rootfs/etc/tombolo.toml"))
    XCTAssertEqual(try ProgramConfiguration(given: ("x", toml), image: ImageProgram(), command: []).command, strange)
  }

  func testABrokenConfigurationIsFoundWhenTheImageIsBuilt() throws {
    let text = failure {
      _ = try ProgramConfiguration(given: ("c.toml", "a = 1\nb = = 2\n"), image: ImageProgram(), command: ["x"])
    }
    XCTAssertTrue(text.hasPrefix("c.toml:2:"), text)
    for (broken, sentence) in [
      ("program = 1", "program"), ("[program]\ncommand = \"x\"", "c.toml:2: program.command"),
      ("[program]\ncommand = [1]", "c.toml:2: program.command"), ("[program]\ncomand = []", "c.toml:2: program.comand"),
    ] {
      let text = failure { _ = try ProgramConfiguration(given: ("c.toml", broken), image: ImageProgram(), command: []) }
      XCTAssertTrue(text.contains(sentence), text)
    }
  }

  func testTheImagesOwnConfigurationCountsUnlessOneIsGiven() throws {
    var fixture = try Fixture(output: "out.cpio")
    fixture.request.command = []
    try fixture.scratch.write("root/etc/tombolo.toml", "[program]\ncommand = [\"/own\"]\n")
    try fixture.build()
    XCTAssertEqual(try fixture.text("cmd"), "/own\n")
    fixture.request.configuration = try fixture.scratch.write("given.toml", "[program]\ncommand = [\"/given\"]\n")
    try fixture.build()
    XCTAssertEqual(try fixture.text("cmd"), "/given\n")
  }

  func testModulesComeUncompressedWithWhatTheyNeedInLoadOrder() throws {
    var fixture = try Fixture(output: "out.cpio")
    let base = "debian/lib/modules/6.1.0-test"
    try fixture.scratch.write("\(base)/kernel/net/vsock.ko", moduleFile(depends: ""))
    try fixture.scratch.write("\(base)/kernel/net/virtio-common.ko", moduleFile(depends: "vsock"))
    try fixture.scratch.write(
      "\(base)/kernel/net/transport.ko",
      moduleFile(depends: "virtio_common,vsock", softdep: "pre: crc post: vsock pre: built-alias"))
    try fixture.scratch.write("\(base)/kernel/lib/checksum.ko", moduleFile(depends: "", alias: "crc"))
    try fixture.scratch.write("\(base)/modules.builtin.modinfo", Array("x.license=GPL\0x.alias=built-alias\0".utf8))
    try fixture.scratch.write("\(base)/kernel/other.ko", moduleFile(depends: ""))
    try fixture.scratch.write("\(base)/modules.builtin", "kernel/drivers/tun.ko\n")
    try fixture.scratch.write("debian/nsm.ko", moduleFile(depends: ""))
    try shell("cd $1/\(base)/kernel && xz net/transport.ko && gzip net/vsock.ko", fixture.scratch.path)
    fixture.request.modules = fixture.scratch.path + "/debian"
    fixture.request.moduleNames = ["transport", "tun"]
    try fixture.build()
    let list = try XCTUnwrap(try fixture.text("lib/modules/tombolo.load"))
    XCTAssertEqual(
      list.split(separator: "\n").map { String($0.split(separator: "/").last ?? "") },
      ["checksum.ko", "vsock.ko", "virtio-common.ko", "transport.ko"])
    let members = try fixture.members()
    XCTAssertNotNil(members["nsm.ko"])
    for line in list.split(separator: "\n") {
      let member = try XCTUnwrap(members[String(line.dropFirst())])
      XCTAssertEqual(try member.content.all(limit: 10_000).prefix(4), [0x7f, 0x45, 0x4c, 0x46])
    }
    XCTAssertFalse(members.keys.contains { $0.hasSuffix("other.ko") }, "only what was asked for")

    fixture.request.moduleNames = ["missing-one"]
    XCTAssertTrue(failure { try fixture.build() }.contains("has no kernel module \"missing_one\" for 6.1.0-test"))
    fixture.request.kernel = try fixture.scratch.write("bzImage2", kernelImage(version: "6.12.0"))
    XCTAssertTrue(failure { try fixture.build() }.contains("has modules of 6.1.0-test, the kernel is 6.12.0"))
  }

  func testModulesThatNeedOneAnotherInACircleEnd() throws {
    let scratch = try Scratch()
    try scratch.write("m/lib/modules/1/kernel/a.ko", moduleFile(depends: "b"))
    try scratch.write("m/lib/modules/1/kernel/b.ko", moduleFile(depends: "a"))
    let modules = try KernelModules(scratch.path + "/m", kernelVersion: nil)
    XCTAssertEqual(try modules.loadOrder(["a"], required: true).count, 2)
  }

  func testProgressEndsAtAll() throws {
    let fixture = try Fixture()
    var last = (0, 0)
    var calls = 0
    let result = try ImageBuilder.build(fixture.request, warn: { _ in }) { done, total in
      XCTAssertGreaterThanOrEqual(done, last.0)
      last = (done, total)
      calls += 1
    }
    XCTAssertEqual(last.0, last.1)
    XCTAssertGreaterThan(calls, 5)
    XCTAssertEqual(result.byteCount, try fixture.output().count)
    let described = try EIFDescription(path: fixture.request.output)
    XCTAssertEqual(described.measurements, result.measurements)
    XCTAssertEqual(described.commandLine, ImageRequest.usualCommandLine)
    XCTAssertTrue(
      String(decoding: described.metadata ?? [], as: UTF8.self).contains("\"KernelVersion\":\"6.1.0-test\""))
  }
}
