/// One member of a tar archive.
struct TarEntry {
  enum Kind {
    case file(FileSlice)
    case directory
    case symbolicLink([UInt8])
    case hardLink([UInt8])
    case characterDevice(major: UInt32, minor: UInt32)
    case blockDevice(major: UInt32, minor: UInt32)
    case fifo
  }
  var path: [UInt8]
  var kind: Kind
  var permissions: UInt32
  var owner: UInt32
  var group: UInt32
}

/// Reads tar archives: v7, ustar (POSIX.1-1988), pax (POSIX.1-2001) and GNU, as GNU tar, bsdtar, Docker and BuildKit
/// write them. Times and extended attributes are passed over: an image has a place for neither.
///
/// Total: any bytes give members, an end, or an error that says where and what.
struct TarReader {
  private static let block = 512
  /// Names and pax records are held in memory.
  private static let longestExtension = 1 << 20

  private let source: FileSlice
  private var position = 0
  private var globalRecords: [String: [UInt8]] = [:]

  init(_ source: FileSlice) { self.source = source }

  /// Whether this may be a tar archive: its first block has a right checksum, or it is the end of an empty one.
  static func recognises(_ source: FileSlice) throws(ImageError) -> Bool {
    let first = try source.bytes(at: 0, block)
    guard first.count == block else { return false }
    return first.allSatisfy { $0 == 0 } || Header(first)?.checksumIsRight == true
  }

  /// The next member, nil at the end.
  mutating func next() throws(ImageError) -> TarEntry? {
    var records = globalRecords
    var longName: [UInt8]?
    var longLink: [UInt8]?
    while true {
      let at = position
      let bytes = try source.bytes(at: position, TarReader.block)
      // GNU tar only warns of archives that end without their two blocks of zeros; Go, and so Docker, says nothing.
      if bytes.isEmpty || bytes.allSatisfy({ $0 == 0 }) && bytes.count == TarReader.block { return nil }
      guard let header = Header(bytes) else { throw damaged(at, "the archive ends within a header") }
      guard header.checksumIsRight else { throw damaged(at, "a header's checksum is wrong") }
      position += TarReader.block
      guard var size = header.size else { throw damaged(at, "a size is not a number") }
      switch header.type {
      case "x", "g":
        let parsed = try pax(try contents(size, at), at)
        if header.type == "g" { globalRecords.merge(parsed) { $1 } }
        records.merge(parsed) { $1 }
      case "L": longName = Array(try contents(size, at).prefix { $0 != 0 })
      case "K": longLink = Array(try contents(size, at).prefix { $0 != 0 })
      case "V": _ = try skip(size, at)  // a volume's label
      default:
        if let text = records["size"] {
          guard let number = decimal(text) else { throw damaged(at, "a pax size is not a number") }
          size = number
        }
        let path = longName ?? records["path"] ?? header.path
        let link = longLink ?? records["linkpath"] ?? header.link
        return try entry(header, path, link, size, records, at)
      }
    }
  }

  private mutating func entry(
    _ header: Header, _ path: [UInt8], _ link: [UInt8], _ size: Int, _ records: [String: [UInt8]], _ at: Int
  ) throws(ImageError) -> TarEntry {
    guard !path.contains(0), !link.contains(0) else { throw damaged(at, "a name has a NUL in it") }
    if header.type == "S" || records.keys.contains(where: { $0.hasPrefix("GNU.sparse") }) {
      throw .malformed(
        file: source.name,
        "\(text(path)) is stored as a sparse file, which is not supported; write the archive without --sparse")
    }
    let device = (header.deviceMajor, header.deviceMinor)
    let kind: TarEntry.Kind
    switch header.type {
    case "0", "\0", "7":
      kind = path.last == UInt8(ascii: "/") ? .directory : .file(try skip(size, at, name: text(path)))
    case "1": kind = .hardLink(link)
    case "2": kind = .symbolicLink(link)
    case "3": kind = .characterDevice(major: device.0, minor: device.1)
    case "4": kind = .blockDevice(major: device.0, minor: device.1)
    case "5": kind = .directory
    case "6": kind = .fifo
    default: throw damaged(at, "\(text(path)) is a member of unknown type \"\(header.type)\"")
    }
    guard let owner = identifier(records["uid"], header.owner), let group = identifier(records["gid"], header.group),
      let permissions = header.permissions
    else { throw damaged(at, "\(text(path)) has an owner, group or mode that is not a number") }
    return TarEntry(path: path, kind: kind, permissions: permissions, owner: owner, group: group)
  }

  private func identifier(_ record: [UInt8]?, _ field: Int?) -> UInt32? {
    (record.map(decimal) ?? field).flatMap { UInt32(exactly: $0) }
  }

  private func decimal(_ bytes: [UInt8]) -> Int? {
    guard !bytes.isEmpty, bytes.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
    return Int(text(bytes))
  }

  /// Passes over a member's contents and the padding behind them.
  private mutating func skip(_ size: Int, _ at: Int, name: String = "") throws(ImageError) -> FileSlice {
    guard let contents = source.part(position, size, name: name.isEmpty ? nil : "\(source.name): \(name)") else {
      throw damaged(at, "the archive ends within a member of \(size) bytes\(name.isEmpty ? "" : " (\(name))")")
    }
    // The last member's padding may be missing where the archive ends.
    position = min(source.count, (position + size + TarReader.block - 1) / TarReader.block * TarReader.block)
    return contents
  }

  private mutating func contents(_ size: Int, _ at: Int) throws(ImageError) -> [UInt8] {
    guard size <= TarReader.longestExtension else { throw damaged(at, "an extended header of \(size) bytes") }
    return try skip(size, at).bytes(at: 0, size)
  }

  /// `length key=value\n` records, the length counting itself.
  private func pax(_ bytes: [UInt8], _ at: Int) throws(ImageError) -> [String: [UInt8]] {
    var records: [String: [UInt8]] = [:]
    var rest = bytes[...]
    while !rest.isEmpty {
      let digits = rest.prefix { $0 != UInt8(ascii: " ") }
      guard let length = decimal(Array(digits)), length <= rest.count, length > digits.count + 1 else {
        throw damaged(at, "a pax record's length is wrong")
      }
      let record = rest.prefix(length).dropFirst(digits.count + 1)
      rest = rest.dropFirst(length)
      guard record.last == UInt8(ascii: "\n"), let equals = record.firstIndex(of: UInt8(ascii: "=")) else {
        throw damaged(at, "a pax record is not key=value and a line feed")
      }
      records[text(record[..<equals])] = Array(record[(equals + 1)...].dropLast())
    }
    return records
  }

  private func damaged(_ at: Int, _ what: String) -> ImageError {
    .malformed(file: source.name, "damaged tar archive at byte \(at): \(what)")
  }
}

/// A header block. Fields and their places: POSIX.1-1988 ustar, and tar.h of GNU tar for base-256 numbers.
private struct Header {
  let bytes: [UInt8]

  init?(_ bytes: [UInt8]) {
    guard bytes.count == 512 else { return nil }
    self.bytes = bytes
  }

  var checksumIsRight: Bool {
    guard let stored = number(148, 8) else { return false }
    let counted = bytes.enumerated().map { (148..<156).contains($0.offset) ? 32 : $0.element }
    // Some old tars summed signed bytes.
    return stored == counted.reduce(0) { $0 + Int($1) }
      || stored == counted.reduce(0) { $0 + Int(Int8(bitPattern: $1)) }
  }

  var type: Character { Character(Unicode.Scalar(bytes[156])) }
  var permissions: UInt32? { number(100, 8).map { UInt32(truncatingIfNeeded: $0) & 0o7777 } }
  var owner: Int? { number(108, 8) }
  var group: Int? { number(116, 8) }
  var size: Int? { number(124, 12) }
  var link: [UInt8] { string(157, 100) }
  var deviceMajor: UInt32 { UInt32(truncatingIfNeeded: number(329, 8) ?? 0) }
  var deviceMinor: UInt32 { UInt32(truncatingIfNeeded: number(337, 8) ?? 0) }

  var path: [UInt8] {
    let name = string(0, 100)
    // GNU's magic is "ustar  ", and it has times where POSIX has the prefix.
    guard bytes[257..<263].elementsEqual("ustar\0".utf8), bytes[345] != 0 else { return name }
    return string(345, 155) + [UInt8(ascii: "/")] + name
  }

  private func string(_ offset: Int, _ count: Int) -> [UInt8] {
    Array(bytes[offset..<offset + count].prefix { $0 != 0 })
  }

  /// Octal digits between spaces and NULs, or (first bit set) a base-256 number; nil for anything else and for
  /// negative numbers. An empty field is 0.
  private func number(_ offset: Int, _ count: Int) -> Int? {
    let field = bytes[offset..<offset + count]
    guard let first = field.first else { return nil }
    if first & 0x80 != 0 {
      guard first == 0x80, field.dropFirst().dropLast(7).allSatisfy({ $0 == 0 }) else { return nil }
      return field.suffix(7).reduce(0) { $0 << 8 | Int($1) }
    }
    let digits = field.drop { $0 == 32 }.prefix { $0 != 32 && $0 != 0 }
    guard digits.allSatisfy({ $0 >= 0x30 && $0 <= 0x37 }) else { return nil }
    return digits.reduce(0) { $0 << 3 | Int($1 - 0x30) }
  }
}
