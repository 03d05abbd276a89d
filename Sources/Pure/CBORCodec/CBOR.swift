/// The part of CBOR (RFC 8949) that documents of Nitro Enclaves and signatures of EIFs are made of.
///
/// There is one encoding of each value and no other is read: lengths are definite, numbers take the fewest bytes (section
/// 4.2.1), a map has no key twice. So two readers cannot see two things in the same bytes. The order of a map's keys is kept
/// as it is: AWS's own is not sorted.
public indirect enum CBOR: Equatable, Sendable {
  case unsigned(UInt64)
  /// -1 - n
  case negative(UInt64)
  case bytes([UInt8])
  case text(String)
  case array([CBOR])
  case map([Pair])
  case tagged(UInt64, CBOR)
  case bool(Bool)
  case null

  public struct Pair: Equatable, Sendable {
    public var key: CBOR
    public var value: CBOR

    public init(key: CBOR, value: CBOR) {
      self.key = key
      self.value = value
    }
  }

  /// The value of a map's text key; nil where this is no map, or has no such key.
  public subscript(key: String) -> CBOR? {
    guard case .map(let pairs) = self else { return nil }
    return pairs.first { $0.key == .text(key) }?.value
  }
}

// MARK: Encoding
extension CBOR {
  public var encoded: [UInt8] {
    var out: [UInt8] = []
    encode(into: &out)
    return out
  }

  private func encode(into out: inout [UInt8]) {
    switch self {
    case .unsigned(let value): CBOR.head(0, value, &out)
    case .negative(let value): CBOR.head(1, value, &out)
    case .bytes(let bytes):
      CBOR.head(2, UInt64(bytes.count), &out)
      out += bytes
    case .text(let text):
      CBOR.head(3, UInt64(text.utf8.count), &out)
      out += text.utf8
    case .array(let items):
      CBOR.head(4, UInt64(items.count), &out)
      for item in items { item.encode(into: &out) }
    case .map(let pairs):
      CBOR.head(5, UInt64(pairs.count), &out)
      for pair in pairs {
        pair.key.encode(into: &out)
        pair.value.encode(into: &out)
      }
    case .tagged(let tag, let value):
      CBOR.head(6, tag, &out)
      value.encode(into: &out)
    case .bool(let value): out.append(value ? 0xf5 : 0xf4)
    case .null: out.append(0xf6)
    }
  }

  /// The first byte and its argument, in the fewest bytes.
  private static func head(_ major: UInt8, _ value: UInt64, _ out: inout [UInt8]) {
    let size =
      switch value {
      case 0..<24: 0
      case 24...0xff: 1
      case 0x100...0xffff: 2
      case 0x1_0000...0xffff_ffff: 4
      default: 8
      }
    guard size > 0 else { return out.append(major << 5 | UInt8(value)) }
    out.append(major << 5 | UInt8(24 + size.trailingZeroBitCount))
    for byte in stride(from: size - 1, through: 0, by: -1) {
      out.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * byte)))
    }
  }
}
