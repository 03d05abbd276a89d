@testable import QUIC

/// Writes packets as a client does. Tests and fuzzing have it; the gate only reads.
struct InitialClient {
  var version = QUICVersion.v1
  /// The keys follow from this one.
  var original: [UInt8]
  /// In the header; the server has chosen another one by then.
  var destination: [UInt8]
  var number: UInt64 = 0

  init(_ identifier: [UInt8], version: QUICVersion = .v1) {
    original = identifier
    destination = identifier
    self.version = version
  }

  static func integer(_ value: Int) -> [UInt8] {
    value < 64
      ? [UInt8(value)]
      : value < 16384
        ? [0x40 | UInt8(value >> 8), UInt8(value & 0xff)]
        : [0x80, UInt8(value >> 16 & 0xff), UInt8(value >> 8 & 0xff), UInt8(value & 0xff)]
  }

  static func crypto(_ bytes: some Collection<UInt8>, at offset: Int = 0) -> [UInt8] {
    [6] + integer(offset) + integer(bytes.count) + bytes
  }

  /// A long header packet of some kind (0 to 3 as in version 1), its payload as it is.
  func header(kind: UInt8, length: Int, token: [UInt8]? = nil) -> [UInt8] {
    let bits = version == .v1 ? kind : (kind + 1) & 3
    let number = version.rawValue
    var bytes: [UInt8] = [0xc3 | bits << 4]
    for shift in [24, 16, 8, 0] { bytes.append(UInt8(truncatingIfNeeded: number >> UInt32(shift))) }
    bytes += [UInt8(destination.count)] + destination + [4, 1, 2, 3, 4]
    if let token { bytes += Self.integer(token.count) + token }
    return bytes + Self.integer(length)
  }

  /// A sealed Initial with these frames.
  mutating func packet(_ frames: [UInt8], token: [UInt8] = []) -> [UInt8] {
    let keys = InitialKeys(version, destinationID: original)
    // A packet number of four bytes.
    let numbers = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: number >> UInt64($0)) }
    let header = header(kind: 0, length: frames.count + 4 + 16, token: token) + numbers
    var payload = frames
    let nonce = keys.nonce(number)
    keys.packet.crypt(&payload, nonce)
    let tag = payload.withUnsafeBytes { keys.packet.tag(nonce, associated: header, ciphertext: $0) }
    var packet = header + payload + (0..<16).map { tag[$0] }
    let start = header.count - 4
    let mask = packet.withUnsafeBytes { keys.header.encrypt(Block($0[start + 4..<start + 20])) }
    packet[0] ^= mask[0] & 0x0f
    for index in 0..<4 { packet[start + index] ^= mask[index + 1] }
    number += 1
    return packet
  }
}
