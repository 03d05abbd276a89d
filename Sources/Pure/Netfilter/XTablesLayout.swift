/// Sizes and places of the structures that legacy xtables exchanges with user space, on 64-bit machines: struct ipt_entry
/// of linux/netfilter_ipv4/ip_tables.h, struct ip6t_entry of linux/netfilter_ipv6/ip6_tables.h. A test compares them with
/// the kernel's headers.
struct XTablesLayout: Sendable {
  /// struct ipt_ip: source, destination, their masks, then the interface names and their masks.
  let addressSize: Int
  var sourceMask: Int { 2 * addressSize }
  var inputName: Int { 4 * addressSize }
  var outputName: Int { inputName + 16 }
  var inputMask: Int { inputName + 32 }
  var outputMask: Int { inputName + 48 }
  /// u16; in both families after the names.
  var transport: Int { inputName + 64 }
  let flags: Int
  let inverted: Int
  /// u16: where the target starts, and where the next entry does, both from the start of this one.
  let targetOffset: Int
  var nextOffset: Int { targetOffset + 2 }
  /// The size of the entry before its matches; its last 16 bytes are the counters (struct xt_counters).
  let entrySize: Int

  static let ip = XTablesLayout(addressSize: 4, flags: 82, inverted: 83, targetOffset: 88, entrySize: 112)
  static let ip6 = XTablesLayout(addressSize: 16, flags: 131, inverted: 132, targetOffset: 140, entrySize: 168)

  static func of(_ family: Ruleset.Family) -> XTablesLayout { family == .ip ? ip : ip6 }

  /// struct xt_entry_match and struct xt_entry_target: u16 size, name[29], u8 revision; the data follow.
  static let extensionSize = 32
  static let extensionName = 2..<31
  static let extensionRevision = 31
  /// struct xt_standard_target: an int32 verdict, or, when not negative, the offset of the entry to go on with.
  static let standardSize = 40
  /// struct xt_error_target: a name of 30 bytes. One stands at the head of each user chain and at the end of the table.
  static let errorSize = 64
  static let errorName = 30

  /// `-NF_ACCEPT - 1`, `-NF_DROP - 1`, and XT_RETURN, which is `-NF_REPEAT - 1` (linux/netfilter/x_tables.h).
  static let accept: Int32 = -2
  static let drop: Int32 = -1
  static let `return`: Int32 = -5

  /// XT_ALIGN: every size is a multiple of the alignment of u64.
  static func align(_ count: Int) -> Int { (count + 7) & ~7 }
}

/// Numbers in the machine's order at places of a byte array; nil and no effect outside of it.
extension [UInt8] {
  func number<T: FixedWidthInteger>(at offset: Int, as: T.Type = T.self) -> T? {
    guard offset >= 0, offset <= count - MemoryLayout<T>.size else { return nil }
    return withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: T.self) }
  }

  mutating func put<T: FixedWidthInteger>(_ value: T, at offset: Int) {
    put(Swift.withUnsafeBytes(of: value) { [UInt8]($0) }, at: offset)
  }

  mutating func put(_ bytes: some Collection<UInt8>, at offset: Int) {
    guard offset >= 0, offset <= count - bytes.count else { return }
    replaceSubrange(offset..<offset + bytes.count, with: bytes)
  }

  /// Text up to its NUL in a field.
  func text(in range: Range<Int>) -> String? {
    guard range.upperBound <= count else { return nil }
    return String(decoding: self[range].prefix { $0 != 0 }, as: UTF8.self)
  }

  static func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }
}
