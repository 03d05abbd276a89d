/// Bounds-checked access to foreign bytes, in network byte order: every read gives a value or throws `truncated`.
public struct ByteReader {
  private var rest: ArraySlice<UInt8>

  public init(_ bytes: some Sequence<UInt8>) { rest = ArraySlice(Array(bytes)) }

  public var count: Int { rest.count }
  public var isAtEnd: Bool { rest.isEmpty }

  public mutating func bytes(_ count: Int) throws(WireError) -> ArraySlice<UInt8> {
    guard count >= 0, rest.count >= count else { throw .truncated }
    defer { rest = rest.dropFirst(count) }
    return rest.prefix(count)
  }

  public mutating func integer<T: FixedWidthInteger & UnsignedInteger>(_: T.Type = T.self) throws(WireError) -> T {
    // One loop over concrete types: a generic one looks through every conformance of the program at its first call.
    var value: UInt64 = 0
    for byte in try bytes(T.bitWidth / 8) { value = value << 8 | UInt64(byte) }
    return T(truncatingIfNeeded: value)
  }

  /// Everything left.
  public mutating func remainder() -> [UInt8] {
    defer { rest = [] }
    return Array(rest)
  }

  /// - Throws: `trailingBytes` where something is left.
  public func finish() throws(WireError) {
    guard rest.isEmpty else { throw .trailingBytes(rest.count) }
  }
}

extension Array<UInt8> {
  /// Appends in network byte order.
  public mutating func append<T: FixedWidthInteger & UnsignedInteger>(integer value: T) {
    for shift in stride(from: T.bitWidth - 8, through: 0, by: -8) {
      append(UInt8(truncatingIfNeeded: value >> T(truncatingIfNeeded: shift)))
    }
  }
}

/// Why bytes from the other side were not understood. The stream they came on ends; the process does not.
public enum WireError: Error, Equatable, Sendable, CustomStringConvertible {
  case truncated
  case trailingBytes(Int)
  case badMagic([UInt8])
  case unsupportedVersion(UInt8)
  case unknownChannel(UInt8)
  case unknownStatus(UInt8)
  case unknownFrame(UInt8)
  case unknownRecord(UInt8)
  case unknownSource(UInt8)
  case unknownMessage(UInt8)
  case badLength(what: String, found: Int, limit: Int)
  case badValue(what: String)
  case afterEnd

  public var description: String {
    switch self {
    case .truncated: "message ends too early"
    case .trailingBytes(let count): "\(count) bytes more than the message has"
    case .badMagic(let bytes):
      "found the magic \(bytes.map { String($0, radix: 16) }.joined(separator: " ")), expected 54 4d 42 4c (TMBL)"
    case .unsupportedVersion(let found): "found protocol version \(found), expected \(Hello.version)"
    case .unknownChannel(let found): "found channel \(found), expected 1 to 8"
    case .unknownStatus(let found): "found status \(found), expected 0 to \(Status.allCases.count - 1)"
    case .unknownFrame(let found): "found frame type \(found), expected 0 to 3"
    case .unknownRecord(let found): "found log record kind \(found), expected 1 to 4"
    case .unknownSource(let found): "found log source \(found), expected 1 to 6"
    case .unknownMessage(let found): "found session message \(found), expected 1 to 3 or 16 to 18"
    case .badLength(let what, let found, let limit): "found \(what) of \(found) bytes, expected at most \(limit)"
    case .badValue(let what): "found an invalid \(what)"
    case .afterEnd: "found a frame after the end of the stream"
    }
  }
}
