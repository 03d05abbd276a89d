/// The versions of QUIC whose client's first packets can be read.
public enum QUICVersion: UInt32, CaseIterable, Sendable {
  /// RFC 9000, RFC 9001.
  case v1 = 0x0000_0001
  /// RFC 9369.
  case v2 = 0x6b33_43cf

  /// RFC 9001 section 5.2, RFC 9369 section 3.3.1.
  var salt: [UInt8] {
    switch self {
    case .v1:
      [
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb,
        0x7f, 0x0a,
      ]
    case .v2:
      [
        0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd,
        0x2e, 0xd9,
      ]
    }
  }

  /// RFC 9369 section 3.3.2.
  var labelPrefix: String { self == .v1 ? "quic" : "quicv2" }

  /// The kind of a long header packet by its two bits, in the order of version 1 (RFC 9000 table 5, RFC 9369 section 3.2).
  func kind(_ bits: UInt8) -> UInt8 { self == .v1 ? bits : (bits &+ 3) & 3 }
}

/// The keys of a client's Initial packets: anybody who has seen its first packet can compute them (RFC 9001 section 5.2).
struct InitialKeys {
  let packet: AESGCM
  let header: AES128
  private let nonce: Block

  init(_ version: QUICVersion, destinationID: [UInt8]) {
    let initial = HKDF.extract(salt: version.salt, destinationID)
    let client = HKDF.expand(initial, label: "client in", length: 32)
    func derive(_ label: String, _ length: Int) -> Block {
      HKDF.expand(client, label: "\(version.labelPrefix) \(label)", length: length).withUnsafeBytes { Block($0[...]) }
    }
    packet = AESGCM(key: derive("key", 16))
    header = AES128(derive("hp", 16))
    nonce = derive("iv", 12)
  }

  /// Takes off the header's protection, and opens what it protects (RFC 9001 sections 5.3 and 5.4).
  /// - Parameters:
  ///   - bytes: of one packet, from its first byte to its last.
  ///   - numberOffset: where the packet number begins, behind a header of which it is a part.
  ///   - expected: the number behind the largest that was seen.
  /// - Returns: nil where the packet's author had another key, or it was changed on its way.
  func open(
    _ bytes: UnsafeRawBufferPointer, numberOffset: Int, expected: UInt64
  ) -> (payload: [UInt8], number: UInt64)? {
    guard numberOffset > 0, bytes.count >= numberOffset + 4 + 16 else { return nil }
    let mask = header.encrypt(Block(bytes[(numberOffset + 4)..<(numberOffset + 20)]))
    let first = bytes[0] ^ mask[0] & 0x0f
    // RFC 9000 section 17.2: who finds reserved bits ends the connection.
    guard first & 0x0c == 0 else { return nil }
    let length = Int(first & 3) + 1
    let start = numberOffset + length
    let end = bytes.count - 16
    guard start < end else { return nil }
    var associated = Array(bytes[..<start])
    associated[0] = first
    var truncated: UInt64 = 0
    for index in 0..<length {
      associated[numberOffset + index] ^= mask[index + 1]
      truncated = truncated << 8 | UInt64(associated[numberOffset + index])
    }
    let number = Self.number(truncated, bits: UInt64(8 * length), expected: expected)
    let ciphertext = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
    let nonce = nonce(number)
    guard packet.tag(nonce, associated: associated, ciphertext: ciphertext) == Block(bytes[end...]) else { return nil }
    var payload = Array(ciphertext)
    packet.crypt(&payload, nonce)
    return (payload, number)
  }

  /// RFC 9001 section 5.3.
  func nonce(_ number: UInt64) -> Block { Block(high: nonce.high ^ number >> 32, low: nonce.low ^ number << 32) }

  /// RFC 9000 appendix A.3: the number nearest to the expected one that ends in these bits.
  private static func number(_ truncated: UInt64, bits: UInt64, expected: UInt64) -> UInt64 {
    let window: UInt64 = 1 << bits
    let candidate = expected & ~(window - 1) | truncated
    if candidate + window / 2 <= expected, candidate < 1 << 62 - window { return candidate + window }
    return candidate > expected + window / 2 && candidate >= window ? candidate - window : candidate
  }
}
