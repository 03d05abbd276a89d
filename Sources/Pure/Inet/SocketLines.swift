/// A line of /proc/net/tcp, tcp6, udp or udp6 (proc(5)): `sl local_address rem_address st …`, such as
/// `0: 0100007F:0050 00000000:0000 0A`.
struct SocketLine {
  /// TCP_ESTABLISHED and so on of net/tcp_states.h.
  let state: UInt8
  private let words: [ArraySlice<UInt8>]

  fileprivate init?(_ line: [UInt8]) {
    words = line.split(separator: UInt8(ascii: " "), maxSplits: 4)
    guard words.count > 3, words[0].last == UInt8(ascii: ":"),
      let state = UInt8(String(decoding: words[3], as: UTF8.self), radix: 16)
    else { return nil }
    self.state = state
  }

  /// As they are written there, IPv4 in a socket of IPv6 too; nil where that is not understood.
  var local: IPEndpoint? { Self.end(words[1]) }
  var remote: IPEndpoint? { Self.end(words[2]) }

  private static func end(_ word: ArraySlice<UInt8>) -> IPEndpoint? {
    let parts = word.split(separator: UInt8(ascii: ":"))
    guard parts.count == 2, let address = address(parts[0]), parts[1].count == 4,
      let port = UInt16(String(decoding: parts[1], as: UTF8.self), radix: 16)
    else { return nil }
    return IPEndpoint(address, port)
  }

  /// Words of 32 bits, each printed as a number of this machine's byte order.
  private static func address(_ digits: ArraySlice<UInt8>) -> IPAddress? {
    guard digits.count == 8 || digits.count == 32 else { return nil }
    var bytes: [UInt8] = []
    for start in stride(from: digits.startIndex, to: digits.endIndex, by: 8) {
      guard let word = UInt32(String(decoding: digits[start..<start + 8], as: UTF8.self), radix: 16) else { return nil }
      withUnsafeBytes(of: word) { bytes += $0 }
    }
    return IPAddress(bytes: bytes[...])
  }
}

/// Finds the lines in what is read of such a file, in whatever pieces. Total: what is not understood is passed over.
struct SocketLines {
  private var line: [UInt8] = []
  /// Longer ones are no lines of these files.
  private static let lineLimit = 512

  /// - Returns: the line that ends with this byte.
  mutating func take(_ byte: UInt8) -> SocketLine? {
    guard byte == UInt8(ascii: "\n") else {
      if line.count < Self.lineLimit { line.append(byte) }
      return nil
    }
    defer { line.removeAll(keepingCapacity: true) }
    return SocketLine(line)
  }
}
