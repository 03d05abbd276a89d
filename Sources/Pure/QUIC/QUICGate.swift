import Inet
import TLS

// Theory of operation.
//
// A client's first packets, the Initials, are encrypted with keys that follow from the connection id in the first of them
// (RFC 9001 section 5.2). So the name in the ClientHello can be read by anybody, and a packet that somebody else has made up
// can be told by its tag. Each Initial is opened, at any time and in every flow, since a server takes new connections at any
// time:
//
//   datagram ▶ its packets ▶ each Initial opened ▶ CRYPTO frames into the connection's stream ▶ whole ClientHello ▶ the name
//
// Until the name is known and allowed, its datagrams are held; then they go on in their order. So no byte of a connection
// whose name is not allowed reaches a server. What stands in the way of a client that wants the server to read another name
// than the one that was read here:
//
// - Bytes of the handshake that come twice must be the same: whichever of the packets the server gets first (the others may
//   have been sent with a TTL that ends on the way), it reads what was read here.
// - A second ClientHello, behind a HelloRetryRequest, must have the same name.
// - Later Initials go to a connection id that the server has chosen, with the keys of the first one (RFC 9001 section 5.2):
//   those of every connection that was let through of late are tried. A packet that opens with the keys of two connections
//   can only be made on purpose (AES-GCM does not commit to its key), so that one side reads another packet than the other.
// - What is of no known version, or cannot be opened, does not go on.
//
// Packets with keys of the connection's own say nothing here. A server takes them only when it has the connection, so they go
// on where a connection to the same address and port was let through; a client may change its own port meanwhile.

/// Which datagrams of QUIC's clients may go on.
public struct QUICGate: Sendable {
  public enum Verdict: Equatable, Sendable {
    /// Behind those that were held.
    case pass(held: [[UInt8]])
    /// Kept here: the next ones will tell.
    case hold
    /// It says nothing that is not held already, or there is no room to hold it. The client sends it again.
    case drop
    /// The reason, as the end of a sentence about the flow.
    case deny(String)
  }

  public struct Bounds: Sendable {
    /// Handshakes that are remembered.
    public var connections = 1024
    /// Datagrams that are held, of one connection and in bytes of all.
    public var heldCount = 16
    public var heldBytes = 4 << 20
    /// Bytes of handshakes that are remembered.
    public var streamBytes = 8 << 20
    /// Destinations to which connections were let through.
    public var destinations = 4096
    public init() {}
  }

  /// Seconds after its last Initial for which a handshake is remembered: for longer than servers wait for one.
  static let handshakeLifetime: UInt32 = 60
  /// Seconds after its last datagram for which a destination is.
  static let destinationLifetime: UInt32 = 3600

  struct Denial: Error {
    var reason: String
  }

  struct Connection {
    let destination: IPEndpoint
    /// The destination connection id of its first packet.
    let identifier: [UInt8]
    var keys: (InitialKeys?, InitialKeys?) = (nil, nil)
    var expectedNumber: UInt64 = 0
    var stream = CryptoStream()
    /// Of the stream: whole ClientHellos whose name is allowed.
    var checked = 0
    var name: DomainName?
    var held: [[UInt8]] = []
    /// Something of it has gone on.
    var isReleased = false
    /// Why nothing more of it does.
    var refusal: String?
    var lastSeen: UInt32

    init(_ destination: IPEndpoint, _ identifier: [UInt8], _ now: UInt32) {
      self.destination = destination
      self.identifier = identifier
      lastSeen = now
    }

    mutating func keys(_ version: QUICVersion) -> InitialKeys {
      let known = version == .v1 ? keys.0 : keys.1
      if let known { return known }
      let made = InitialKeys(version, destinationID: identifier)
      if version == .v1 { keys.0 = made } else { keys.1 = made }
      return made
    }

    /// - Returns: nil where the packet is not this connection's.
    mutating func open(_ packet: UnsafeRawBufferPointer, _ header: LongHeader) -> (payload: [UInt8], number: UInt64)? {
      keys(header.version).open(packet, numberOffset: header.numberOffset, expected: expectedNumber)
    }
  }

  private let bounds: Bounds
  private(set) var connections: [Connection] = []
  private var destinations: [IPEndpoint: UInt32] = [:]

  public init(_ bounds: Bounds = Bounds()) { self.bounds = bounds }

  /// - Parameters:
  ///   - payload: of one datagram of UDP, or of several that the kernel has put into one frame.
  ///   - size: of each of several.
  ///   - frame: what is kept where the verdict is to hold it.
  ///   - now: seconds of a clock that does not go back.
  ///   - refusal: asked once for each ClientHello; why its name, nil where it has none, may not be asked for at the destination.
  public mutating func judge(
    _ payload: UnsafeRawBufferPointer, each size: Int? = nil, frame: UnsafeRawBufferPointer, to destination: IPEndpoint,
    now: UInt32, refusal: (DomainName?) -> String?
  ) -> Verdict {
    let step = size ?? payload.count
    guard step > 0 else { return .deny("a datagram without a byte is not QUIC") }
    if payload[0] & 0x80 == 0, step >= payload.count { return others(frame, destination, now) }
    connections.removeAll { now &- $0.lastSeen > Self.handshakeLifetime }
    do throws(Denial) {
      var subject: Int?
      var isNew = false
      for start in stride(from: 0, to: payload.count, by: step) {
        let datagram = UnsafeRawBufferPointer(rebasing: payload[start..<min(start + step, payload.count)])
        isNew = try read(datagram, destination, now, &subject) || isNew
      }
      guard let subject else { return others(frame, destination, now) }
      return try verdict(subject, isNew, frame, destination, now, refusal)
    } catch {
      return .deny(error.reason)
    }
  }

  // MARK: what no name can be read from

  private mutating func others(_ frame: UnsafeRawBufferPointer, _ destination: IPEndpoint, _ now: UInt32) -> Verdict {
    if let time = destinations[destination], now &- time <= Self.destinationLifetime {
      if time != now { destinations[destination] = now }
      return .pass(held: [])
    }
    guard let index = connections.lastIndex(where: { $0.destination == destination && !$0.held.isEmpty }) else {
      return .deny("it belongs to no QUIC connection that began with a name")
    }
    return hold(frame, index)
  }

  private mutating func hold(_ frame: UnsafeRawBufferPointer, _ index: Int) -> Verdict {
    let total = connections.reduce(0) { $1.held.reduce($0) { $0 + $1.count } }
    guard connections[index].held.count < bounds.heldCount, total + frame.count <= bounds.heldBytes else {
      return .drop
    }
    connections[index].held.append(Array(frame))
    return .hold
  }

  // MARK: Initials

  /// - Parameter subject: the connection that the datagram's Initials belong to.
  /// - Returns: whether there were bytes that had not come before, or packets that nobody can open here.
  private mutating func read(
    _ datagram: UnsafeRawBufferPointer, _ destination: IPEndpoint, _ now: UInt32, _ subject: inout Int?
  ) throws(Denial) -> Bool {
    var start = 0
    var isNew = false
    var identifier: [UInt8]?
    while start < datagram.count {
      // A packet with a short header has the rest of the datagram (RFC 9000 section 12.2).
      guard datagram[start] & 0x80 != 0 else { return true }
      let header: LongHeader
      do throws(LongHeader.Defect) {
        header = try LongHeader(datagram, at: start)
      } catch {
        throw Denial(reason: "a QUIC packet \(error.reason)")
      }
      guard identifier == nil || identifier == header.destinationID else {
        throw Denial(reason: "a datagram for two QUIC connections")
      }
      identifier = header.destinationID
      if header.kind == .initial {
        let packet = UnsafeRawBufferPointer(rebasing: datagram[start..<header.end])
        let (index, payload) = try open(packet, header, destination, now, subject)
        subject = index
        isNew = try add(payload, index) || isNew
      } else {
        isNew = true
      }
      start = header.end
    }
    return isNew
  }

  /// Finds the one connection that a packet can belong to.
  /// - Parameter subject: where it is known already, the only one that it may.
  private mutating func open(
    _ packet: UnsafeRawBufferPointer, _ header: LongHeader, _ destination: IPEndpoint, _ now: UInt32,
    _ subject: Int?
  ) throws(Denial) -> (index: Int, payload: [UInt8]) {
    // By its own destination connection id, as a server does that has no connection of that id.
    let own = connections.firstIndex { $0.destination == destination && $0.identifier == header.destinationID }
    var made = Connection(destination, header.destinationID, now)
    let opened = if let own { connections[own].open(packet, header) } else { made.open(packet, header) }
    var found = opened.map { (index: own ?? connections.count, $0.payload, $0.number) }
    for index in connections.indices where index != own && connections[index].isReleased {
      guard let opened = connections[index].open(packet, header) else { continue }
      guard found == nil, connections[index].destination == destination else {
        throw Denial(reason: "a QUIC packet that two servers would read differently")
      }
      found = (index, opened.payload, opened.number)
    }
    guard let (place, payload, number) = found else {
      throw Denial(reason: "a QUIC Initial that its server could not open")
    }
    guard subject == nil || subject == place else { throw Denial(reason: "a datagram for two QUIC connections") }
    var index = place
    if index == connections.count {
      // What has reached no server can be forgotten at any time: if it comes again, it is judged again.
      if index >= bounds.connections { connections.removeAll { !$0.isReleased } }
      guard connections.count < bounds.connections else { throw Denial(reason: "too many QUIC handshakes at once") }
      index = connections.count
      connections.append(made)
    }
    if let refusal = connections[index].refusal { throw Denial(reason: refusal) }
    connections[index].expectedNumber = max(connections[index].expectedNumber, number + 1)
    connections[index].lastSeen = now
    return (index, payload)
  }

  /// - Returns: whether the handshake has bytes that it had not.
  private mutating func add(_ payload: [UInt8], _ index: Int) throws(Denial) -> Bool {
    guard let frames = InitialFrames.read(payload) else {
      throw refuse(index, "a QUIC Initial with frames that it cannot have")
    }
    var isNew = false
    for frame in frames {
      let before = connections[index].stream.bytes.count
      switch connections[index].stream.add(frame) {
      case .new: isNew = true
      case .known: break
      case .contradiction: throw refuse(index, "a QUIC handshake that says two things at the same place")
      case .tooLong: throw refuse(index, "a QUIC handshake of more than \(CryptoStream.limit) bytes")
      }
      guard connections[index].stream.bytes.count > before else { continue }
      guard connections.reduce(0, { $0 + $1.stream.bytes.count }) <= bounds.streamBytes else {
        throw refuse(index, "too many QUIC handshakes at once")
      }
    }
    return isNew
  }

  /// Nothing more of the connection goes on.
  private mutating func refuse(_ index: Int, _ reason: String) -> Denial {
    connections[index].refusal = reason
    connections[index].held = []
    connections[index].stream = CryptoStream()
    return Denial(reason: reason)
  }

  private mutating func verdict(
    _ index: Int, _ isNew: Bool, _ frame: UnsafeRawBufferPointer, _ destination: IPEndpoint, _ now: UInt32,
    _ refusal: (DomainName?) -> String?
  ) throws(Denial) -> Verdict {
    let stream = connections[index].stream
    reading: while connections[index].checked < stream.contiguous {
      let checked = connections[index].checked
      switch ClientHello.read(message: stream.bytes[checked..<stream.contiguous]) {
      case .incomplete, .notTLS: break reading
      case .malformed(let reason): throw refuse(index, "a ClientHello that \(reason)")
      case .hello(let hello):
        guard checked == 0 || hello.serverName == connections[index].name else {
          throw refuse(index, "a second ClientHello with another name")
        }
        if let reason = refusal(hello.serverName) { throw refuse(index, reason) }
        connections[index].name = hello.serverName
        connections[index].checked = checked + hello.length
      }
    }
    guard connections[index].checked > 0, connections[index].checked == stream.bytes.count else {
      return isNew ? hold(frame, index) : .drop
    }
    connections[index].isReleased = true
    let held = connections[index].held
    connections[index].held = []
    if destinations.count >= bounds.destinations { forgetHalf() }
    destinations[destination] = now
    return .pass(held: held)
  }

  private mutating func forgetHalf() {
    let times = destinations.values.sorted()
    let middle = times[times.count / 2]
    destinations = destinations.filter { $0.value > middle }
  }
}
