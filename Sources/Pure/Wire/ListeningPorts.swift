/// What the proxy tells the host on a stream of its own: which of the published ports a program listens on. Each message is the whole set and takes the place of the one before: ports in
/// ascending order, two bytes each. See docs/protocol.md.
public enum ListeningPorts {
  /// Ports in one message: as many as its length of 16 bits has room for.
  public static let limit = 32_767

  /// Without parameters.
  public static var hello: Hello { Hello(.listening) }

  /// Ports behind the first `limit` are left out.
  public static func encode(_ ports: Set<UInt16>) -> [UInt8] {
    var bytes: [UInt8] = []
    for port in ports.sorted().prefix(limit) { bytes.append(integer: port) }
    return bytes
  }

  public static func decode(_ message: some Sequence<UInt8>) throws(WireError) -> Set<UInt16> {
    var reader = ByteReader(message)
    var ports: Set<UInt16> = []
    var last: UInt16 = 0
    while !reader.isAtEnd {
      let port: UInt16 = try reader.integer()
      guard port > last else { throw .badValue(what: "order of listening ports") }
      ports.insert(port)
      last = port
    }
    return ports
  }
}
