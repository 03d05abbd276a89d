/// Messages behind their length, as TCP and TLS have them (RFC 1035 section 4.2.2).
public struct LengthFraming {
  private var input: [UInt8] = []

  public init() {}

  /// - Returns: nil for a message that is too long.
  public static func frame(_ message: [UInt8]) -> [UInt8]? {
    message.count <= 65535 ? [UInt8(message.count >> 8), UInt8(message.count & 0xff)] + message : nil
  }

  /// - Returns: the messages that are whole now.
  public mutating func feed(_ bytes: some Sequence<UInt8>) -> [[UInt8]] {
    input += bytes
    var messages: [[UInt8]] = []
    var offset = 0
    while input.count - offset >= 2 {
      let length = Int(input[offset]) << 8 | Int(input[offset + 1])
      guard input.count - offset - 2 >= length else { break }
      messages.append(Array(input[offset + 2..<offset + 2 + length]))
      offset += 2 + length
    }
    input.removeFirst(offset)
    return messages
  }
}
