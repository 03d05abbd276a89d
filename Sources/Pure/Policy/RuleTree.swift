// Theory of operation.
//
// An address is a string of bits of which a prefix is the beginning; a name is a string of labels, from the last to the
// first, of which a domain is the beginning. So one structure finds the rules for both. All keys stand in order, the
// shorter before the longer; each knows its parent, the longest other key that it begins with. The keys that a string
// begins with are then the last key that is not behind it in that order, as far as the string begins with it, and that
// key's parents: whatever the string begins with stands before it, and everything between the two begins with it as well.
//
// So a question costs one binary search and as many steps as there are keys above the one found. There are no nodes to
// allocate and none to follow: 100,000 rules are a few megabytes in three arrays.

/// Finds the keys with which a string begins.
struct RuleTree: Sendable {
  struct Key {
    var bytes: [UInt8]
    /// How many bits of them count; those behind are zero.
    var bits: Int
    /// What the key stands for.
    var rule: Int
  }

  private struct Entry {
    var offset: UInt32
    var bits: UInt16
    var rule: UInt32
    /// -1 for none.
    var parent: Int32

    var byteCount: Int { (Int(bits) + 7) / 8 }
  }

  private var bytes: [UInt8] = []
  private var entries: [Entry] = []

  var isEmpty: Bool { entries.isEmpty }

  /// - Parameter keys: of at most 65,535 bits; of equal ones the one with the smallest rule is found first.
  init(_ keys: [Key]) {
    let sorted = keys.sorted { a, b in
      let order = Self.order(a.bytes, b.bytes)
      if order != 0 { return order < 0 }
      return a.bits != b.bits ? a.bits < b.bits : a.rule > b.rule
    }
    entries.reserveCapacity(sorted.count)
    var above: [Int] = []
    for (index, key) in sorted.enumerated() {
      while let last = above.last, !Self.begins(key.bytes, with: sorted[last]) { above.removeLast() }
      entries.append(
        Entry(
          offset: UInt32(truncatingIfNeeded: bytes.count), bits: UInt16(truncatingIfNeeded: key.bits),
          rule: UInt32(truncatingIfNeeded: key.rule), parent: above.last.map { Int32(truncatingIfNeeded: $0) } ?? -1))
      bytes += key.bytes
      above.append(index)
    }
  }

  private static func order(_ a: [UInt8], _ b: [UInt8]) -> Int {
    for index in 0..<min(a.count, b.count) where a[index] != b[index] { return a[index] < b[index] ? -1 : 1 }
    return a.count - b.count
  }

  private static func begins(_ string: [UInt8], with key: Key) -> Bool {
    string.withUnsafeBytes { string in key.bytes.withUnsafeBytes { begins(string, with: $0, key.bits) } }
  }

  private static func begins(_ string: UnsafeRawBufferPointer, with key: UnsafeRawBufferPointer, _ bits: Int) -> Bool {
    let whole = bits / 8
    guard string.count >= key.count else { return false }
    for index in 0..<whole where string[index] != key[index] { return false }
    return bits % 8 == 0 || (string[whole] ^ key[whole]) >> UInt8(8 - bits % 8) == 0
  }

  /// The rules whose keys the string begins with, the longest key first, until one is wanted. Allocates nothing.
  /// - Parameter wanted: takes a rule and its key's bits.
  /// - Returns: the rule that was wanted.
  func first(_ string: UnsafeRawBufferPointer, where wanted: (_ rule: Int, _ bits: Int) -> Bool) -> Int? {
    guard !entries.isEmpty else { return nil }
    return bytes.withUnsafeBytes { bytes in
      entries.withUnsafeBufferPointer { entries in
        var low = 0
        var high = entries.count
        while low < high {
          let middle = (low + high) / 2
          if Self.isBehind(Self.key(entries[middle], bytes), string) { high = middle } else { low = middle + 1 }
        }
        var index = low - 1
        while index >= 0 {
          let entry = entries[index]
          if Self.begins(string, with: Self.key(entry, bytes), Int(entry.bits)),
            wanted(Int(entry.rule), Int(entry.bits))
          {
            return Int(entry.rule)
          }
          index = Int(entry.parent)
        }
        return nil
      }
    }
  }

  private static func key(_ entry: Entry, _ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: bytes[Int(entry.offset)..<Int(entry.offset) + entry.byteCount])
  }

  private static func isBehind(_ key: UnsafeRawBufferPointer, _ string: UnsafeRawBufferPointer) -> Bool {
    for index in 0..<min(key.count, string.count) where key[index] != string[index] {
      return key[index] > string[index]
    }
    return key.count > string.count
  }
}
