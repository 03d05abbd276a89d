// Bytes as text, and the part of JSON (RFC 8259) that bodies of a few named texts are written in.

public enum TextCodings {
  public static func hex(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    text.reserveCapacity(bytes.count * 2)
    for byte in bytes { text += [digits[Int(byte >> 4)], digits[Int(byte & 15)]] }
    return String(decoding: text, as: UTF8.self)
  }

  public static func bytes(hex text: String) -> [UInt8]? {
    var bytes: [UInt8] = []
    var rest = text.utf8[...]
    while let high = rest.popFirst() {
      guard let low = rest.popFirst(), let high = hexValue(high), let low = hexValue(low) else { return nil }
      bytes.append(high << 4 | low)
    }
    return bytes
  }

  /// RFC 4648, section 4, with padding.
  public static func base64(_ bytes: [UInt8]) -> String {
    let letters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count + 2) / 3 * 4)
    var rest = bytes[...]
    while let first = rest.popFirst() {
      let second = rest.popFirst()
      let third = rest.popFirst()
      let group = Int(first) << 16 | Int(second ?? 0) << 8 | Int(third ?? 0)
      text += [letters[group >> 18], letters[group >> 12 & 63]]
      text.append(second == nil ? 0x3d : letters[group >> 6 & 63])
      text.append(third == nil ? 0x3d : letters[group & 63])
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// Either alphabet of RFC 4648, with or without padding; bits that stand for nothing are zeros.
  public static func bytes(base64 text: String) -> [UInt8]? {
    var digits = Array(text.utf8)[...]
    var padding = 0
    while digits.last == 0x3d, padding < 2 {
      digits.removeLast()
      padding += 1
    }
    guard digits.count % 4 != 1, padding == 0 || (digits.count + padding) % 4 == 0 else { return nil }
    var bytes: [UInt8] = []
    var bits: UInt32 = 0
    var count = 0
    for digit in digits {
      guard let value = base64Value(digit) else { return nil }
      bits = bits << 6 | UInt32(value)
      count += 6
      if count >= 8 {
        count -= 8
        bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
        bits &= (1 << UInt32(count)) - 1
      }
    }
    return bits == 0 ? bytes : nil
  }

  private static func base64Value(_ digit: UInt8) -> UInt8? {
    switch digit {
    case 0x41...0x5a: digit - 0x41
    case 0x61...0x7a: digit - 0x61 + 26
    case 0x30...0x39: digit - 0x30 + 52
    case 0x2b, 0x2d: 62
    case 0x2f, 0x5f: 63
    default: nil
    }
  }

  /// The contents of the one block of a PEM file (RFC 7468), whatever it is of.
  public static func bytes(pem text: String) -> [UInt8]? {
    var contents = ""
    var isInside = false
    var isDone = false
    for line in text.utf8.split(whereSeparator: { $0 == 0x0a || $0 == 0x0d }) {
      let line = String(decoding: line, as: UTF8.self)
      if line.hasPrefix("-----BEGIN ") {
        guard !isInside, !isDone else { return nil }
        isInside = true
      } else if line.hasPrefix("-----END ") {
        guard isInside else { return nil }
        isInside = false
        isDone = true
      } else if isInside {
        contents += line
      }
    }
    return isDone && !isInside && !contents.isEmpty ? bytes(base64: contents) : nil
  }
}

/// A JSON value, as far as anybody asks: what is neither text nor null is there, and has no contents.
public enum JSONText: Equatable, Sendable {
  case text(String)
  case null
  case other

  /// The members of the one object that `bytes` are; nil where they are no JSON, no object, or have a name twice.
  public static func object(_ bytes: [UInt8]) -> [(name: String, value: JSONText)]? {
    var reader = JSONReader(rest: bytes[...])
    guard let members = reader.object(depth: 0), reader.isAtEnd else { return nil }
    return members
  }

  /// A text with its quotes.
  public static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"", "\\": result += "\\\(scalar)"
      case "\u{0}"..<" ": result += "\\u00" + TextCodings.hex([UInt8(truncatingIfNeeded: scalar.value)])
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}

private struct JSONReader {
  var rest: ArraySlice<UInt8>
  private static let depthLimit = 16
  private static let memberLimit = 64

  init(rest: ArraySlice<UInt8>) { self.rest = rest }

  var isAtEnd: Bool { rest.allSatisfy(Self.isBlank) }

  private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d }

  private mutating func skipBlanks() { rest = rest.drop(while: Self.isBlank) }

  private mutating func take(_ byte: UInt8) -> Bool {
    skipBlanks()
    guard rest.first == byte else { return false }
    rest.removeFirst()
    return true
  }

  mutating func object(depth: Int) -> [(name: String, value: JSONText)]? {
    guard depth < Self.depthLimit, take(0x7b) else { return nil }
    var members: [(name: String, value: JSONText)] = []
    if take(0x7d) { return members }
    repeat {
      skipBlanks()
      guard members.count < Self.memberLimit, let name = string(), take(0x3a), let value = value(depth: depth + 1),
        !members.contains(where: { $0.name == name })
      else { return nil }
      members.append((name, value))
    } while take(0x2c)
    return take(0x7d) ? members : nil
  }

  private mutating func value(depth: Int) -> JSONText? {
    skipBlanks()
    switch rest.first {
    case 0x22?: return string().map { .text($0) }
    case 0x7b?: return object(depth: depth) == nil ? nil : .other
    case 0x5b?: return array(depth: depth) ? .other : nil
    case 0x6e?: return word("null") ? .null : nil
    case 0x74?: return word("true") ? .other : nil
    case 0x66?: return word("false") ? .other : nil
    default:
      let number = rest.prefix { (0x30...0x39).contains($0) || "+-.eE".utf8.contains($0) }
      guard Double(String(decoding: number, as: UTF8.self)) != nil else { return nil }
      rest = rest.dropFirst(number.count)
      return .other
    }
  }

  private mutating func array(depth: Int) -> Bool {
    guard depth < Self.depthLimit, take(0x5b) else { return false }
    if take(0x5d) { return true }
    repeat { if value(depth: depth + 1) == nil { return false } } while take(0x2c)
    return take(0x5d)
  }

  private mutating func word(_ word: String) -> Bool {
    guard rest.starts(with: word.utf8) else { return false }
    rest = rest.dropFirst(word.utf8.count)
    return true
  }

  private mutating func string() -> String? {
    guard rest.popFirst() == 0x22 else { return nil }
    var bytes: [UInt8] = []
    while let byte = rest.popFirst() {
      switch byte {
      case 0x22: return String(validating: bytes, as: UTF8.self)
      case 0x5c:
        guard let scalar = escaped() else { return nil }
        bytes += Array(String(Character(scalar)).utf8)
      case ..<0x20: return nil
      default: bytes.append(byte)
      }
    }
    return nil
  }

  private mutating func escaped() -> Unicode.Scalar? {
    switch rest.popFirst() {
    case 0x22?: return "\""
    case 0x5c?: return "\\"
    case 0x2f?: return "/"
    case 0x62?: return "\u{8}"
    case 0x66?: return "\u{c}"
    case 0x6e?: return "\n"
    case 0x72?: return "\r"
    case 0x74?: return "\t"
    case 0x75?:
      guard let first = unit() else { return nil }
      guard (0xd800..<0xdc00).contains(first) else { return Unicode.Scalar(first) }
      guard rest.popFirst() == 0x5c, rest.popFirst() == 0x75, let second = unit(), (0xdc00..<0xe000).contains(second)
      else { return nil }
      return Unicode.Scalar(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    default: return nil
    }
  }

  private mutating func unit() -> UInt32? {
    var value: UInt32 = 0
    for _ in 0..<4 {
      guard let digit = rest.popFirst().flatMap(hexValue) else { return nil }
      value = value << 4 | UInt32(digit)
    }
    return value
  }
}
