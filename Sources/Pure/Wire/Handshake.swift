import Inet

/// What a stream is for; the second half of the hello's fixed part. See docs/protocol.md.
public enum Channel: UInt8, Sendable, CaseIterable {
  case connect = 1
  case resolve = 2
  case packets = 3
  case logs = 4
  case control = 5
  case session = 6
  case listening = 7
  case datagrams = 8
}

/// The answer to a hello, and the reason in a reset frame. Every status stands for an errno of connect(2) or read(2).
public enum Status: UInt8, Sendable, CaseIterable, CustomStringConvertible {
  case ok = 0
  case refused = 1
  case timedOut = 2
  case hostUnreachable = 3
  case networkUnreachable = 4
  case denied = 5
  case nameNotFound = 6
  case noResources = 7
  case badRequest = 8
  case unsupported = 9
  case reset = 10
  case failed = 11

  public var description: String {
    switch self {
    case .ok: "ok"
    case .refused: "connection refused"
    case .timedOut: "connection timed out"
    case .hostUnreachable: "host unreachable"
    case .networkUnreachable: "network unreachable"
    case .denied: "denied by policy"
    case .nameNotFound: "name not found"
    case .noResources: "out of resources"
    case .badRequest: "bad request"
    case .unsupported: "not supported"
    case .reset: "connection reset"
    case .failed: "failed"
    }
  }
}

/// The first bytes of every stream, from its opener: magic, version, channel, length, token, parameters.
public struct Hello: Equatable, Sendable {
  public static let magic: [UInt8] = [0x54, 0x4d, 0x42, 0x4c]
  public static let version: UInt8 = 2
  public static let headerLength = 8
  public static let parameterLimit = 1024

  public var channel: Channel
  /// Shows that the stream belongs to the boot; `none` opens nothing.
  public var token: Token
  public var parameters: [UInt8]

  public init(_ channel: Channel, token: Token = .none, parameters: [UInt8] = []) {
    self.channel = channel
    self.token = token
    self.parameters = parameters
  }

  /// The same with the token that proves where it comes from.
  public func proven(by token: Token) -> Hello { Hello(channel, token: token, parameters: parameters) }

  public func encoded() -> [UInt8] { encodeMessage(channel.rawValue, token.bytes, parameters) }

  /// Reads a hello from the start of `bytes`; nil where more must come. Wrong magic and version are found in the first
  /// byte that differs, however little has come.
  public static func decode(_ bytes: [UInt8]) throws(WireError) -> (hello: Hello, length: Int)? {
    guard let message = try decodeMessage(bytes, prefix: Token.length) else { return nil }
    guard let channel = Channel(rawValue: message.code) else { throw .unknownChannel(message.code) }
    guard let token = Token(message.prefix) else { throw .truncated }
    return (Hello(channel, token: token, parameters: message.parameters), message.length)
  }
}

/// The reply to a hello, in the same form with the status in the channel's place.
public struct Answer: Equatable, Sendable {
  public var status: Status
  public var parameters: [UInt8]

  public init(_ status: Status, parameters: [UInt8] = []) {
    self.status = status
    self.parameters = parameters
  }

  public func encoded() -> [UInt8] { encodeMessage(status.rawValue, [], parameters) }

  public static func decode(_ bytes: [UInt8]) throws(WireError) -> (answer: Answer, length: Int)? {
    guard let message = try decodeMessage(bytes, prefix: 0) else { return nil }
    guard let status = Status(rawValue: message.code) else { throw .unknownStatus(message.code) }
    return (Answer(status, parameters: message.parameters), message.length)
  }
}

private func encodeMessage(_ code: UInt8, _ prefix: [UInt8], _ parameters: [UInt8]) -> [UInt8] {
  var bytes = Hello.magic
  bytes += [Hello.version, code]
  bytes.append(integer: UInt16(clamping: parameters.count))
  return bytes + prefix + parameters
}

/// - Parameter prefix: bytes of fixed number between the header and the parameters.
private func decodeMessage(
  _ bytes: [UInt8], prefix: Int
) throws(WireError) -> (code: UInt8, prefix: ArraySlice<UInt8>, parameters: [UInt8], length: Int)? {
  guard zip(bytes, Hello.magic).allSatisfy({ $0 == $1 }) else { throw .badMagic(Array(bytes.prefix(4))) }
  if bytes.count > 4, bytes[4] != Hello.version { throw .unsupportedVersion(bytes[4]) }
  guard bytes.count >= Hello.headerLength else { return nil }
  let count = Int(bytes[6]) << 8 | Int(bytes[7])
  guard count <= Hello.parameterLimit else {
    throw .badLength(what: "parameters", found: count, limit: Hello.parameterLimit)
  }
  let start = Hello.headerLength + prefix
  guard bytes.count >= start + count else { return nil }
  return (bytes[5], bytes[Hello.headerLength..<start], Array(bytes[start..<start + count]), start + count)
}

/// The parameters of a connect hello: where to, and on whose behalf.
public struct ConnectRequest: Equatable, Sendable, CustomStringConvertible {
  public var destination: Destination
  /// The client of a published port, or the program's own socket; informative only.
  public var source: IPEndpoint?
  /// The name that the enclave has checked: the one that it was asked for, or that the client names to the server.
  public var name: DomainName?

  public enum Destination: Equatable, Sendable, CustomStringConvertible {
    case endpoint(IPEndpoint)
    /// A port of the other side itself: a published port of the enclave.
    case port(UInt16)

    public var description: String {
      switch self {
      case .endpoint(let endpoint): endpoint.description
      case .port(let port): "port \(port)"
      }
    }
  }

  public init(_ destination: Destination, source: IPEndpoint? = nil, name: DomainName? = nil) {
    self.destination = destination
    self.source = source
    self.name = name
  }

  public var hello: Hello {
    var bytes: [UInt8] = []
    switch destination {
    case .endpoint(let endpoint): encode(endpoint, into: &bytes)
    case .port(let port):
      bytes.append(0)
      bytes.append(integer: port)
    }
    if let source {
      encode(source, into: &bytes)
    } else {
      bytes += [0, 0, 0]
    }
    if let name { bytes += [UInt8(truncatingIfNeeded: name.labels.count)] + name.labels }
    return Hello(.connect, parameters: bytes)
  }

  public init(parameters: [UInt8]) throws(WireError) {
    var reader = ByteReader(parameters)
    let destination = try decodeEndpoint(&reader)
    if let address = destination.address {
      self.destination = .endpoint(IPEndpoint(address, destination.port))
    } else {
      self.destination = .port(destination.port)
    }
    let source = try decodeEndpoint(&reader)
    if let address = source.address { self.source = IPEndpoint(address, source.port) }
    if !reader.isAtEnd {
      let count: UInt8 = try reader.integer()
      guard count > 0, let name = DomainName(labels: Array(try reader.bytes(Int(count)))) else {
        throw .badValue(what: "name")
      }
      self.name = name
    }
    try reader.finish()
    guard destination.port != 0 else { throw .badValue(what: "destination port") }
  }

  /// `93.184.216.34:443 (api.example.com)`.
  public var target: String { name.map { "\(destination) (\($0))" } ?? destination.description }

  public var description: String { source.map { "\(target) for \($0)" } ?? target }
}

private func encode(_ endpoint: IPEndpoint, into bytes: inout [UInt8]) {
  let address = endpoint.address.bytes
  bytes.append(address.count == 4 ? 4 : 6)
  bytes.append(integer: endpoint.port)
  bytes += address
}

private func decodeEndpoint(_ reader: inout ByteReader) throws(WireError) -> (address: IPAddress?, port: UInt16) {
  let family: UInt8 = try reader.integer()
  let port: UInt16 = try reader.integer()
  switch family {
  case 0: return (nil, port)
  case 4: return (IPAddress(bytes: try reader.bytes(4)), port)
  case 6: return (IPAddress(bytes: try reader.bytes(16)), port)
  default: throw .badValue(what: "address family \(family)")
  }
}
