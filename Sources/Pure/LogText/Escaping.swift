// Theory of operation.
//
// What a program writes is shown to people and read by programs, so nothing in it may act: a terminal obeys escape
// sequences, a carriage return hides what stands before it, a bidirectional override shows a line in another order than
// it has. Bytes that could act are written as what they are. One pass copies eight bytes at a time up to the next byte
// that may need a look; the rest is looked at one scalar at a time.

/// How bytes are made harmless.
enum Escaping {
  /// `\x1b` for a byte, `\u{202e}` for a character.
  case text
  /// As `text`; newlines stay.
  case lines
  /// The inside of a JSON string (RFC 8259 section 7). A piece that is not UTF-8 becomes U+FFFD.
  case json

  /// An input byte becomes at most this many: `\u001b`, of one byte.
  static let growth = 6
  /// What `escape` may write beyond that.
  static let slack = 8
}

/// - Parameter output: room for `source.count * Escaping.growth + Escaping.slack`.
/// - Returns: how many bytes were written, and whether something of `source` was not UTF-8.
@inline(__always)
func escape(
  _ source: UnsafeRawBufferPointer, as style: Escaping, to output: UnsafeMutableRawBufferPointer
) -> (count: Int, isUTF8: Bool) {
  guard let from = source.baseAddress, let to = output.baseAddress else { return (0, true) }
  precondition(output.count >= source.count * Escaping.growth + Escaping.slack)
  var index = 0
  var written = 0
  var isUTF8 = true
  while true {
    // Eight at a time: the store takes all of them, and only those before the first special one count.
    while source.count - index >= 8 {
      let word = from.loadUnaligned(fromByteOffset: index, as: UInt64.self)
      to.storeBytes(of: word, toByteOffset: written, as: UInt64.self)
      let special = specialBytes(UInt64(littleEndian: word), style)
      let plain = special == 0 ? 8 : special.trailingZeroBitCount / 8
      index += plain
      written += plain
      if plain < 8 { break }
    }
    guard index < source.count else { break }
    let byte = source[index]
    switch byte {
    case 0x20...0x7e:
      if style == .json, byte == 0x22 || byte == 0x5c {
        to.storeBytes(of: 0x5c, toByteOffset: written, as: UInt8.self)
        written += 1
      }
      to.storeBytes(of: byte, toByteOffset: written, as: UInt8.self)
      written += 1
      index += 1
    case 0x80...:
      let found = scalar(source, at: index)
      if found.isValid, !acts(found.value) {
        for offset in 0..<found.length {
          to.storeBytes(of: source[index + offset], toByteOffset: written + offset, as: UInt8.self)
        }
        written += found.length
      } else if found.isValid {
        written += putEscape(found.value, style, to + written)
      } else {
        isUTF8 = false
        written += putInvalid(source, index..<index + found.length, style, to + written)
      }
      index += found.length
    default:
      written += putControl(byte, style, to + written)
      index += 1
    }
  }
  return (written, isUTF8)
}

/// The highest bit of each byte that is special; right up to the lowest one that is, which is all that counts: a borrow can
/// only spoil the bytes above it ("hasless" and "haszero" of Sean Anderson's Bit Twiddling Hacks).
@inline(__always) private func specialBytes(_ word: UInt64, _ style: Escaping) -> UInt64 {
  let ones: UInt64 = 0x0101_0101_0101_0101
  let highs: UInt64 = 0x8080_8080_8080_8080
  @inline(__always) func equal(_ byte: UInt64) -> UInt64 {
    let difference = word ^ (ones &* byte)
    return (difference &- ones) & ~difference
  }
  var special = word | ((word &- ones &* 0x20) & ~word) | equal(0x7f)
  if style == .json { special |= equal(0x22) | equal(0x5c) }
  return special & highs
}

/// Where the first newline is.
@inline(__always) func firstNewline(_ bytes: UnsafeRawBufferPointer) -> Int? {
  guard let base = bytes.baseAddress else { return nil }
  let ones: UInt64 = 0x0101_0101_0101_0101
  var index = 0
  while bytes.count - index >= 8 {
    let word = UInt64(littleEndian: base.loadUnaligned(fromByteOffset: index, as: UInt64.self)) ^ (ones &* 0x0a)
    let found = (word &- ones) & ~word & 0x8080_8080_8080_8080
    if found != 0 { return index + found.trailingZeroBitCount / 8 }
    index += 8
  }
  while index < bytes.count {
    if bytes[index] == 0x0a { return index }
    index += 1
  }
  return nil
}

/// What stands at an index of foreign bytes: a scalar, or a piece that begins like one and is none ("maximal subpart", The
/// Unicode Standard 3.9, table 3-7), which is one U+FFFD.
struct ScalarFound {
  var value: UInt32
  var length: Int
  var isValid: Bool
  /// The bytes ended before the scalar did.
  var isCut = false
}

func scalar(_ bytes: UnsafeRawBufferPointer, at index: Int) -> ScalarFound {
  let lead = bytes[index]
  let length: Int
  var value: UInt32
  switch lead {
  case 0x00...0x7f: return ScalarFound(value: UInt32(lead), length: 1, isValid: true)
  case 0xc2...0xdf: (length, value) = (2, UInt32(lead & 0x1f))
  case 0xe0...0xef: (length, value) = (3, UInt32(lead & 0x0f))
  case 0xf0...0xf4: (length, value) = (4, UInt32(lead & 0x07))
  default: return ScalarFound(value: 0, length: 1, isValid: false)
  }
  for offset in 1..<length {
    guard index + offset < bytes.count else {
      return ScalarFound(value: 0, length: offset, isValid: false, isCut: true)
    }
    let byte = bytes[index + offset]
    let allowed: ClosedRange<UInt8> =
      switch (offset, lead) {
      case (1, 0xe0): 0xa0...0xbf
      case (1, 0xed): 0x80...0x9f
      case (1, 0xf0): 0x90...0xbf
      case (1, 0xf4): 0x80...0x8f
      default: 0x80...0xbf
      }
    guard allowed.contains(byte) else { return ScalarFound(value: 0, length: offset, isValid: false) }
    value = value << 6 | UInt32(byte & 0x3f)
  }
  return ScalarFound(value: value, length: length, isValid: true)
}

/// How many bytes at the end begin a scalar that they do not end: 0 to 3.
func unfinishedTail(_ bytes: UnsafeRawBufferPointer) -> Int {
  for length in 1...3 where length <= bytes.count {
    let index = bytes.count - length
    if bytes[index] & 0xc0 != 0x80 { return scalar(bytes, at: index).isCut ? length : 0 }
  }
  return 0
}

/// Beyond ASCII: C1 controls (a terminal may take U+009B for "ESC ["), the line and paragraph separators, and what changes
/// the direction of the text (Unicode Standard Annex 9; "Trojan Source", CVE-2021-42574). The byte order mark, because
/// readers drop it where they take it for one (Foundation does, anywhere in a JSON string).
private func acts(_ scalar: UInt32) -> Bool {
  switch scalar {
  case 0x80...0x9f, 0x61c, 0x200e, 0x200f, 0x2028...0x202e, 0x2066...0x2069, 0xfeff: true
  default: false
  }
}

private let hexDigits: StaticString = "0123456789abcdef"

private func hexDigit(_ value: UInt32) -> UInt8 { hexDigits.utf8Start[Int(value & 0xf)] }

private func put(_ text: StaticString, _ to: UnsafeMutableRawPointer) -> Int {
  to.copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
  return text.utf8CodeUnitCount
}

/// C0 and DEL.
private func putControl(_ byte: UInt8, _ style: Escaping, _ to: UnsafeMutableRawPointer) -> Int {
  switch (style, byte) {
  case (.text, 0x09), (.lines, 0x09), (.lines, 0x0a):
    to.storeBytes(of: byte, as: UInt8.self)
    return 1
  case (.text, _), (.lines, _): return putByte(byte, to)
  case (.json, 0x08): return put("\\b", to)
  case (.json, 0x09): return put("\\t", to)
  case (.json, 0x0a): return put("\\n", to)
  case (.json, 0x0c): return put("\\f", to)
  case (.json, 0x0d): return put("\\r", to)
  case (.json, _): return putEscape(UInt32(byte), style, to)
  }
}

/// A character of at most four hexadecimal digits.
private func putEscape(_ value: UInt32, _ style: Escaping, _ to: UnsafeMutableRawPointer) -> Int {
  var length = put(style == .json ? "\\u" : "\\u{", to)
  let digits = style == .json ? 4 : value > 0xfff ? 4 : value > 0xff ? 3 : 2
  for shift in stride(from: (digits - 1) * 4, through: 0, by: -4) {
    to.storeBytes(of: hexDigit(value >> UInt32(shift)), toByteOffset: length, as: UInt8.self)
    length += 1
  }
  if style != .json { length += put("}", to + length) }
  return length
}

private func putByte(_ byte: UInt8, _ to: UnsafeMutableRawPointer) -> Int {
  let length = put("\\x", to)
  to.storeBytes(of: hexDigit(UInt32(byte) >> 4), toByteOffset: length, as: UInt8.self)
  to.storeBytes(of: hexDigit(UInt32(byte)), toByteOffset: length + 1, as: UInt8.self)
  return length + 2
}

private func putInvalid(
  _ source: UnsafeRawBufferPointer, _ range: Range<Int>, _ style: Escaping, _ to: UnsafeMutableRawPointer
) -> Int {
  if style == .json { return put("\u{fffd}", to) }
  var length = 0
  for index in range { length += putByte(source[index], to + length) }
  return length
}

/// Foreign text for a person's terminal: as in a log line of `text`, but for newlines, which stay.
public func harmless(_ bytes: [UInt8]) -> [UInt8] {
  [UInt8](unsafeUninitializedCapacity: bytes.count * Escaping.growth + Escaping.slack) { room, count in
    count = bytes.withUnsafeBytes { escape($0, as: .lines, to: UnsafeMutableRawBufferPointer(room)).count }
  }
}

/// RFC 4648 section 4.
func putBase64(_ source: UnsafeRawBufferPointer, _ to: UnsafeMutableRawPointer) -> Int {
  let alphabet: StaticString = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  var written = 0
  for start in stride(from: 0, to: source.count, by: 3) {
    let length = min(3, source.count - start)
    var group: UInt32 = 0
    for offset in 0..<3 { group = group << 8 | (offset < length ? UInt32(source[start + offset]) : 0) }
    for place in 0..<4 {
      let digit = place <= length ? alphabet.utf8Start[Int(group >> UInt32(18 - 6 * place) & 0x3f)] : 0x3d
      to.storeBytes(of: digit, toByteOffset: written, as: UInt8.self)
      written += 1
    }
  }
  return written
}
