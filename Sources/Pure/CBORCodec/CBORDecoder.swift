/// Why bytes are not one value in CBOR, and where: a count of bytes from the beginning.
public enum CBORError: Error, Equatable, Sendable, CustomStringConvertible {
  case endsEarly(at: Int)
  case trailingBytes(at: Int)
  case tooDeep(at: Int)
  case indefiniteLength(at: Int)
  case notShortest(at: Int)
  case notUTF8(at: Int)
  case duplicateKey(at: Int)
  case unsupported(UInt8, at: Int)

  public var description: String {
    switch self {
    case .endsEarly(let at): "the CBOR ends in the middle of the value at byte \(at)"
    case .trailingBytes(let at): "bytes follow the CBOR, from byte \(at)"
    case .tooDeep(let at): "the CBOR at byte \(at) is nested more than \(CBOR.maximumDepth) deep"
    case .indefiniteLength(let at): "the CBOR at byte \(at) has no definite length"
    case .notShortest(let at): "the CBOR at byte \(at) has a number or length that is not in its shortest form"
    case .notUTF8(let at): "the text at byte \(at) of the CBOR is not UTF-8"
    case .duplicateKey(let at): "the map at byte \(at) of the CBOR has a key twice"
    case .unsupported(let byte, let at):
      "byte \(at) of the CBOR, \(byte), begins a value of a kind that is not expected"
    }
  }
}

extension CBOR {
  /// Arrays, maps and tags within one another. A document has four.
  public static let maximumDepth = 16

  /// The one value that `bytes` are.
  public init(_ bytes: [UInt8]) throws(CBORError) {
    var decoder = Decoder(bytes: bytes)
    self = try decoder.value(depth: 0)
    guard decoder.position == bytes.count else { throw .trailingBytes(at: decoder.position) }
  }

  private struct Decoder {
    let bytes: [UInt8]
    var position = 0

    var left: Int { bytes.count - position }

    mutating func value(depth: Int) throws(CBORError) -> CBOR {
      let start = position
      guard depth < CBOR.maximumDepth else { throw .tooDeep(at: start) }
      guard let first = take(1)?.first else { throw .endsEarly(at: start) }
      switch first {
      case 0xf4: return .bool(false)
      case 0xf5: return .bool(true)
      case 0xf6: return .null
      case 0xe0...: throw .unsupported(first, at: start)
      default: break
      }
      let argument = try argument(first & 31, start)
      switch first >> 5 {
      case 0: return .unsigned(argument)
      case 1: return .negative(argument)
      case 2: return .bytes(Array(try run(argument, start)))
      case 3:
        guard let text = String(validating: try run(argument, start), as: UTF8.self) else { throw .notUTF8(at: start) }
        return .text(text)
      case 4:
        // Every item has at least one byte: no more room is made than there are bytes for.
        guard argument <= UInt64(left) else { throw .endsEarly(at: start) }
        var items: [CBOR] = []
        for _ in 0..<argument { items.append(try value(depth: depth + 1)) }
        return .array(items)
      case 5:
        guard argument <= UInt64(left / 2) else { throw .endsEarly(at: start) }
        return .map(try pairs(argument, depth, start))
      default: return .tagged(argument, try value(depth: depth + 1))
      }
    }

    /// Keys are told apart by their bytes: there is one encoding of each.
    private mutating func pairs(_ count: UInt64, _ depth: Int, _ start: Int) throws(CBORError) -> [Pair] {
      var pairs: [Pair] = []
      var seen: Set<[UInt8]> = []
      for _ in 0..<count {
        let before = position
        let key = try value(depth: depth + 1)
        guard seen.insert(Array(bytes[before..<position])).inserted else { throw .duplicateKey(at: start) }
        pairs.append(Pair(key: key, value: try value(depth: depth + 1)))
      }
      return pairs
    }

    private mutating func argument(_ low: UInt8, _ start: Int) throws(CBORError) -> UInt64 {
      switch low {
      case 0..<24: return UInt64(low)
      case 24...27:
        let size = 1 << Int(low - 24)
        guard let taken = take(UInt64(size)) else { throw .endsEarly(at: start) }
        let value = taken.reduce(0) { $0 << 8 | UInt64($1) }
        let least: UInt64 = low == 24 ? 24 : 1 << UInt64(4 * size)
        guard value >= least else { throw .notShortest(at: start) }
        return value
      case 31: throw .indefiniteLength(at: start)
      default: throw .unsupported(bytes[start], at: start)
      }
    }

    private mutating func run(_ count: UInt64, _ start: Int) throws(CBORError) -> ArraySlice<UInt8> {
      guard let taken = take(count) else { throw .endsEarly(at: start) }
      return taken
    }

    private mutating func take(_ count: UInt64) -> ArraySlice<UInt8>? {
      guard count <= UInt64(left) else { return nil }
      let taken = bytes[position..<position + Int(count)]
      position += Int(count)
      return taken
    }
  }
}
