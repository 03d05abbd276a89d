// The session between PID 1 and the host, and what every other stream proves that it belongs to. See docs/protocol.md,
// "Session" and "Who may open what".

/// 256 random bits. A process that has them may open the streams that they are for. Never printed.
public struct Token: Equatable, Sendable, CustomStringConvertible {
  /// In bytes.
  public static let length = 32

  public let bytes: [UInt8]

  /// nil unless there are exactly `length` bytes.
  public init?(_ bytes: some Collection<UInt8>) {
    guard bytes.count == Self.length else { return nil }
    self.bytes = Array(bytes)
  }

  private init(zeros: Void) { bytes = [UInt8](repeating: 0, count: Self.length) }

  /// Proves nothing: no boot has it.
  public static let none = Token(zeros: ())

  /// Takes the same time wherever the difference is. `none` matches nothing, itself neither.
  public func matches(_ other: Token) -> Bool {
    var difference: UInt8 = 0
    var any: UInt8 = 0
    for index in 0..<Self.length {
      difference |= bytes[index] ^ other.bytes[index]
      any |= bytes[index]
    }
    return difference == 0 && any != 0
  }

  public var description: String { "(a token)" }
}

/// Two digits a byte, in small letters.
public func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
  bytes.reduce(into: "") { $0 += ($1 < 16 ? "0" : "") + String($1, radix: 16) }
}

/// One start of an enclave: random, so that no two are the same.
public struct BootID: Hashable, Sendable, CustomStringConvertible {
  public var high: UInt64
  public var low: UInt64

  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// 32 hexadecimal digits.
  public var description: String { Self.hex(high) + Self.hex(low) }

  /// Reads what `description` writes.
  public init?(_ text: some StringProtocol) {
    let digits = Array(text.utf8)
    guard digits.count == 32, let high = Self.number(digits[..<16]), let low = Self.number(digits[16...]) else {
      return nil
    }
    self.init(high: high, low: low)
  }

  private static func hex(_ number: UInt64) -> String {
    let text = String(number, radix: 16)
    return String(repeating: "0", count: 16 - text.utf8.count) + text
  }

  private static func number(_ digits: ArraySlice<UInt8>) -> UInt64? {
    digits.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
      ? UInt64(String(decoding: digits, as: UTF8.self), radix: 16) : nil
  }
}

/// What the two sides of one boot know and nobody else: each token opens its own kind of stream.
public struct BootSecrets: Equatable, Sendable {
  /// PID 1's own: the session, the log, questions to the host.
  public var session: Token
  /// The proxy's: connections, names, packets. The proxy parses foreign bytes; what it has opens no log and no session.
  public var proxy: Token
  /// The host's: what it opens to the enclave.
  public var host: Token

  public init(session: Token, proxy: Token, host: Token) {
    self.session = session
    self.proxy = proxy
    self.host = host
  }

  /// The token that an enclave's stream of that kind must carry.
  public func token(for channel: Channel) -> Token {
    switch channel {
    case .session, .logs, .control: session
    case .connect, .resolve, .packets, .listening, .datagrams: proxy
    }
  }
}

/// The parameters of a session's hello: what PID 1 says when it has started. The hello's own token is the session's.
public struct StartReport: Equatable, Sendable {
  /// SHA-384, as the security module measures.
  public static let digestLength = 48
  public static let versionLimit = 64

  public var boot: BootID
  public var proxyToken: Token
  public var hostToken: Token
  /// Of the configuration as it is carried out: docs/protocol.md says of which bytes.
  public var configurationDigest: [UInt8]
  /// `tombolo-init`'s, 1 to 64 bytes of printable ASCII.
  public var version: String
  /// Of the effective policy, as docs/policy.md has it; nil for a start that failed before it had one.
  public var policyDigest: [UInt8]?

  public init(
    boot: BootID, proxyToken: Token, hostToken: Token, configurationDigest: [UInt8], version: String,
    policyDigest: [UInt8]? = nil
  ) {
    self.boot = boot
    self.proxyToken = proxyToken
    self.hostToken = hostToken
    self.configurationDigest = configurationDigest
    self.version = version
    self.policyDigest = policyDigest
  }

  public var parameters: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(integer: boot.high)
    bytes.append(integer: boot.low)
    bytes += proxyToken.bytes + hostToken.bytes + configurationDigest + Array(version.utf8)
    if let policyDigest { bytes += [0] + policyDigest }
    return bytes
  }

  public init(parameters: [UInt8]) throws(WireError) {
    var reader = ByteReader(parameters)
    boot = BootID(high: try reader.integer(), low: try reader.integer())
    proxyToken = try reader.token()
    hostToken = try reader.token()
    configurationDigest = Array(try reader.bytes(Self.digestLength))
    let rest = reader.remainder()
    let text = rest.prefix { $0 != 0 }
    if text.count < rest.count {
      let digest = rest[(text.endIndex + 1)...]
      guard digest.count == Self.digestLength else { throw .badValue(what: "digest of the policy") }
      policyDigest = Array(digest)
    }
    guard (1...Self.versionLimit).contains(text.count), text.allSatisfy({ (0x21...0x7e).contains($0) }) else {
      throw .badValue(what: "version")
    }
    version = String(decoding: text, as: UTF8.self)
    guard proxyToken != .none, hostToken != .none else { throw .badValue(what: "token of zeros") }
  }
}

extension ByteReader {
  public mutating func token() throws(WireError) -> Token {
    guard let token = Token(try bytes(Token.length)) else { throw .truncated }
    return token
  }
}

/// What PID 1 tells the host in a session.
public enum EnclaveReport: Equatable, Sendable {
  /// A service has changed. The name is 1 to 32 bytes of lower-case ASCII letters, digits, "-" and "_".
  case service(name: String, state: ServiceReport)
  /// How the program ended, as a shell sees it. The log's last record says the same.
  case exit(UInt8)
  /// The answer to `HostOrder.count`.
  case counters(EnclaveCounters)
}

/// The state of a service as the host is told.
public enum ServiceReport: UInt8, Sendable, CaseIterable {
  case down = 0
  case starting = 1
  case ready = 2
  case stopping = 3
  case ended = 4
}

/// What the enclave's side counts; all from its start.
public struct EnclaveCounters: Equatable, Sendable {
  /// As in the question.
  public var id: UInt32
  /// Bytes of log records that wait for the host.
  public var logBytesWaiting: UInt64
  /// Log records that had to go, and their bytes.
  public var logRecordsDropped: UInt64
  public var logBytesDropped: UInt64
  /// Starts of the proxy after the first.
  public var proxyRestarts: UInt64
  /// Nanoseconds.
  public var uptime: UInt64

  public init(
    id: UInt32, logBytesWaiting: UInt64, logRecordsDropped: UInt64, logBytesDropped: UInt64, proxyRestarts: UInt64,
    uptime: UInt64
  ) {
    self.id = id
    self.logBytesWaiting = logBytesWaiting
    self.logRecordsDropped = logRecordsDropped
    self.logBytesDropped = logBytesDropped
    self.proxyRestarts = proxyRestarts
    self.uptime = uptime
  }
}

/// What the host asks PID 1 in a session.
public enum HostOrder: Equatable, Sendable {
  /// What SIGTERM does.
  case stop
  /// 1 to 64, as if PID 1 had got it.
  case signal(UInt8)
  /// Answered with counters under the same number.
  case count(UInt32)
}

/// The form of all messages of a session: type, a zero, length of the payload (u16), payload.
public enum SessionMessage {
  public static let headerLength = 4
  /// The longest payload, in bytes.
  public static let payloadLimit = 256

  static func encoded(_ type: UInt8, _ payload: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = [type, 0]
    bytes.append(integer: UInt16(clamping: payload.count))
    return bytes + payload
  }
}

/// Finds the messages in a stream however it was cut; holds what it was given and nobody has asked for.
public struct SessionDecoder: Sendable {
  private var buffer = StreamBuffer()

  public init() {}

  public mutating func append(_ bytes: some Collection<UInt8>) { buffer.append(bytes) }

  /// Whether `next` would give a message, or an error.
  public var hasMessage: Bool {
    guard buffer.count >= SessionMessage.headerLength else { return false }
    let length = Int(buffer[2]) << 8 | Int(buffer[3])
    return buffer[1] != 0 || length > SessionMessage.payloadLimit
      || buffer.count >= SessionMessage.headerLength + length
  }

  /// The next whole message, or nil where more must come. A length that is too long is found with the header.
  public mutating func next() throws(WireError) -> (type: UInt8, payload: [UInt8])? {
    guard buffer.count >= SessionMessage.headerLength else { return nil }
    guard buffer[1] == 0 else { throw .badValue(what: "reserved field") }
    let length = Int(buffer[2]) << 8 | Int(buffer[3])
    guard length <= SessionMessage.payloadLimit else {
      throw .badLength(what: "session message", found: length, limit: SessionMessage.payloadLimit)
    }
    let end = SessionMessage.headerLength + length
    guard buffer.count >= end else { return nil }
    defer { buffer.skip(end) }
    return (buffer[0], Array(buffer[SessionMessage.headerLength..<end]))
  }
}

extension EnclaveReport {
  public static let nameLimit = 32

  public func encoded() -> [UInt8] {
    switch self {
    case .service(let name, let state): return SessionMessage.encoded(1, [state.rawValue] + Array(name.utf8))
    case .exit(let status): return SessionMessage.encoded(2, [status])
    case .counters(let counters):
      var payload: [UInt8] = []
      payload.append(integer: counters.id)
      for number in [
        counters.logBytesWaiting, counters.logRecordsDropped, counters.logBytesDropped, counters.proxyRestarts,
        counters.uptime,
      ] {
        payload.append(integer: number)
      }
      return SessionMessage.encoded(3, payload)
    }
  }

  public init(type: UInt8, payload: [UInt8]) throws(WireError) {
    var reader = ByteReader(payload)
    switch type {
    case 1:
      let code: UInt8 = try reader.integer()
      guard let state = ServiceReport(rawValue: code) else { throw .badValue(what: "service state \(code)") }
      let name = reader.remainder()
      guard (1...Self.nameLimit).contains(name.count), name.allSatisfy(Self.isNameByte) else {
        throw .badValue(what: "service name")
      }
      self = .service(name: String(decoding: name, as: UTF8.self), state: state)
    case 2: self = .exit(try reader.integer())
    case 3:
      self = .counters(
        EnclaveCounters(
          id: try reader.integer(), logBytesWaiting: try reader.integer(), logRecordsDropped: try reader.integer(),
          logBytesDropped: try reader.integer(), proxyRestarts: try reader.integer(), uptime: try reader.integer()))
    default: throw .unknownMessage(type)
    }
    try reader.finish()
  }

  private static func isNameByte(_ byte: UInt8) -> Bool {
    (0x61...0x7a).contains(byte) || (0x30...0x39).contains(byte) || byte == UInt8(ascii: "-")
      || byte == UInt8(ascii: "_")
  }
}

extension HostOrder {
  public func encoded() -> [UInt8] {
    switch self {
    case .stop: return SessionMessage.encoded(16, [])
    case .signal(let number): return SessionMessage.encoded(17, [number])
    case .count(let id):
      var payload: [UInt8] = []
      payload.append(integer: id)
      return SessionMessage.encoded(18, payload)
    }
  }

  public init(type: UInt8, payload: [UInt8]) throws(WireError) {
    var reader = ByteReader(payload)
    switch type {
    case 16: self = .stop
    case 17:
      let number: UInt8 = try reader.integer()
      guard (1...64).contains(number) else { throw .badValue(what: "signal \(number)") }
      self = .signal(number)
    case 18: self = .count(try reader.integer())
    default: throw .unknownMessage(type)
    }
    try reader.finish()
  }
}
