import BootPlanning
import LinuxSystem
import Testing

@testable import LocalRunning

/// The root of `--show`, from any tree: links and directories on the way, nothing else.
struct ShownFilesTests {
  private static let tree: [String: MountTable.Entry] = [
    "/usr": .init("usr", .directory), "/usr/lib": .init("lib", .directory), "/usr/lib/a": .init("a", .directory),
    "/bin": .init("bin", .symbolicLink, link: "usr/bin"), "/usr/bin": .init("bin", .directory, mode: 0o711),
    "/home": .init("home", .directory, mode: 0o750), "/home/a": .init("a", .symbolicLink, link: "../usr/lib/./a"),
    "/home/round": .init("round", .symbolicLink, link: "round"), "/home/out": .init("out", .symbolicLink, link: "/tmp"),
    "/home/top": .init("top", .symbolicLink, link: ".."), "/home/file": .init("file", .file, size: 5),
    "/home/big": .init("big", .file, size: 1 << 21), "/etc": .init("etc", .directory),
  ]

  private func pieces(_ shown: String...) throws -> [RootPiece] {
    try ShownRoot.pieces(
      shown, links: [.init("bin", .symbolicLink, link: "usr/bin"), .init("usr", .directory)], entry: { Self.tree[$0] },
      whole: { path, _ in [.overlay(path)] })
  }

  @Test func aDirectoryAndItsWay() throws {
    #expect(
      try pieces("/usr/lib/a") == [
        .directory("/usr", mode: 0o755), .directory("/usr/lib", mode: 0o755), .overlay("/usr/lib/a"),
        .link("/bin", to: "usr/bin"), .directory("/etc", mode: 0o755),
      ])
  }

  /// In whatever order they are named: what is below one that is shown is there already.
  @Test func oneWithinTheOther() throws {
    let expected: [RootPiece] = [.overlay("/usr"), .link("/bin", to: "usr/bin"), .directory("/etc", mode: 0o755)]
    #expect(try pieces("/usr", "/usr/lib/a") == expected)
    #expect(try pieces("/usr/lib/a", "/usr") == expected)
    #expect(try pieces("/usr", "/usr") == expected)
  }

  @Test func linksAreFollowed() throws {
    #expect(
      try pieces("/home/a", "/home/file", "/home/big", "/bin", "/etc") == [
        .overlay("/etc"), .directory("/usr", mode: 0o755), .overlay("/usr/bin"), .directory("/home", mode: 0o750),
        .file("/home/big", copied: false), .file("/home/file", copied: true), .directory("/usr/lib", mode: 0o755),
        .overlay("/usr/lib/a"), .link("/bin", to: "usr/bin"), .link("/home/a", to: "../usr/lib/./a"),
      ])
  }

  @Test(arguments: [
    ("/home/round", "leads through too many links"), ("/home/out", "leads to /tmp, which is the enclave's own"),
    ("/home/out/x", "leads to /tmp, which is the enclave's own"), ("/home/top", "leads to \"/\", which is everything"),
    ("/home/none", "is not there: there is no /home/none"),
    ("/home/file/x", "leads through /home/file, which is no directory"),
  ]) func whatCannotBeShown(_ path: String, _ reason: String) {
    #expect(throws: ShownFilesError(description: "--show: \"\(path)\" \(reason)")) { try pieces(path) }
  }
}
