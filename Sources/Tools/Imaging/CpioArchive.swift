/// A tree as a cpio archive of the "newc" format, which the kernel unpacks as an initramfs.
///
/// The same tree gives the same bytes: members sorted by the bytes of their paths, inode numbers counted in that order,
/// one time for all, no device numbers but those of device nodes. Format: Documentation/driver-api/early-userspace/
/// buffer-format.rst of the kernel; how it treats each member: init/initramfs.c.
public struct CpioArchive {
  static let magic = Array("070701".utf8)
  static let trailer = Array("TRAILER!!!".utf8)
  static let headerSize = 110
  /// GNU cpio's block; the kernel needs 4 for an archive that follows.
  static let blockSize = 512

  struct Member {
    var path: [UInt8]
    var node: FileNode
    var inode: UInt32
    var links: UInt32
    /// Only the last name of a file carries its bytes: GNU cpio writes it so, and it and the kernel read it so.
    var dataCount: Int
  }

  let members: [Member]
  let time: UInt32
  /// The size of the archive with its padding.
  public let byteCount: Int

  /// - Parameter time: seconds since 1970, given to every member.
  /// - Throws: for what the format cannot hold: a file of 4 GiB or more.
  public init(_ tree: FileTree, time: UInt32 = 0) throws(ImageError) {
    let entries = tree.entries()
    var names: [ObjectIdentifier: (left: Int, links: UInt32, inode: UInt32)] = [:]
    for entry in entries where CpioArchive.mayHaveManyNames(entry.node) {
      names[ObjectIdentifier(entry.node), default: (0, 0, 0)].left += 1
      names[ObjectIdentifier(entry.node), default: (0, 0, 0)].links += 1
    }
    var members: [Member] = []
    members.reserveCapacity(entries.count)
    var nextInode: UInt32 = 1
    var total = 0
    for (path, node) in entries {
      var member = Member(path: path, node: node, inode: nextInode, links: node.isDirectory ? 2 : 1, dataCount: 0)
      switch node.kind {
      case .file(let content): member.dataCount = content.count
      case .symbolicLink(let target): member.dataCount = target.count
      default: break
      }
      guard member.dataCount <= Int(UInt32.max) else {
        throw .refused("/\(text(path)): \(member.dataCount) bytes; a ramdisk holds files of less than 4 GiB")
      }
      if var known = names[ObjectIdentifier(node)], known.links > 1 {
        if known.inode == 0 { known.inode = nextInode }
        known.left -= 1
        member.inode = known.inode
        member.links = known.links
        if known.left > 0 { member.dataCount = 0 }
        names[ObjectIdentifier(node)] = known
      }
      if member.inode == nextInode { nextInode += 1 }
      total += CpioArchive.padded(CpioArchive.headerSize + path.count + 1) + CpioArchive.padded(member.dataCount)
      members.append(member)
    }
    total += CpioArchive.padded(CpioArchive.headerSize + CpioArchive.trailer.count + 1)
    self.members = members
    self.time = time
    byteCount = (total + CpioArchive.blockSize - 1) / CpioArchive.blockSize * CpioArchive.blockSize
  }

  private static func mayHaveManyNames(_ node: FileNode) -> Bool {
    if case .file = node.kind { true } else { false }
  }

  static func padded(_ count: Int) -> Int { (count + 3) & ~3 }

  /// Hands the archive to `sink` in pieces, exactly `byteCount` bytes in all.
  func write(_ sink: (UnsafeRawBufferPointer) throws(ImageError) -> Void) throws(ImageError) {
    var written = 0
    func put(_ bytes: [UInt8]) throws(ImageError) {
      written += bytes.count
      try FileContent.bytes(bytes).forEachChunk(sink)
    }
    for member in members {
      try put(header(member))
      guard member.dataCount > 0 else { continue }
      switch member.node.kind {
      case .file(let content):
        var count = 0
        try content.forEachChunk { (chunk) throws(ImageError) in
          count += chunk.count
          try sink(chunk)
        }
        guard count == member.dataCount else {
          throw .refused("/\(text(member.path)): changed while the image was built")
        }
        written += count
      case .symbolicLink(let target): try put(target)
      default: break
      }
      try put([UInt8](repeating: 0, count: CpioArchive.padded(written) - written))
    }
    try put(CpioArchive.header(path: CpioArchive.trailer, fields: [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]))
    try put([UInt8](repeating: 0, count: byteCount - written))
  }

  private func header(_ member: Member) -> [UInt8] {
    let node = member.node
    var device: (UInt32, UInt32) = (0, 0)
    let type: UInt32
    switch node.kind {
    case .directory: type = 0o040000
    case .file: type = 0o100000
    case .symbolicLink: type = 0o120000
    case .characterDevice(let major, let minor): (type, device) = (0o020000, (major, minor))
    case .blockDevice(let major, let minor): (type, device) = (0o060000, (major, minor))
    case .fifo: type = 0o010000
    }
    return CpioArchive.header(
      path: member.path,
      fields: [
        member.inode, type | node.permissions, node.owner, node.group, member.links, time,
        UInt32(truncatingIfNeeded: member.dataCount), 0, 0, device.0, device.1,
      ])
  }

  /// The magic, eleven fields, the name's size and the (unused) check sum in eight digits each, the name, padding.
  private static func header(path: [UInt8], fields: [UInt32]) -> [UInt8] {
    var bytes = magic
    bytes.reserveCapacity(padded(headerSize + path.count + 1))
    for field in fields + [UInt32(truncatingIfNeeded: path.count + 1), 0] {
      for shift in stride(from: 28, through: 0, by: -4) {
        let digit = UInt8(truncatingIfNeeded: field >> UInt32(shift) & 15)
        bytes.append(digit < 10 ? 0x30 + digit : 0x37 + digit)
      }
    }
    bytes += path
    bytes += [UInt8](repeating: 0, count: padded(headerSize + path.count + 1) - headerSize - path.count)
    return bytes
  }
}
