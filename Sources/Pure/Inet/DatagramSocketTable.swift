/// How a port's sockets of datagrams can be reached.
public struct DatagramReach: OptionSet, Hashable, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// At the machine's own address; a client is seen with its own.
  public static let own4 = DatagramReach(rawValue: 1)
  public static let own6 = DatagramReach(rawValue: 2)
  public static let loopback4 = DatagramReach(rawValue: 4)
  public static let loopback6 = DatagramReach(rawValue: 8)
}

/// Reads /proc/net/udp and /proc/net/udp6 (proc(5)): which ports have a socket that takes datagrams of anybody. Total: lines
/// that are not understood are passed over.
public struct DatagramSocketTable {
  public private(set) var ports: [UInt16: DatagramReach] = [:]
  private let own: [IPAddress]
  private var lines = SocketLines()

  /// - Parameter own: the machine's addresses beside loopback.
  public init(own: [IPAddress]) { self.own = own }

  /// Takes the next piece of a file.
  public mutating func add(_ bytes: some Sequence<UInt8>) {
    for byte in bytes {
      if let line = lines.take(byte) { take(line) }
    }
  }

  private mutating func take(_ line: SocketLine) {
    // TCP_CLOSE: not connected.
    guard line.state == 7, let local = line.local, local.port != 0 else { return }
    var reach: DatagramReach = []
    switch local.address {
    case .v4(.any): reach = [.own4, .loopback4]
    // The file does not say whether it is for IPv6 alone; few are.
    case .v6(.any): reach = [.own4, .own6, .loopback4, .loopback6]
    default:
      let plain = local.address.unmapped
      switch plain {
      case .v4(.any): reach = [.own4, .loopback4]
      case .v4(.loopback): reach = .loopback4
      case .v6(.loopback): reach = .loopback6
      case .v4: if own.contains(plain) { reach = .own4 }
      case .v6: if own.contains(plain) { reach = .own6 }
      }
    }
    guard !reach.isEmpty else { return }
    ports[local.port, default: []].formUnion(reach)
  }
}
