// What PID 1 hands to a process of its own (the proxy, the keeper of verdicts) over a descriptor: never on its command line,
// where everybody could read it, since the secrets of the boot are part of it.
//
//   magic "TMBR", version, then fields: name (u8 length, bytes), value (u32 length, bytes)
//
// One writer, one reader. The reader is total: each field is taken once, and what is missing, twice there, of another length
// or left over is an error that names it.

/// Why a document was not understood.
public struct RoleError: Error, Equatable, Sendable, CustomStringConvertible {
  public var role: String
  public var sentence: String

  public init(_ role: String, _ sentence: String) {
    self.role = role
    self.sentence = sentence
  }

  public var description: String { "\(role): \(sentence)" }
}

private let magic: [UInt8] = [0x54, 0x4d, 0x42, 0x52, 1]

public struct RoleWriter {
  public private(set) var bytes = magic

  public init() {}

  /// - Parameter name: 1 to 255 bytes.
  public mutating func put(_ name: StaticString, _ value: [UInt8]) {
    bytes.append(UInt8(truncatingIfNeeded: name.utf8CodeUnitCount))
    name.withUTF8Buffer { bytes += $0 }
    append(UInt32(truncatingIfNeeded: value.count))
    bytes += value
  }

  public mutating func put(_ name: StaticString, text: String) { put(name, Array(text.utf8)) }

  public mutating func put(_ name: StaticString, flag: Bool) { put(name, [flag ? 1 : 0]) }

  /// Four bytes each.
  public mutating func put(_ name: StaticString, numbers: [UInt32]) {
    var value: [UInt8] = []
    for number in numbers {
      value += [
        UInt8(truncatingIfNeeded: number >> 24), UInt8(truncatingIfNeeded: number >> 16),
        UInt8(truncatingIfNeeded: number >> 8), UInt8(truncatingIfNeeded: number),
      ]
    }
    put(name, value)
  }

  private mutating func append(_ number: UInt32) {
    bytes += [
      UInt8(truncatingIfNeeded: number >> 24), UInt8(truncatingIfNeeded: number >> 16),
      UInt8(truncatingIfNeeded: number >> 8), UInt8(truncatingIfNeeded: number),
    ]
  }
}

public struct RoleReader {
  public let role: String
  private var fields: [(name: [UInt8], value: ArraySlice<UInt8>)] = []

  public init(_ bytes: [UInt8], role: String) throws(RoleError) {
    self.role = role
    guard bytes.starts(with: magic) else { throw RoleError(role, "what came is no role's document") }
    var rest = bytes[magic.count...]
    while let count = rest.popFirst() {
      guard count > 0, rest.count >= Int(count) + 4 else { throw RoleError(role, "the document ends too early") }
      let name = Array(rest.prefix(Int(count)))
      rest = rest.dropFirst(Int(count))
      let length = rest.prefix(4).reduce(0) { $0 << 8 | Int($1) }
      rest = rest.dropFirst(4)
      guard rest.count >= length else { throw RoleError(role, "the document ends too early") }
      guard !fields.contains(where: { $0.name == name }) else {
        throw RoleError(role, "the field \"\(String(decoding: name, as: UTF8.self))\" is there twice")
      }
      fields.append((name, rest.prefix(length)))
      rest = rest.dropFirst(length)
    }
  }

  /// For fields of which exactly one of several must be there.
  public func has(_ name: String) -> Bool { fields.contains { $0.name == Array(name.utf8) } }

  /// The value of a field, which then is no longer there.
  public mutating func take(_ name: String) throws(RoleError) -> ArraySlice<UInt8> {
    let key = Array(name.utf8)
    guard let index = fields.firstIndex(where: { $0.name == key }) else {
      throw RoleError(role, "the field \"\(name)\" is missing")
    }
    return fields.remove(at: index).value
  }

  /// - Parameter limit: in bytes.
  public mutating func text(_ name: String, limit: Int = 4096) throws(RoleError) -> String {
    let value = try take(name)
    guard value.count <= limit, let text = String(validating: value, as: UTF8.self) else {
      throw RoleError(role, "\"\(name)\" is not a text of at most \(limit) bytes")
    }
    return text
  }

  public mutating func flag(_ name: String) throws(RoleError) -> Bool {
    let value = try take(name)
    guard value.count == 1, let byte = value.first, byte <= 1 else {
      throw RoleError(role, "\"\(name)\" is neither 0 nor 1")
    }
    return byte == 1
  }

  /// - Parameter count: how many there may be.
  public mutating func numbers(_ name: String, count: ClosedRange<Int>) throws(RoleError) -> [UInt32] {
    let value = Array(try take(name))
    guard value.count % 4 == 0, count.contains(value.count / 4) else {
      throw RoleError(
        role, "\"\(name)\" has \(value.count) bytes, expected \(count.lowerBound) to \(count.upperBound) numbers")
    }
    return stride(from: 0, to: value.count, by: 4).map { start in
      value[start..<start + 4].reduce(0) { $0 << 8 | UInt32($1) }
    }
  }

  public mutating func number(_ name: String, in range: ClosedRange<UInt32>) throws(RoleError) -> UInt32 {
    guard let number = try numbers(name, count: 1...1).first, range.contains(number) else {
      throw RoleError(role, "\"\(name)\" is not from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  /// - Throws: where a field is left that nobody has taken.
  public func finish() throws(RoleError) {
    guard let first = fields.first else { return }
    throw RoleError(role, "the field \"\(String(decoding: first.name, as: UTF8.self))\" is not known")
  }
}
