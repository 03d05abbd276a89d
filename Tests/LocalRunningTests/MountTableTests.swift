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
    let tree: [String: [(name: String, kind: FileKind, link: String)]] = [
      "/": [
        ("bin", .symbolicLink, "usr/bin"), ("usr", .directory, ""), ("etc", .directory, ""), ("mnt", .directory, ""),
        ("home", .directory, ""), ("proc", .directory, ""), ("file", .file, ""), ("tmp", .directory, ""),
      ],
      "/etc": [("resolv.conf", .file, ""), ("ssl", .directory, "")],
      "/mnt": [("mem", .directory, "")],
      "/home": [("a b", .directory, ""), ("c", .directory, "")],
    ]
    let pieces = MountTable.pieces(MountTable.mounts(mountinfo: Self.mountinfo)) { tree[$0] ?? [] }
    #expect(
      pieces == [
        .link("/bin", to: "usr/bin"), .overlay("/usr"), .directory("/etc"), .file("/etc/resolv.conf"),
        .overlay("/etc/ssl"), .directory("/mnt"), .directory("/mnt/mem"), .directory("/home"), .overlay("/home/a b"),
        .overlay("/home/c"), .file("/file"),
      ])
  }
}
