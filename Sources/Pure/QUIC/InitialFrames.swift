/// A stretch of the handshake's bytes.
struct CryptoFrame: Equatable {
  var offset: Int
  var bytes: ArraySlice<UInt8>
}

/// Bounds-checked access to a packet's bytes.
struct PacketReader {
  let bytes: UnsafeRawBufferPointer
  private(set) var offset: Int

  init(_ bytes: UnsafeRawBufferPointer, from offset: Int = 0) {
    self.bytes = bytes
    self.offset = offset
  }

  var isAtEnd: Bool { offset >= bytes.count }

  mutating func byte() -> UInt8? {
    guard offset < bytes.count else { return nil }
    defer { offset += 1 }
    return bytes[offset]
  }

  /// A variable-length integer (RFC 9000 section 16).
  mutating func number() -> Int? {
    guard let first = byte() else { return nil }
    var value = Int(first & 0x3f)
    for _ in 1..<(1 << Int(first >> 6)) {
      guard let next = byte() else { return nil }
      value = value << 8 | Int(next)
    }
    return value
  }

  mutating func take(_ count: Int) -> Slice<UnsafeRawBufferPointer>? {
    guard count >= 0, bytes.count - offset >= count else { return nil }
    defer { offset += count }
    return bytes[offset..<offset + count]
  }
}

/// The frames that a client may put into an Initial packet (RFC 9000 table 3). Others end the connection at the server, and so
/// does what ends too early.
enum InitialFrames {
  /// - Returns: nil where something else is among them, or nothing at all.
  static func read(_ payload: [UInt8]) -> [CryptoFrame]? {
    payload.withUnsafeBytes { bytes in
      var reader = PacketReader(bytes)
      var found: [CryptoFrame] = []
      guard !reader.isAtEnd else { return nil }
      while let type = reader.byte() {
        switch type {
        // PADDING, PING.
        case 0, 1: break
        // ACK: largest, delay, count, first range; ranges; where it says so, three counts of ECN.
        case 2, 3:
          guard reader.number() != nil, reader.number() != nil, let count = reader.number(), reader.number() != nil,
            count <= bytes.count
          else { return nil }
          for _ in 0..<(2 * count + (type == 3 ? 3 : 0)) { guard reader.number() != nil else { return nil } }
        // CRYPTO.
        case 6:
          guard let offset = reader.number(), let length = reader.number(), reader.take(length) != nil else {
            return nil
          }
          found.append(CryptoFrame(offset: offset, bytes: payload[(reader.offset - length)..<reader.offset]))
        // CONNECTION_CLOSE of the transport: error, frame, reason.
        case 0x1c:
          guard reader.number() != nil, reader.number() != nil, let length = reader.number(),
            reader.take(length) != nil
          else { return nil }
        default: return nil
        }
      }
      return found
    }
  }
}

/// The bytes of a handshake in the order in which TLS gets them, whatever the order in which they came.
struct CryptoStream {
  /// What a client says before it has keys: one ClientHello, or two with a HelloRetryRequest between them.
  static let limit = 16_384

  private(set) var bytes: [UInt8] = []
  private var isKnown: [Bool] = []
  /// Up to there nothing is missing.
  private(set) var contiguous = 0

  enum Addition: Equatable {
    case new, known
    /// What has come before at the same place was something else.
    case contradiction
    case tooLong
  }

  var hasGaps: Bool { contiguous < bytes.count }

  mutating func add(_ frame: CryptoFrame) -> Addition {
    let end = frame.offset + frame.bytes.count
    guard end <= Self.limit else { return .tooLong }
    guard !frame.bytes.isEmpty else { return .known }
    while bytes.count < end {
      bytes.append(0)
      isKnown.append(false)
    }
    var result = Addition.known
    var place = frame.offset
    for byte in frame.bytes {
      if !isKnown[place] {
        isKnown[place] = true
        bytes[place] = byte
        result = .new
      } else if bytes[place] != byte {
        return .contradiction
      }
      place += 1
    }
    while contiguous < bytes.count, isKnown[contiguous] { contiguous += 1 }
    return result
  }
}
