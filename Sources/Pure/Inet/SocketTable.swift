/// Reads /proc/net/tcp and /proc/net/tcp6 (proc(5)): which ports a connection to a loopback address finds a listener on.
/// Total: lines that are not understood are passed over.
public struct SocketTable {
  /// Ports of the listeners found so far.
  public private(set) var ports: Set<UInt16> = []
  /// A socket came that does not listen. The kernel gives all that do first (tcp_seq_start in net/ipv4/tcp_ipv4.c).
  public private(set) var isComplete = false
  private var line: [UInt8] = []
  /// Longer ones are no lines of these files.
  private static let lineLimit = 512

  public init() {}

  /// Takes the next piece of a file.
  public mutating func add(_ bytes: some Sequence<UInt8>) {
    for byte in bytes where !isComplete {
      if byte == UInt8(ascii: "\n") {
        take(line)
        line.removeAll(keepingCapacity: true)
      } else if line.count < Self.lineLimit {
        line.append(byte)
      }
    }
  }

  /// `sl local_address rem_address st …`, such as `0: 0100007F:0050 00000000:0000 0A`.
  private mutating func take(_ line: [UInt8]) {
    let words = line.split(separator: UInt8(ascii: " "), maxSplits: 4)
    guard words.count > 3, words[0].last == UInt8(ascii: ":") else { return }
    // TCP_LISTEN; 03, SYN_RECV, is among the listeners in kernels before 4.4.
    guard words[3].elementsEqual("0A".utf8) else {
      if !words[3].elementsEqual("03".utf8) { isComplete = true }
      return
    }
    let parts = words[1].split(separator: UInt8(ascii: ":"))
    guard parts.count == 2, let address = Self.address(parts[0]), parts[1].count == 4,
      let port = UInt16(String(decoding: parts[1], as: UTF8.self), radix: 16), port != 0
    else { return }
    let plain = address.unmapped
    let isAny = plain == .v4(.any) || plain == .v6(.any)
    if isAny || plain == .v4(.loopback) || plain == .v6(.loopback) { ports.insert(port) }
  }

  /// Words of 32 bits, each printed as a number of this machine's byte order.
  static func address(_ digits: ArraySlice<UInt8>) -> IPAddress? {
    guard digits.count == 8 || digits.count == 32 else { return nil }
    var bytes: [UInt8] = []
    for start in stride(from: digits.startIndex, to: digits.endIndex, by: 8) {
      guard let word = UInt32(String(decoding: digits[start..<start + 8], as: UTF8.self), radix: 16) else { return nil }
      withUnsafeBytes(of: word) { bytes += $0 }
    }
    return IPAddress(bytes: bytes[...])
  }
}
