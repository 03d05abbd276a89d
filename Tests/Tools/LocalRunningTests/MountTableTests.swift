import BootPlanning
import LinuxSystem
import LocalRunning
import Testing

struct MountTableTests {
  static let mountinfo = """
    22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
    23 22 0:21 / /proc rw - proc proc rw
    24 22 254:1 / /home rw,relatime shared:1 - xfs /dev/vdb rw
    25 24 254:2 / /home/a\\040b rw,relatime shared:1 master:2 - ext4 /dev/vdc rw
    26 22 0:30 / /run/x rw - ext4 /dev/vdd rw
    27 22 0:31 / /mnt/mem rw - tmpfs tmpfs rw
    28 22 254:0 /etc/x /etc/resolv.conf rw - ext4 /dev/vda rw
    garbage
    """

  @Test func rootGetsEveryLastingFileSystem() {
    let pieces = MountTable.pieces(MountTable.mounts(mountinfo: Self.mountinfo)) { $0 != "/etc/resolv.conf" }
    #expect(pieces == [.overlay("/"), .overlay("/home"), .overlay("/home/a b")])
  }

  /// Without root only directories with no mount below them can be overlaid.
  @Test func aUserGetsWhatHasNoMountBelow() {
    let tree: [String: [MountTable.Entry]] = [
      "/": [
        .init("bin", .symbolicLink, link: "usr/bin"), .init("usr", .directory), .init("etc", .directory),
        .init("mnt", .directory), .init("home", .directory, mode: 0o711), .init("proc", .directory),
        .init("file", .file), .init("tmp", .directory), .init("socket", .socket), .init("pipe", .pipe),
        .init("disk", .blockDevice), .init("terminal", .characterDevice),
      ],
      "/etc": [
        .init("resolv.conf", .file, size: 1 << 20), .init("shadow", .file, size: nil),
        .init("large", .file, size: 1 << 20 + 1), .init("ssl", .directory),
      ],
      "/mnt": [.init("mem", .directory)],
      "/home": [.init("a b", .directory), .init("c", .directory)],
    ]
    let pieces = MountTable.pieces(MountTable.mounts(mountinfo: Self.mountinfo)) { tree[$0] ?? [] }
    #expect(
      pieces == [
        .link("/bin", to: "usr/bin"), .overlay("/usr"), .directory("/etc", mode: 0o755),
        .file("/etc/resolv.conf", copied: true), .file("/etc/shadow", copied: false),
        .file("/etc/large", copied: false), .overlay("/etc/ssl"), .directory("/mnt", mode: 0o755),
        .directory("/mnt/mem", mode: 0o755), .directory("/home", mode: 0o711), .overlay("/home/a b"),
        .overlay("/home/c"), .file("/file", copied: true),
      ])
  }

  /// Ten thousand files beside a mount point do not fill the machine's memory.
  @Test func copiesTogetherAreBounded() {
    let entries = (0..<100).map { MountTable.Entry("f\($0)", .file, size: 1 << 20) }
    let pieces = MountTable.pieces([]) { $0 == "/" ? entries : [] }
    let copied = pieces.filter { if case .file(_, copied: true) = $0 { true } else { false } }
    #expect(pieces.count == 100)
    #expect(copied.count == MountTable.copyLimit >> 20)
  }
}
