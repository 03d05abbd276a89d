/// What the proxy and the DNS client say to each other, a datagram each on one pair of sockets that outlives both.
///
///   started     client ▶ proxy   it is new: whatever the one before it was asked is lost
///   connect     client ▶ proxy   a connection to a server of the list, please; no other place can be asked for
///   connection  proxy ▶ client   here it is, as SCM_RIGHTS
///   refusal     proxy ▶ client   there is none, and why
///   message     both             a query, or its response
///
/// So the client, which parses what comes off the network, has no socket of its own and chooses nothing but a number.
public enum UpstreamMessage: Equatable, Sendable {
  case started
  case connect(server: UInt8)
  case connection(server: UInt8)
  case refusal(server: UInt8, reason: String)
  case message([UInt8])

  /// The longest: a DNS message behind one byte.
  public static let limit = 65536
  static let reasonLimit = 512

  public var bytes: [UInt8] {
    switch self {
    case .started: [0]
    case .connect(let server): [1, server]
    case .connection(let server): [2, server]
    case .message(let message): [3] + message
    case .refusal(let server, let reason): [4, server] + Array(reason.utf8.prefix(Self.reasonLimit))
    }
  }

  /// nil for what is none.
  public init?(_ bytes: [UInt8]) {
    switch (bytes.first, bytes.count) {
    case (0, 1): self = .started
    case (1, 2): self = .connect(server: bytes[1])
    case (2, 2): self = .connection(server: bytes[1])
    case (3, 2...Self.limit): self = .message(Array(bytes.dropFirst()))
    case (4, 2...Self.reasonLimit + 2):
      self = .refusal(server: bytes[1], reason: String(decoding: bytes.dropFirst(2), as: UTF8.self))
    default: return nil
    }
  }
}
