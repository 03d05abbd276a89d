/// Reads /proc/net/tcp and /proc/net/tcp6 (proc(5)): which ports a connection to a loopback address finds a listener on.
/// Total: lines that are not understood are passed over.
public struct SocketTable {
  /// Ports of the listeners found so far.
  public private(set) var ports: Set<UInt16> = []
  /// A socket came that does not listen. The kernel gives all that do first (tcp_seq_start in net/ipv4/tcp_ipv4.c).
  public private(set) var isComplete = false
  private var lines = SocketLines()

  public init() {}

  /// Takes the next piece of a file.
  public mutating func add(_ bytes: some Sequence<UInt8>) {
    for byte in bytes where !isComplete {
      if let line = lines.take(byte) { take(line) }
    }
  }

  private mutating func take(_ line: SocketLine) {
    // TCP_LISTEN; TCP_SYN_RECV is among the listeners in kernels before 4.4.
    guard line.state == 10 else {
      if line.state != 3 { isComplete = true }
      return
    }
    guard let local = line.local, local.port != 0 else { return }
    let plain = local.address.unmapped
    let isAny = plain == .v4(.any) || plain == .v6(.any)
    if isAny || plain == .v4(.loopback) || plain == .v6(.loopback) { ports.insert(local.port) }
  }
}
