/// One entry of a legacy table: a rule, a chain's policy or name.
struct XTablesEntry: Hashable, Sendable {
  enum Target: Hashable, Sendable {
    /// A negative standard verdict.
    case verdict(Int32)
    /// Another entry, by its `id`: the first of a user chain, or the next one (a rule that only counts).
    case entry(Int)
    /// XT_ERROR_TARGET
    case error(String)
    /// A target such as REDIRECT, inside `bytes`.
    case other
  }

  /// Unique in its table. Entries read from the kernel have their place there, which is where their counters are.
  var id: Int
  /// All of the entry. The verdict of a `.entry` target is only right once the table has been laid out.
  var bytes: [UInt8]
  var target: Target

  /// Reads the entry at `offset` of a table. What a `.entry` target holds is an offset, still.
  static func parse(
    _ blob: [UInt8], at offset: Int, id: Int, _ layout: XTablesLayout
  ) throws(XTablesError) -> XTablesEntry {
    guard offset <= blob.count - layout.entrySize,
      let targetOffset = blob.number(at: offset + layout.targetOffset, as: UInt16.self).map(Int.init),
      let size = blob.number(at: offset + layout.nextOffset, as: UInt16.self).map(Int.init)
    else { throw XTablesError("entry \(id) at \(offset): cut off") }
    guard size <= blob.count - offset, size % 8 == 0, targetOffset >= layout.entrySize,
      targetOffset <= size - XTablesLayout.extensionSize
    else { throw XTablesError("entry \(id) at \(offset): target at \(targetOffset), end at \(size)") }
    let bytes = Array(blob[offset..<offset + size])
    guard let targetSize = bytes.number(at: targetOffset, as: UInt16.self).map(Int.init),
      targetSize >= XTablesLayout.extensionSize, targetSize <= size - targetOffset,
      let name = bytes.text(in: shift(XTablesLayout.extensionName, by: targetOffset))
    else { throw XTablesError("entry \(id) at \(offset): target cut off") }
    let data = targetOffset + XTablesLayout.extensionSize
    let target: Target
    switch name {
    case "":
      guard let verdict = bytes.number(at: data, as: Int32.self) else {
        throw XTablesError("entry \(id) at \(offset): verdict cut off")
      }
      target = verdict < 0 ? .verdict(verdict) : .entry(Int(verdict))
    case "ERROR":
      guard let chain = bytes.text(in: data..<data + XTablesLayout.errorName) else {
        throw XTablesError("entry \(id) at \(offset): name cut off")
      }
      target = .error(chain)
    default: target = .other
    }
    return XTablesEntry(id: id, bytes: bytes, target: target)
  }

  /// An entry that matches everything.
  init(id: Int, _ target: Target, _ layout: XTablesLayout) {
    var body: [UInt8]
    switch target {
    case .verdict(let verdict):
      body = XTablesRules.extensionBytes("", revision: 0, size: 4)
      body.put(verdict, at: XTablesLayout.extensionSize)
    case .entry, .other: body = XTablesRules.extensionBytes("", revision: 0, size: 4)
    case .error(let name):
      body = XTablesRules.extensionBytes("ERROR", revision: 0, size: XTablesLayout.errorName)
      body.put(name.utf8.prefix(XTablesLayout.errorName - 1), at: XTablesLayout.extensionSize)
    }
    self.init(id: id, head: .zeros(layout.entrySize), matches: [], targetBytes: body, target, layout)
  }

  init(
    id: Int, head: [UInt8], matches: [UInt8], targetBytes: [UInt8], _ target: Target, _ layout: XTablesLayout
  ) {
    self.id = id
    self.target = target
    bytes = head + matches + targetBytes
    bytes.put(UInt16(clamping: head.count + matches.count), at: layout.targetOffset)
    bytes.put(UInt16(clamping: bytes.count), at: layout.nextOffset)
  }

  private init(id: Int, bytes: [UInt8], target: Target) {
    self.id = id
    self.bytes = bytes
    self.target = target
  }

  /// The bytes with a standard target that goes on at `offset`.
  func bytes(goingOnAt offset: Int, _ layout: XTablesLayout) -> [UInt8] {
    var bytes = bytes
    if let target = bytes.number(at: layout.targetOffset, as: UInt16.self) {
      bytes.put(Int32(clamping: offset), at: Int(target) + XTablesLayout.extensionSize)
    }
    return bytes
  }

  private static func shift(_ range: Range<Int>, by offset: Int) -> Range<Int> {
    range.lowerBound + offset..<range.upperBound + offset
  }
}

/// Why a legacy table could not be understood.
public struct XTablesError: Error, Equatable, CustomStringConvertible, Sendable {
  public var reason: String
  init(_ reason: String) { self.reason = reason }
  public var description: String { "xtables: \(reason)" }
}
