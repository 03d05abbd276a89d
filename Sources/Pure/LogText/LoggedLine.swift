// What `LogLines` has written, read again: for programs of ours that look into a log. Total: any bytes give a line or nil.

/// A line of a log in one of the forms that name its source.
public struct LoggedLine: Equatable, Sendable {
  /// Such as "proxy", or with several enclaves "16/proxy".
  public var source: String
  /// As `text` shows it; of `json` the string itself.
  public var line: String

  /// Whether the enclave's proxy wrote it.
  public var isOfProxy: Bool { source == "proxy" || source.hasSuffix("/proxy") }

  /// `RECEIVED TIME SEQUENCE SOURCE | LINE`.
  public init?(text: String) {
    let words = text.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: false)
    guard words.count >= 5, words[4] == "|", Self.isTime(words[0]), Self.isTime(words[1]), UInt64(words[2]) != nil,
      !words[3].isEmpty
    else { return nil }
    source = String(words[3])
    line = words.count == 6 ? String(words[5]) : ""
  }

  /// `tombolo SOURCE: LINE`, which is how `raw` shows the lines of everybody but the program. The program can write such a line
  /// as well.
  public init?(raw: String) {
    let prefix = "tombolo "
    guard raw.hasPrefix(prefix) else { return nil }
    let rest = raw.dropFirst(prefix.count)
    guard let colon = rest.firstIndex(of: ":"), !rest[..<colon].isEmpty, !rest[..<colon].contains(" ") else {
      return nil
    }
    source = String(rest[..<colon])
    line = String(rest[rest.index(after: colon)...].drop { $0 == " " })
  }

  /// `2026-11-27T21:29:31.281Z`.
  private static func isTime(_ word: Substring) -> Bool {
    let bytes = Array(word.utf8)
    return bytes.count == 24 && bytes[10] == UInt8(ascii: "T") && bytes[23] == UInt8(ascii: "Z")
      && bytes[0..<4].allSatisfy { (0x30...0x39).contains($0) }
  }

  /// One object of strings, numbers and words, in any order and with any white space (RFC 8259).
  public init?(json: String) {
    var reader = FlatObject(bytes: Array(json.utf8)[...])
    guard let fields = reader.fields(), let source = fields["source"], let line = fields["line"] else { return nil }
    self.source = source
    self.line = line
  }
}

/// A JSON object whose values are no objects and no arrays; of the others the strings.
private struct FlatObject {
  var bytes: ArraySlice<UInt8>

  mutating func fields() -> [String: String]? {
    var found: [String: String] = [:]
    guard take("{") else { return nil }
    while true {
      guard let key = string(), take(":") else { return nil }
      skipSpace()
      if bytes.first == UInt8(ascii: "\"") {
        guard let value = string() else { return nil }
        found[key] = value
      } else {
        let count = bytes.prefix { ![0x2c, 0x7d, 0x22, 0x5b, 0x7b].contains($0) }.count
        guard count > 0 else { return nil }
        bytes = bytes.dropFirst(count)
      }
      if take(",") { continue }
      guard take("}") else { return nil }
      skipSpace()
      return bytes.isEmpty ? found : nil
    }
  }

  private mutating func skipSpace() { bytes = bytes.drop { $0 == 0x20 || (0x09...0x0d).contains($0) } }

  private mutating func take(_ character: Unicode.Scalar) -> Bool {
    skipSpace()
    guard let first = bytes.first, UInt32(first) == character.value else { return false }
    bytes = bytes.dropFirst()
    return true
  }

  private mutating func string() -> String? {
    guard take("\"") else { return nil }
    var text: [UInt8] = []
    while let byte = bytes.popFirst() {
      switch byte {
      case UInt8(ascii: "\""): return String(validating: text, as: UTF8.self)
      case UInt8(ascii: "\\"):
        guard let escaped = escape() else { return nil }
        text += Array(String(escaped).utf8)
      case ..<0x20: return nil
      default: text.append(byte)
      }
    }
    return nil
  }

  private mutating func escape() -> Unicode.Scalar? {
    switch bytes.popFirst() {
    case UInt8(ascii: "\""): return "\""
    case UInt8(ascii: "\\"): return "\\"
    case UInt8(ascii: "/"): return "/"
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{c}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"):
      guard let unit = unit() else { return nil }
      guard (0xd800...0xdbff).contains(unit) else { return Unicode.Scalar(unit) }
      guard bytes.popFirst() == UInt8(ascii: "\\"), bytes.popFirst() == UInt8(ascii: "u"), let low = self.unit(),
        (0xdc00...0xdfff).contains(low)
      else { return nil }
      return Unicode.Scalar(0x10000 + (unit - 0xd800) << 10 + (low - 0xdc00))
    default: return nil
    }
  }

  private mutating func unit() -> UInt32? {
    let digits = bytes.prefix(4)
    bytes = bytes.dropFirst(4)
    guard digits.count == 4, digits.first != UInt8(ascii: "+"), digits.first != UInt8(ascii: "-") else { return nil }
    return UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
  }
}
