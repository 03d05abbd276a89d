/// The header of a packet before the connection's own keys (RFC 9000 section 17.2), and where the packet ends.
struct LongHeader {
  enum Kind: UInt8 {
    case initial, zeroRTT, handshake, retry
  }

  var version: QUICVersion
  var kind: Kind
  var destinationID: [UInt8]
  /// From the packet's first byte.
  var numberOffset: Int
  /// Behind the packet, in its datagram.
  var end: Int

  /// Completes "a QUIC packet …".
  struct Defect: Error {
    var reason: String
  }

  /// RFC 9000 section 17.2: in both versions; a longer one is thrown away by every server.
  private static let identifierLimit = 20

  /// - Parameter start: of the packet in its datagram; the header's form is known to be long.
  init(_ datagram: UnsafeRawBufferPointer, at start: Int) throws(Defect) {
    var reader = PacketReader(datagram, from: start)
    guard let first = reader.byte(), let words = reader.take(4) else { throw Defect(reason: "that ends too early") }
    let number = words.reduce(0) { $0 << 8 | UInt32($1) }
    guard let version = QUICVersion(rawValue: number), let kind = Kind(rawValue: version.kind(first >> 4 & 3)) else {
      throw Defect(reason: "of version 0x\(String(number, radix: 16)), expected 1 or 2")
    }
    self.version = version
    self.kind = kind
    guard kind != .retry else { throw Defect(reason: "that only servers send") }
    guard let length = reader.byte(), length <= Self.identifierLimit, let identifier = reader.take(Int(length)),
      let other = reader.byte(), other <= Self.identifierLimit, reader.take(Int(other)) != nil
    else { throw Defect(reason: "without two connection ids") }
    destinationID = Array(identifier)
    if kind == .initial {
      guard let token = reader.number(), reader.take(token) != nil else { throw Defect(reason: "that ends too early") }
    }
    guard let length = reader.number() else { throw Defect(reason: "that ends too early") }
    numberOffset = reader.offset - start
    guard reader.take(length) != nil else { throw Defect(reason: "that ends too early") }
    end = reader.offset
  }
}
