/// Reads /proc/net/tcp and /proc/net/tcp6 (proc(5)): the connections, without listeners and those that are not open yet or any
/// more. Total: lines that are not understood are passed over.
public struct ConnectionTable {
  public private(set) var connections: [(local: IPEndpoint, remote: IPEndpoint)] = []
  private var lines = SocketLines()

  public init() {}

  /// Takes the next piece of a file.
  public mutating func add(_ bytes: some Sequence<UInt8>) {
    for byte in bytes {
      if let line = lines.take(byte) { take(line) }
    }
  }

  private mutating func take(_ line: SocketLine) {
    switch line.state {
    // TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING.
    case 1, 4, 5, 8, 9, 11:
      guard let local = line.local, let remote = line.remote else { return }
      // A socket of IPv6 may speak IPv4.
      connections.append(
        (IPEndpoint(local.address.unmapped, local.port), IPEndpoint(remote.address.unmapped, remote.port)))
    default: return
    }
  }
}
