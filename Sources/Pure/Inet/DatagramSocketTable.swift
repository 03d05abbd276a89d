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
  private var line: [UInt8] = []
  /// Longer ones are no lines of these files.
  private static let lineLimit = 512

  /// - Parameter own: the machine's addresses beside loopback.
  public init(own: [IPAddress]) { self.own = own }

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
    // TCP_CLOSE of net/tcp_states.h: not connected.
    guard words.count > 3, words[0].last == UInt8(ascii: ":"), words[3].elementsEqual("07".utf8) else { return }
    let parts = words[1].split(separator: UInt8(ascii: ":"))
    guard parts.count == 2, let address = SocketTable.address(parts[0]), parts[1].count == 4,
      let port = UInt16(String(decoding: parts[1], as: UTF8.self), radix: 16), port != 0
    else { return }
    var reach: DatagramReach = []
    switch address {
    case .v4(.any): reach = [.own4, .loopback4]
    // The file does not say whether it is for IPv6 alone; few are.
    case .v6(.any): reach = [.own4, .own6, .loopback4, .loopback6]
    default:
      let plain = address.unmapped
      switch plain {
      case .v4(.any): reach = [.own4, .loopback4]
      case .v4(.loopback): reach = .loopback4
      case .v6(.loopback): reach = .loopback6
      case .v4: if own.contains(plain) { reach = .own4 }
      case .v6: if own.contains(plain) { reach = .own6 }
      }
    }
    guard !reach.isEmpty else { return }
    ports[port, default: []].formUnion(reach)
  }
}
