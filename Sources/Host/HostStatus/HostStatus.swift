import FoundationEssentials

/// What a host side says of itself: `tombolo status` prints it, and as JSON its keys are these names in snake case.
/// "From" and "to" are seen from the host: from the enclave, to the enclave. All numbers count from the host side's start.
public struct HostStatus: Codable, Equatable, Sendable {
  public struct Published: Codable, Equatable, Sendable {
    /// Address and port of this machine.
    public var listen: String
    /// The enclave's port.
    public var port: UInt16
    /// `tcp` or `udp`.
    public var transport: String
    /// Whether a program listens on it, and so this machine does; nil in raw mode, where clients ask the program itself.
    public var listening: Bool?

    public init(listen: String, port: UInt16, transport: String = "tcp") {
      self.listen = listen
      self.port = port
      self.transport = transport
    }

    /// A host side of an earlier version says nothing of the transport, and publishes TCP alone.
    public init(from decoder: any Decoder) throws {
      let values = try decoder.container(keyedBy: CodingKeys.self)
      listen = try values.decode(String.self, forKey: .listen)
      port = try values.decode(UInt16.self, forKey: .port)
      transport = try values.decodeIfPresent(String.self, forKey: .transport) ?? "tcp"
      listening = try values.decodeIfPresent(Bool.self, forKey: .listening)
    }
  }

  /// A plain stream's way, `--forward` or `--forward-in`. Its connections are among those of `traffic` as well.
  public struct Forward: Codable, Equatable, Sendable {
    /// `out` or `in`.
    public var way: String
    /// This machine's port of the transport for `out`, the enclave's for `in`.
    public var vsockPort: UInt32
    /// Where what the enclave sends goes, or where this machine listens.
    public var address: String
    public var open = 0
    public var total: UInt64 = 0
    /// Not made, or refused at once.
    public var failed: UInt64 = 0
    /// Not made, because the policy said no.
    public var denied: UInt64 = 0
    /// Payload of the connections, those under way included.
    public var bytesFromEnclave: UInt64 = 0
    public var bytesToEnclave: UInt64 = 0

    public init(way: String, vsockPort: UInt32, address: String) {
      self.way = way
      self.vsockPort = vsockPort
      self.address = address
    }
  }

  /// TCP mode: connections out of the enclave.
  public struct Outgoing: Codable, Equatable, Sendable {
    public var open = 0
    public var total: UInt64 = 0
    /// Not made, because the network said no.
    public var failed: UInt64 = 0
    /// Not made, because the policy said no.
    public var denied: UInt64 = 0
  }

  /// TCP mode: connections to published ports.
  public struct Incoming: Codable, Equatable, Sendable {
    public var open = 0
    public var total: UInt64 = 0
    /// Refused by the enclave, or there was none.
    public var failed: UInt64 = 0
  }

  public struct Traffic: Codable, Equatable, Sendable {
    public var outgoing = Outgoing()
    public var incoming = Incoming()
    /// Payload of the connections, those under way included.
    public var bytesFromEnclave: UInt64 = 0
    public var bytesToEnclave: UInt64 = 0
    public init() {}
  }

  public struct Names: Codable, Equatable, Sendable {
    public var queries: UInt64 = 0
    /// Queries that no server answered.
    public var failed: UInt64 = 0
    public var underway = 0
    public init() {}
  }

  /// One direction of a queue.
  public struct Flow: Codable, Equatable, Sendable {
    public var packets: UInt64
    public var bytes: UInt64
    /// Bytes, rounded down; 0 without packets.
    public var meanSize: UInt64

    public init(packets: UInt64, bytes: UInt64) {
      self.packets = packets
      self.bytes = bytes
      meanSize = packets == 0 ? 0 : bytes / packets
    }
  }

  public struct Queue: Codable, Equatable, Sendable {
    public var queue: Int
    /// Whether the enclave's stream stands.
    public var connected: Bool
    /// Whether packets go through memory that both sides have, and not over the stream.
    public var sharedMemory: Bool
    public var fromEnclave: Flow
    public var toEnclave: Flow
    /// Packets of the enclave that did not get any further, by reason; reasons that did not occur are not there.
    public var dropped: [String: UInt64]
    /// Packets to the enclave that came while there was no stream.
    public var unsent: UInt64
    public var reconnects: UInt64

    public init(
      queue: Int, connected: Bool, sharedMemory: Bool, fromEnclave: Flow, toEnclave: Flow, dropped: [String: UInt64],
      unsent: UInt64, reconnects: UInt64
    ) {
      self.queue = queue
      self.connected = connected
      self.sharedMemory = sharedMemory
      self.fromEnclave = fromEnclave
      self.toEnclave = toEnclave
      self.dropped = dropped
      self.unsent = unsent
      self.reconnects = reconnects
    }
  }

  /// Raw mode.
  public struct Raw: Codable, Equatable, Sendable {
    public var link: String
    /// The enclave's addresses with their prefixes; empty before it has come.
    public var addresses: [String]
    /// Bytes; nil before the enclave has come.
    public var mtu: UInt16?
    /// What the rules are made with; nil before the enclave has come.
    public var firewall: String?
    public var queues: [Queue]
    /// Queues whose thread did not answer in time.
    public var silent: [Int]

    public init(
      link: String, addresses: [String], mtu: UInt16?, firewall: String?, queues: [Queue], silent: [Int]
    ) {
      self.link = link
      self.addresses = addresses
      self.mtu = mtu
      self.firewall = firewall
      self.queues = queues
      self.silent = silent
    }
  }

  /// A boot that has opened its session.
  public struct Session: Codable, Equatable, Sendable {
    /// nil where the transport has one enclave.
    public var cid: UInt32?
    /// 32 hexadecimal digits, other ones at each start.
    public var boot: String
    /// `tombolo-init`'s.
    public var version: String
    /// SHA-384, in hexadecimal.
    public var configurationDigest: String
    /// SHA-384 of the effective policy, in hexadecimal, as `tombolo check` prints it; nil where the boot has not said it.
    public var policyDigest: String?
    public var connected: Bool
    public var services: [Service]

    public init(
      cid: UInt32?, boot: String, version: String, configurationDigest: String, policyDigest: String?, connected: Bool,
      services: [Service]
    ) {
      self.cid = cid
      self.boot = boot
      self.version = version
      self.configurationDigest = configurationDigest
      self.policyDigest = policyDigest
      self.connected = connected
      self.services = services
    }
  }

  public struct Service: Codable, Equatable, Sendable {
    public var name: String
    /// down, starting, ready, stopping or ended.
    public var state: String

    public init(name: String, state: String) {
      self.name = name
      self.state = state
    }
  }

  /// What the enclave uses, or was denied.
  public struct Destination: Codable, Equatable, Sendable {
    /// `api.example.com:443`, `10.0.0.1:5432`, `udp://10.0.0.1:53`; `dns api.example.com` for a name that was asked for.
    public var destination: String
    public var count: UInt64
    /// Of one that was denied: `enclave` or `host`.
    public var side: String?
    /// What decided about one that was denied.
    public var reason: String?

    public init(destination: String, count: UInt64, side: String? = nil, reason: String? = nil) {
      self.destination = destination
      self.count = count
      self.side = side
      self.reason = reason
    }
  }

  public struct Destinations: Codable, Equatable, Sendable {
    /// The most frequent first.
    public var list: [Destination]
    /// How often there was something for which the list has no room, or of which the log tells the number alone.
    public var others: UInt64

    public init(_ list: [Destination], others: UInt64) {
      self.list = list.sorted {
        ($1.count, $0.destination, $0.side ?? "") < ($0.count, $1.destination, $1.side ?? "")
      }
      self.others = others
    }
  }

  public var pid: Int32
  /// `run`, `host` or `boot`.
  public var command: String
  public var name: String
  public var version: String
  /// Since the host side's start.
  public var seconds: UInt64 = 0
  /// How the enclave is reached.
  public var transport: String
  public var published: [Published]
  /// nil where there are none.
  public var forwards: [Forward]?
  /// Whether the enclave's log is connected, which is so from its start to its end.
  public var logConnected = false
  public var sessions: [Session] = []
  /// Streams that did not prove that they are the enclave's.
  public var refused: UInt64 = 0
  /// What was refused because the enclave had too much of it at a time: hellos, outgoing, incoming, resolvers, queries;
  /// kinds that did not occur are not there, and nil where none did.
  public var overLimit: [String: UInt64]?
  public var traffic = Traffic()
  public var names = Names()
  /// Connections, by name where one is known, and names asked for; nil where there were none.
  public var used: Destinations?
  /// By either side; nil where there was none.
  public var denied: Destinations?
  /// nil in TCP mode.
  public var raw: Raw?

  public init(
    pid: Int32, command: String, name: String, version: String, transport: String, published: [Published]
  ) {
    self.pid = pid
    self.command = command
    self.name = name
    self.version = version
    self.transport = transport
    self.published = published
  }

  /// Whether `text` names it: its process, its name, or its link in raw mode.
  public func answers(to text: String) -> Bool { text == "\(pid)" || text == name || text == raw?.link }
}

// MARK: JSON

extension HostStatus {
  private static func encoder() -> JSONEncoder {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return encoder
  }

  public func encoded() throws -> [UInt8] { Array(try Self.encoder().encode(self)) }

  public init(json: [UInt8]) throws {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    self = try decoder.decode(Self.self, from: Data(json))
  }

  /// One array, a host side an element.
  public static func document(_ all: [HostStatus]) throws -> String {
    let encoder = encoder()
    encoder.outputFormatting.insert(.prettyPrinted)
    return String(decoding: try encoder.encode(all), as: UTF8.self)
  }
}

// MARK: words

extension HostStatus: CustomStringConvertible {
  /// Several lines for a terminal. What other processes have said has its control characters taken out.
  public var description: String {
    var lines = [
      "\(name) (pid \(pid)): tombolo \(command), \(raw == nil ? "TCP" : "raw") mode, up \(Self.duration(seconds))"
    ]
    func add(_ label: String, _ text: String) {
      lines.append("  \(label)\(String(repeating: " ", count: max(1, 11 - label.count)))\(text)")
    }
    add("transport", "\(transport), \(logConnected ? "the enclave is there" : "no enclave")")
    for session in sessions {
      let services = session.services.map { "\($0.name) \($0.state)" }.joined(separator: ", ")
      add(
        "boot",
        (session.cid.map { "CID \($0), " } ?? "")
          + "\(session.boot.prefix(8)), tombolo-init \(session.version)\(session.connected ? "" : ", no session")"
          + (services.isEmpty ? "" : "; \(services)"))
      if let digest = session.policyDigest { add("policy", digest) }
    }
    if refused > 0 { add("refused", "\(refused) streams that were not the enclave's") }
    if let overLimit {
      add("over limit", overLimit.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", "))
    }
    for port in published {
      add(
        "published",
        "\(port.listen) → \(port.port)\(port.transport == "tcp" ? "" : "/\(port.transport)")"
          + (port.listening == false ? ", nothing listens" : ""))
    }
    for forward in forwards ?? [] {
      add(
        "forward",
        (forward.way == "in"
          ? "\(forward.address) → \(forward.vsockPort)" : "\(forward.vsockPort) → \(forward.address)")
          + ": \(forward.open) open, \(forward.total) in all, \(forward.failed) failed"
          + (forward.way == "in" ? "" : ", \(forward.denied) denied"))
    }
    if let raw {
      let parts = [
        raw.addresses.isEmpty ? nil : raw.addresses.joined(separator: ", "), raw.mtu.map { "MTU \($0)" },
        raw.firewall.map { "rules in \($0)" },
      ].compactMap { $0 }
      add("link", raw.link + (parts.isEmpty ? "" : ": " + parts.joined(separator: ", ")))
      for queue in raw.queues { add("queue \(queue.queue)", Self.words(queue)) }
      for index in raw.silent { add("queue \(index)", "does not answer") }
    } else {
      let out = traffic.outgoing
      let into = traffic.incoming
      add("out", "\(out.open) open, \(out.total) in all, \(out.failed) failed, \(out.denied) denied")
      add("in", "\(into.open) open, \(into.total) in all, \(into.failed) failed")
      add("bytes", "\(traffic.bytesFromEnclave) from the enclave, \(traffic.bytesToEnclave) to it")
    }
    add("DNS", "\(names.queries) queries, \(names.failed) failed, \(names.underway) under way")
    for (label, seen) in [("used", used), ("denied", denied)] {
      guard let seen else { continue }
      for entry in seen.list.prefix(Self.shownDestinations) {
        let why = [entry.side, entry.reason].compactMap { $0 }.joined(separator: ": ")
        add(label, "\(entry.count) × \(entry.destination)" + (why.isEmpty ? "" : " (\(why))"))
      }
      let rest = seen.list.dropFirst(Self.shownDestinations).reduce(seen.others) { $0 &+ $1.count }
      if rest > 0 { add(label, "\(rest) × others") }
    }
    return lines.map(Self.printable).joined(separator: "\n")
  }

  /// Of each kind; JSON has all that are counted.
  private static let shownDestinations = 10

  private static func words(_ queue: Queue) -> String {
    func flow(_ flow: Flow) -> String { "\(flow.packets) packets \(flow.bytes) bytes (mean \(flow.meanSize))" }
    let total = queue.dropped.values.reduce(0, &+)
    let reasons = queue.dropped.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
    return "from the enclave \(flow(queue.fromEnclave)), to it \(flow(queue.toEnclave)), dropped \(total)"
      + (reasons.isEmpty ? "" : " (\(reasons.joined(separator: ", ")))")
      + ", unsent \(queue.unsent), reconnects \(queue.reconnects)" + (queue.connected ? "" : ", no stream")
      + (queue.sharedMemory ? ", shared memory" : "")
  }

  /// `3d 4h`, `2h 5m`, `2m 5s`, `5s`.
  static func duration(_ seconds: UInt64) -> String {
    switch seconds {
    case ..<60: "\(seconds)s"
    case ..<3600: "\(seconds / 60)m \(seconds % 60)s"
    case ..<86400: "\(seconds / 3600)h \(seconds / 60 % 60)m"
    default: "\(seconds / 86400)d \(seconds / 3600 % 24)h"
    }
  }

  /// Without control characters, which could steer a terminal.
  public static func printable(_ text: String) -> String {
    String(
      String.UnicodeScalarView(text.unicodeScalars.filter { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) }))
  }
}
