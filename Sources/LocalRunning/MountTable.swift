import LinuxSystem

/// The machine's file systems that belong into an overlay of it.
public enum MountTable {
  /// Types that hold files of their own on something lasting; everything else under a machine's root is either made
  /// anew inside (proc, sysfs, tmpfs) or not the enclave's business.
  private static let types: Set<Substring> = ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "overlay"]
  private static let hidden = ["/proc", "/sys", "/dev", "/run", "/tmp"]

  /// The mount points below "/" in a text of proc(5)'s mountinfo form, parents first.
  public static func overlays(mountinfo: String) -> [String] {
    var result: [String] = []
    for line in mountinfo.split(whereSeparator: \.isNewline) {
      let fields = line.split(separator: " ")
      guard let dash = fields.firstIndex(of: "-"), dash >= 5, fields.count > dash + 1 else { continue }
      let path = unescaped(fields[4])
      guard path != "/", types.contains(fields[dash + 1]), !result.contains(path),
        !hidden.contains(where: { path == $0 || path.hasPrefix($0 + "/") })
      else { continue }
      result.append(path)
    }
    return result.sorted { $0.utf8.count < $1.utf8.count }
  }

  /// Spaces, tabs, newlines and backslashes stand as \040 and so on.
  private static func unescaped(_ field: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = Array(field.utf8)[...]
    while let byte = rest.popFirst() {
      let digits = rest.prefix(3)
      if byte == UInt8(ascii: "\\"), digits.count == 3,
        let code = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
      {
        bytes.append(code)
        rest = rest.dropFirst(3)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
