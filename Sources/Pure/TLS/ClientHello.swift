import Inet

// Theory of operation.
//
// A TLS connection begins with a ClientHello (RFC 8446 section 4.1.2), which may be in several records and in any number of
// segments. It is read from the bytes that have come so far, as often as more come: nothing is kept between two looks, so
// nothing can come apart. What is no TLS is told from its first byte; what begins like TLS and is not well formed is
// neither, because a server might understand it in another way.

/// The first message of a TLS client, as far as a name is in it.
public struct ClientHello: Equatable, Sendable {
  /// Of the server_name extension (RFC 6066 section 3); nil where there is none.
  public var serverName: DomainName?
  /// As they came, for a log line.
  public var length: Int

  public enum Reading: Equatable, Sendable {
    /// More bytes must come.
    case incomplete
    case notTLS
    /// The reason completes "a ClientHello …".
    case malformed(String)
    case hello(ClientHello)
  }

  /// A ClientHello's bytes at most: one with several post-quantum key shares has a few thousand.
  public static let limit = 32_768

  private static let handshakeRecord: UInt8 = 22
  private static let clientHello: UInt8 = 1
  private static let recordLimit = 1 << 14

  /// - Parameter bytes: what has come from the client so far, from the first byte on.
  public static func read(_ bytes: UnsafeRawBufferPointer) -> Reading {
    guard let first = bytes.first else { return .incomplete }
    guard first == handshakeRecord else { return .notTLS }
    var message: [UInt8] = []
    var offset = 0
    while true {
      if let reading = complete(message) { return reading }
      guard offset < bytes.count else { return .incomplete }
      guard bytes[offset] == handshakeRecord else { return .malformed("is cut by a record of another kind") }
      guard offset + 1 < bytes.count else { return .incomplete }
      guard bytes[offset + 1] == 3 else { return .malformed("is of no known version") }
      guard offset + 5 <= bytes.count else { return .incomplete }
      let length = Int(bytes[offset + 3]) << 8 | Int(bytes[offset + 4])
      guard (1...recordLimit).contains(length) else { return .malformed("has a record of \(length) bytes") }
      let end = min(offset + 5 + length, bytes.count)
      message += bytes[(offset + 5)..<end]
      offset += 5 + length
    }
  }

  /// How many more bytes must come at least before the hello can be whole.
  /// - Parameter bytes: of which `read` has said that they are incomplete.
  public static func missing(_ bytes: [UInt8]) -> Int {
    var offset = 0
    var start: [UInt8] = []
    var count = 0
    while offset + 5 <= bytes.count {
      let end = offset + 5 + (Int(bytes[offset + 3]) << 8 | Int(bytes[offset + 4]))
      let part = bytes[(offset + 5)..<max(offset + 5, min(end, bytes.count))]
      if start.count < 4 { start += part.prefix(4 - start.count) }
      count += part.count
      offset = max(end, offset + 5)
    }
    guard start.count == 4 else { return 1 }
    return max(1, 4 + (Int(start[1]) << 16 | Int(start[2]) << 8 | Int(start[3])) - count)
  }

  /// Of a handshake that is in no records, as in QUIC (RFC 9001 section 4.1.3).
  /// - Parameter bytes: what has come so far; what is behind the message is not looked at.
  public static func read(message bytes: some Sequence<UInt8>) -> Reading { complete(Array(bytes)) ?? .incomplete }

  /// nil where the message is not there as a whole.
  private static func complete(_ message: [UInt8]) -> Reading? {
    guard let type = message.first else { return nil }
    guard type == clientHello else { return .malformed("is a handshake message of type \(type)") }
    guard message.count >= 4 else { return nil }
    let length = Int(message[1]) << 16 | Int(message[2]) << 8 | Int(message[3])
    guard length <= limit else { return .malformed("has \(length) bytes, expected at most \(limit)") }
    guard message.count >= 4 + length else { return nil }
    var rest = Fields(message[4..<4 + length])
    guard rest.skip(2 + 32), rest.vector(lengthBytes: 1) != nil, rest.vector(lengthBytes: 2) != nil,
      rest.vector(lengthBytes: 1) != nil
    else { return .malformed("ends too early") }
    // Extensions may be left out (RFC 5246 section 7.4.1.2).
    if rest.isEmpty { return .hello(ClientHello(serverName: nil, length: 4 + length)) }
    guard var extensions = rest.vector(lengthBytes: 2), rest.isEmpty else { return .malformed("ends too early") }
    var name: DomainName?
    while !extensions.isEmpty {
      guard let type = extensions.number(2), let data = extensions.vector(lengthBytes: 2) else {
        return .malformed("has an extension that ends too early")
      }
      guard type == 0 else { continue }
      guard name == nil else { return .malformed("has two names") }
      guard let found = serverName(data) else { return .malformed("has a name that is none") }
      name = found
    }
    return .hello(ClientHello(serverName: name, length: 4 + length))
  }

  private static func serverName(_ data: Fields) -> DomainName? {
    var data = data
    guard var list = data.vector(lengthBytes: 2), data.isEmpty, list.number(1) == 0,
      let name = list.vector(lengthBytes: 2), list.isEmpty
    else { return nil }
    return try? DomainName(text: String(decoding: name.bytes, as: UTF8.self))
  }

  /// Bounds-checked access.
  private struct Fields {
    var bytes: ArraySlice<UInt8>

    init(_ bytes: ArraySlice<UInt8>) { self.bytes = bytes }

    var isEmpty: Bool { bytes.isEmpty }

    mutating func skip(_ count: Int) -> Bool {
      guard bytes.count >= count else { return false }
      bytes = bytes.dropFirst(count)
      return true
    }

    mutating func number(_ count: Int) -> Int? {
      guard bytes.count >= count else { return nil }
      defer { bytes = bytes.dropFirst(count) }
      return bytes.prefix(count).reduce(0) { $0 << 8 | Int($1) }
    }

    mutating func vector(lengthBytes: Int) -> Fields? {
      guard let length = number(lengthBytes), bytes.count >= length else { return nil }
      defer { bytes = bytes.dropFirst(length) }
      return Fields(bytes.prefix(length))
    }
  }
}
