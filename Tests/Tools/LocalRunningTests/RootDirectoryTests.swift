import BootPlanning
import LinuxSystem
import Testing

@testable import LocalRunning

struct RootDirectoryTests {
  /// What a tree lacks is beside what it has, and parents come before what is in them.
  @Test func piecesOfATreeThatCannotBeWritten() {
    let tree: [String: [MountTable.Entry]] = [
      "": [
        .init("bin", .symbolicLink, link: "usr/bin"), .init("etc", .directory, mode: 0o711), .init("proc", .directory),
        .init("run", .symbolicLink, link: "var/run"), .init("usr", .directory), .init("x", .file),
      ],
      "/etc": [.init("hosts", .file), .init("ssl", .directory), .init("resolv.conf", .symbolicLink, link: "/gone")],
    ]
    #expect(
      RootDirectory.pieces { tree[$0] ?? [] } == [
        .link("/bin", to: "usr/bin"), .directory("/proc", mode: 0o755), .link("/run", to: "var/run"), .tree("/usr"),
        .leaf("/x"), .directory("/sys", mode: 0o755), .directory("/dev", mode: 0o755),
        .directory("/tmp", mode: 0o755), .directory("/etc", mode: 0o711), .leaf("/etc/hosts"), .tree("/etc/ssl"),
        .link("/etc/resolv.conf", to: "/gone"), .empty("/etc/hostname"),
      ])
    #expect(
      RootDirectory.pieces { $0.isEmpty ? [.init("etc", .directory)] : RootDirectory.files.map { .init($0, .file) } }
        .last == .tree("/etc"))
  }
}
