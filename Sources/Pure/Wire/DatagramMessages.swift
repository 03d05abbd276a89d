import Inet

/// What goes over a datagrams stream behind its answer: one datagram, or the beginning, the end or an error of a flow. Each is
/// a message behind its length; see docs/protocol.md, "Datagrams".
public enum DatagramMessage: Equatable, Sendable {
  /// From the enclave: datagrams with this number are this flow's from here on.
  case open(UInt32, DatagramFlow)
  /// - mayFragment: the host may send it in pieces where the path is too narrow for it.
  case datagram(UInt32, mayFragment: Bool, ArraySlice<UInt8>)
  /// The number is free again.
  case close(UInt32)
  /// From the host: why a datagram of the flow did not arrive.
  /// - mtu: of the path, where it was too long for it; otherwise 0. In bytes, with the IP header.
  case failed(UInt32, Status, mtu: UInt16)
  /// From the enclave: the published ports at which a program takes datagrams. The whole set, as in `ListeningPorts`.
  case listening(Set<UInt16>)
  /// From the host: datagrams with this number are those of this client from here on.
  case arrival(UInt32, DatagramArrival)

  private static let headerLength = 5
  /// The numbers from here on are the host's, for its clients; those below are the enclave's.
  public static let firstArrival: UInt32 = 1 << 31
  /// The answer's parameters where the host publishes ports: it wants to know at which of them a program takes datagrams.
  public static let publishing: [UInt8] = [1]

  public var flow: UInt32 {
    switch self {
    case .open(let flow, _), .datagram(let flow, _, _), .close(let flow), .failed(let flow, _, _),
      .arrival(let flow, _):
      flow
    case .listening: 0
    }
  }

  /// A datagram as a message.
  public static func encode(
    _ flow: UInt32, mayFragment: Bool, prefix: [UInt8] = [], _ payload: UnsafeRawBufferPointer
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(headerLength + prefix.count + payload.count)
    bytes.append(mayFragment ? 3 : 2)
    bytes.append(integer: flow)
    bytes += prefix
    bytes.append(contentsOf: payload)
    return bytes
  }

  public func encoded() -> [UInt8] {
    var bytes: [UInt8] = []
    func begin(_ kind: UInt8) {
      bytes.append(kind)
      bytes.append(integer: flow)
    }
    switch self {
    case .open(_, let opened):
      begin(1)
      opened.encode(into: &bytes)
    case .datagram(let flow, let mayFragment, let payload):
      return payload.withUnsafeBytes { Self.encode(flow, mayFragment: mayFragment, $0) }
    case .close: begin(4)
    case .failed(_, let status, let mtu):
      begin(5)
      bytes.append(status.rawValue)
      bytes.append(integer: mtu)
    case .listening(let ports):
      begin(6)
      bytes += ListeningPorts.encode(ports)
    case .arrival(_, let arrival):
      begin(7)
      arrival.encode(into: &bytes)
    }
    return bytes
  }

  public init(_ message: [UInt8]) throws(WireError) {
    guard let kind = message.first else { throw .truncated }
    guard (1...7).contains(kind) else { throw .badValue(what: "kind of datagrams message") }
    guard message.count >= Self.headerLength else { throw .truncated }
    let flow = message[1..<5].reduce(0) { $0 << 8 | UInt32($1) }
    let rest = message[Self.headerLength...]
    switch kind {
    case 1:
      guard flow < Self.firstArrival else { throw .badValue(what: "number of a flow") }
      self = .open(flow, try DatagramFlow(rest))
    case 2, 3: self = .datagram(flow, mayFragment: kind == 3, rest)
    case 4:
      guard rest.isEmpty else { throw .trailingBytes(rest.count) }
      self = .close(flow)
    case 6:
      guard flow == 0 else { throw .badValue(what: "number of a flow") }
      self = .listening(try ListeningPorts.decode(rest))
    case 7:
      guard flow >= Self.firstArrival else { throw .badValue(what: "number of a flow") }
      self = .arrival(flow, try DatagramArrival(rest))
    default:
      var reader = ByteReader(rest)
      let code: UInt8 = try reader.integer()
      guard let status = Status(rawValue: code), status != .ok else { throw .unknownStatus(code) }
      self = .failed(flow, status, mtu: try reader.integer())
      try reader.finish()
    }
  }
}

/// A flow of datagrams of the program: UDP to one endpoint from one of its ports, or the echo requests of one ping.
public struct DatagramFlow: Hashable, Sendable {
  public enum Kind: UInt8, Sendable {
    /// IANA's numbers.
    case udp = 17
    /// Of both ICMP and ICMPv6. A datagram is the sequence number (2 bytes) and the data.
    case echo = 1
  }

  public var kind: Kind
  /// Of echo requests the port is 0.
  public var destination: IPEndpoint
  /// For which the enclave has allowed it.
  public var name: DomainName?

  public init(_ kind: Kind, _ destination: IPEndpoint, name: DomainName? = nil) {
    self.kind = kind
    self.destination = destination
    self.name = name
  }

  func encode(into bytes: inout [UInt8]) {
    let address = destination.address.bytes
    bytes.append(kind.rawValue)
    bytes.append(address.count == 4 ? 4 : 6)
    bytes.append(integer: destination.port)
    bytes += address
    if let name { bytes += [UInt8(truncatingIfNeeded: name.labels.count)] + name.labels }
  }

  init(_ bytes: ArraySlice<UInt8>) throws(WireError) {
    var reader = ByteReader(bytes)
    guard let kind = Kind(rawValue: try reader.integer()) else { throw .badValue(what: "kind of flow") }
    let family: UInt8 = try reader.integer()
    guard family == 4 || family == 6 else { throw .badValue(what: "address family \(family)") }
    let port: UInt16 = try reader.integer()
    guard let address = IPAddress(bytes: try reader.bytes(family == 4 ? 4 : 16)) else {
      throw .badValue(what: "address")
    }
    guard (port == 0) == (kind == .echo) else { throw .badValue(what: "destination port") }
    self.init(kind, IPEndpoint(address, port))
    if !reader.isAtEnd {
      let count: UInt8 = try reader.integer()
      guard count > 0, let name = DomainName(labels: Array(try reader.bytes(Int(count)))) else {
        throw .badValue(what: "name")
      }
      self.name = name
    }
    try reader.finish()
  }
}

/// Datagrams of one client of a published port.
public struct DatagramArrival: Hashable, Sendable {
  /// The program's.
  public var port: UInt16
  public var client: IPEndpoint

  public init(port: UInt16, client: IPEndpoint) {
    self.port = port
    self.client = client
  }

  func encode(into bytes: inout [UInt8]) {
    let address = client.address.bytes
    bytes.append(integer: port)
    bytes.append(address.count == 4 ? 4 : 6)
    bytes.append(integer: client.port)
    bytes += address
  }

  init(_ bytes: ArraySlice<UInt8>) throws(WireError) {
    var reader = ByteReader(bytes)
    port = try reader.integer()
    let family: UInt8 = try reader.integer()
    guard family == 4 || family == 6 else { throw .badValue(what: "address family \(family)") }
    let clientPort: UInt16 = try reader.integer()
    guard let address = IPAddress(bytes: try reader.bytes(family == 4 ? 4 : 16)) else {
      throw .badValue(what: "address")
    }
    guard port > 0, clientPort > 0 else { throw .badValue(what: "port of a client") }
    client = IPEndpoint(address, clientPort)
    try reader.finish()
  }
}
