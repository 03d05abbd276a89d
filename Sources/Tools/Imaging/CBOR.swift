/// The part of CBOR (RFC 8949) that signatures of EIFs use. Encoding is the shortest, of definite length; decoding takes
/// any bytes and gives a value or nil.
indirect enum CBOR: Equatable {
  case unsigned(UInt64)
  /// -1 - n
  case negative(UInt64)
  case bytes([UInt8])
  case text(String)
  case array([CBOR])
  case map([Pair])
  case tagged(UInt64, CBOR)

  struct Pair: Equatable {
    var key: CBOR
    var value: CBOR
  }

  /// serde's form of a `Vec<u8>`: an array of numbers. AWS's reader takes it, and QEMU's nothing else.
  static func numbers(_ bytes: [UInt8]) -> CBOR { .array(bytes.map { .unsigned(UInt64($0)) }) }

  var encoded: [UInt8] {
    var out: [UInt8] = []
    encode(into: &out)
    return out
  }

  private func encode(into out: inout [UInt8]) {
    func head(_ major: UInt8, _ value: UInt64) {
      switch value {
      case 0..<24: out.append(major << 5 | UInt8(value))
      case 24...0xff: out += [major << 5 | 24, UInt8(value)]
      case 0x100...0xffff:
        out.append(major << 5 | 25)
        out.append(bigEndian: UInt16(value))
      case 0x1_0000...0xffff_ffff:
        out.append(major << 5 | 26)
        out.append(bigEndian: UInt32(value))
      default:
        out.append(major << 5 | 27)
        out.append(bigEndian: value)
      }
    }
    switch self {
    case .unsigned(let value): head(0, value)
    case .negative(let value): head(1, value)
    case .bytes(let bytes):
      head(2, UInt64(bytes.count))
      out += bytes
    case .text(let text):
      head(3, UInt64(text.utf8.count))
      out += text.utf8
    case .array(let items):
      head(4, UInt64(items.count))
      for item in items { item.encode(into: &out) }
    case .map(let pairs):
      head(5, UInt64(pairs.count))
      for pair in pairs {
        pair.key.encode(into: &out)
        pair.value.encode(into: &out)
      }
    case .tagged(let tag, let value):
      head(6, tag)
      value.encode(into: &out)
    }
  }

  /// The one value that `bytes` are; nil for anything else, indefinite lengths, and nesting over 16 deep.
  init?(_ bytes: [UInt8]) {
    var rest = bytes[...]
    guard let value = CBOR.decode(&rest, depth: 0), rest.isEmpty else { return nil }
    self = value
  }

  private static func decode(_ rest: inout ArraySlice<UInt8>, depth: Int) -> CBOR? {
    guard depth < 16, let first = rest.popFirst(), let value = argument(first & 31, &rest) else { return nil }
    switch first >> 5 {
    case 0: return .unsigned(value)
    case 1: return .negative(value)
    case 2: return take(value, &rest).map { .bytes(Array($0)) }
    case 3: return take(value, &rest).flatMap { String(validating: $0, as: UTF8.self) }.map { .text($0) }
    case 4:
      guard value <= UInt64(rest.count) else { return nil }  // every item has at least one byte
      var items: [CBOR] = []
      for _ in 0..<value {
        guard let item = decode(&rest, depth: depth + 1) else { return nil }
        items.append(item)
      }
      return .array(items)
    case 5:
      guard value <= UInt64(rest.count / 2) else { return nil }
      var pairs: [Pair] = []
      for _ in 0..<value {
        guard let key = decode(&rest, depth: depth + 1), let item = decode(&rest, depth: depth + 1) else { return nil }
        pairs.append(Pair(key: key, value: item))
      }
      return .map(pairs)
    case 6: return decode(&rest, depth: depth + 1).map { .tagged(value, $0) }
    default: return nil
    }
  }

  private static func argument(_ low: UInt8, _ rest: inout ArraySlice<UInt8>) -> UInt64? {
    switch low {
    case 0..<24: return UInt64(low)
    case 24...27:
      let count = 1 << Int(low - 24)
      guard let bytes = take(UInt64(count), &rest) else { return nil }
      return bytes.reduce(0) { $0 << 8 | UInt64($1) }
    default: return nil
    }
  }

  private static func take(_ count: UInt64, _ rest: inout ArraySlice<UInt8>) -> ArraySlice<UInt8>? {
    guard count <= UInt64(rest.count) else { return nil }
    let bytes = rest.prefix(Int(count))
    rest = rest.dropFirst(Int(count))
    return bytes
  }

  subscript(key: String) -> CBOR? {
    guard case .map(let pairs) = self else { return nil }
    return pairs.first { $0.key == .text(key) }?.value
  }

  /// A byte string, or serde's array of numbers.
  var byteArray: [UInt8]? {
    switch self {
    case .bytes(let bytes): return bytes
    case .array(let items):
      var bytes: [UInt8] = []
      bytes.reserveCapacity(items.count)
      for item in items {
        guard case .unsigned(let value) = item, let byte = UInt8(exactly: value) else { return nil }
        bytes.append(byte)
      }
      return bytes
    default: return nil
    }
  }
}
