/// Reads /proc/net/tcp and /proc/net/tcp6 (proc(5)): the connections, without listeners and those that are not open yet or any
/// more. Total: lines that are not understood are passed over.
public struct ConnectionTable {
  public private(set) var connections: [(local: IPEndpoint, remote: IPEndpoint)] = []
  private var line: [UInt8] = []
  /// Longer ones are no lines of these files.
  private static let lineLimit = 512

  public init() {}

  /// Takes the next piece of a file.
  public mutating func add(_ bytes: some Sequence<UInt8>) {
    for byte in bytes {
      if byte == UInt8(ascii: "\n") {
        take(line)
        line.removeAll(keepingCapacity: true)
      } else if line.count < Self.lineLimit {
        line.append(byte)
      }
    }
  }

  /// `sl local_address rem_address st …`.
  private mutating func take(_ line: [UInt8]) {
    let words = line.split(separator: UInt8(ascii: " "), maxSplits: 4)
    guard words.count > 3, words[0].last == UInt8(ascii: ":"),
      let state = UInt8(String(decoding: words[3], as: UTF8.self), radix: 16)
    else { return }
    switch state {
    // TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING of net/tcp_states.h.
    case 1, 4, 5, 8, 9, 11:
      guard let local = Self.end(words[1]), let remote = Self.end(words[2]) else { return }
      connections.append((local, remote))
    default: return
    }
  }

  private static func end(_ word: ArraySlice<UInt8>) -> IPEndpoint? {
    let parts = word.split(separator: UInt8(ascii: ":"))
    guard parts.count == 2, let address = SocketTable.address(parts[0]), parts[1].count == 4,
      let port = UInt16(String(decoding: parts[1], as: UTF8.self), radix: 16)
    else { return nil }
    // A socket of IPv6 that speaks IPv4.
    return IPEndpoint(address.unmapped, port)
  }
}
