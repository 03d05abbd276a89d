/// One member of a cpio archive, as it stands there.
public struct CpioMember: Sendable {
  public var path: [UInt8]
  public var inode: UInt32
  public var mode: UInt32
  public var owner: UInt32
  public var group: UInt32
  public var links: UInt32
  public var time: UInt32
  public var device: (major: UInt32, minor: UInt32)
  public var content: FileSlice
}

/// Reads "newc" archives, several in a row as the kernel takes them (zeros between them are passed over).
///
/// Total: any bytes give members, an end, or an error that says where and what.
public struct CpioReader {
  private let source: FileSlice
  private var position = 0
  private var withinArchive = false

  public init(_ source: FileSlice) { self.source = source }

  /// The next member, nil at the end of the last archive.
  public mutating func next() throws(ImageError) -> CpioMember? {
    while true {
      if !withinArchive {
        try passZeros()
        if position >= source.count { return nil }
        withinArchive = true
      }
      let member = try read()
      guard member.path == CpioArchive.trailer else { return member }
      withinArchive = false
    }
  }

  private mutating func passZeros() throws(ImageError) {
    while position < source.count {
      let bytes = try source.bytes(at: position, CpioArchive.blockSize)
      let zeros = bytes.prefix { $0 == 0 }.count
      position += zeros
      if zeros < bytes.count { return }
    }
  }

  private mutating func read() throws(ImageError) -> CpioMember {
    let start = position
    let header = try source.bytes(at: start, CpioArchive.headerSize)
    guard header.count == CpioArchive.headerSize else {
      throw damaged(start, source.count == start ? "the archive ends without its trailer" : "it ends within a header")
    }
    guard header.starts(with: CpioArchive.magic) else { throw damaged(start, "no newc header (070701) stands here") }
    var fields: [UInt32] = []
    for index in 0..<13 {
      guard let value = CpioReader.number(header[6 + 8 * index..<14 + 8 * index]) else {
        throw damaged(start, "a header field is not a hexadecimal number")
      }
      fields.append(value)
    }
    let nameSize = Int(fields[11])
    guard nameSize > 1, nameSize <= 4096 else {
      throw damaged(start, "a name of \(nameSize) bytes; 2 to 4096 were expected")
    }
    let name = try source.bytes(at: start + CpioArchive.headerSize, nameSize)
    guard name.count == nameSize else { throw damaged(start, "it ends within a name") }
    guard name.firstIndex(of: 0) == nameSize - 1 else { throw damaged(start, "a name does not end with its only NUL") }
    let dataStart = start + CpioArchive.padded(CpioArchive.headerSize + nameSize)
    guard let content = source.part(dataStart, Int(fields[6]), name: "\(source.name): \(text(name.dropLast()))") else {
      throw damaged(start, "it ends within \(text(name.dropLast()))")
    }
    position = dataStart + CpioArchive.padded(content.count)
    return CpioMember(
      path: Array(name.dropLast()), inode: fields[0], mode: fields[1], owner: fields[2], group: fields[3],
      links: fields[4], time: fields[5], device: (fields[9], fields[10]), content: content)
  }

  private static func number(_ digits: ArraySlice<UInt8>) -> UInt32? {
    var value: UInt32 = 0
    for digit in digits {
      switch digit {
      case 0x30...0x39: value = value << 4 | UInt32(digit - 0x30)
      case 0x41...0x46: value = value << 4 | UInt32(digit - 0x37)
      case 0x61...0x66: value = value << 4 | UInt32(digit - 0x57)
      default: return nil
      }
    }
    return value
  }

  private func damaged(_ at: Int, _ what: String) -> ImageError {
    .malformed(file: source.name, "damaged cpio archive at byte \(at): \(what)")
  }
}
