import EventLoop
import Inet
import LinuxSystem
import Policy
import Relaying
import Roles
import Wire

/// The proxy's descriptors by name: open files at PID 1, numbers in the proxy.
public struct ProxyDescriptors<Descriptor> {
  /// Listening sockets that redirected TCP arrives at.
  public var egressListeners: [Descriptor] = []
  public var dnsSockets: [Descriptor] = []
  public var dnsListeners: [Descriptor] = []
  /// The enclave's one port: streams from the host arrive there.
  public var transportListener: Descriptor?
  /// The writing end that gets one byte when the proxy is ready.
  public var readiness: Descriptor?
  /// Raw mode: the queues of the TUN device.
  public var tunnelQueues: [Descriptor] = []
  /// TCP mode: the interface through which packets leave that are no connection's; nil where the kernel has no TUN device.
  public var packetLink: Descriptor?
  /// Where the connections arrive that pass through it when the host has made them; empty where they are accepted at once.
  public var linkListeners: [Descriptor] = []
  /// With a shared address: the sockets of packet queues, as many as `tunnelQueues`, and the pipe to the keeper of verdicts.
  public var captureSockets: [Descriptor] = []
  public var verdictPipe: Descriptor?
  /// One for each of the forwards, in their order.
  public var forwardListeners: [Descriptor] = []
  /// The socket to the DNS client.
  public var upstreamLink: Descriptor?

  public init() {}
}

extension ProxyDescriptors: Equatable where Descriptor: Equatable {}
extension ProxyDescriptors: Sendable where Descriptor: Sendable {}

/// What the proxy is told besides.
public struct ProxySettings: Equatable, Sendable {
  public var hostTarget: StreamTarget
  /// Opens the proxy's streams to the host.
  public var proxyToken: Token
  /// Opens the host's streams to the proxy.
  public var hostToken: Token
  /// Raw mode: what the TUN device was made with.
  public var tunnelAddresses: [IPPrefix] = []
  /// In bytes.
  public var tunnelMTU: UInt16 = 1500
  public var ingressPorts: [UInt16] = []
  /// What connections to these ports begin with towards the program.
  public var proxyProtocols: [UInt16: ProxyProtocol] = [:]
  public var forwards: [StaticForward] = []
  /// Where the program may go.
  public var egress = EgressRules()
  public var sni = SNISettings()
  public var names = NameSettings()
  /// How long open connections have to end when the enclave stops.
  public var drain: Duration = .zero
  /// What is reached until the very end: the servers of volumes.
  public var kept: [DestinationRule] = []
  public var connections = ConnectionLimits(connect: ConnectionLimits.enclaveConnect)
  public var verbose = false
  /// Whether the log gets each new destination that the program uses.
  public var reportsUse = false

  public init(hostTarget: StreamTarget, proxyToken: Token, hostToken: Token) {
    self.hostTarget = hostTarget
    self.proxyToken = proxyToken
    self.hostToken = hostToken
  }
}

/// What PID 1 hands to the proxy: the document of docs/architecture.md, "Roles", and the descriptors that it names.
public struct ProxyHandOver {
  /// The document's descriptor, behind the three that every process has; the named ones follow it.
  public static let documentDescriptor: Int32 = 3

  public var settings: ProxySettings
  public var descriptors = ProxyDescriptors<FileReference>()

  public init(_ settings: ProxySettings) { self.settings = settings }

  /// The document, and the files in the order of their numbers.
  public func encoded() -> (document: [UInt8], files: [FileReference]) {
    var writer = RoleWriter()
    var files: [FileReference] = []
    func numbers(_ given: [FileReference]) -> [UInt32] {
      given.map { file in
        files.append(file)
        return UInt32(Self.documentDescriptor) + UInt32(truncatingIfNeeded: files.count)
      }
    }
    writer.put("egress", numbers: numbers(descriptors.egressListeners))
    writer.put("dns-udp", numbers: numbers(descriptors.dnsSockets))
    writer.put("dns-tcp", numbers: numbers(descriptors.dnsListeners))
    writer.put("transport", numbers: numbers(descriptors.transportListener.map { [$0] } ?? []))
    writer.put("ready", numbers: numbers(descriptors.readiness.map { [$0] } ?? []))
    writer.put("tun", numbers: numbers(descriptors.tunnelQueues))
    writer.put("link", numbers: numbers(descriptors.packetLink.map { [$0] } ?? []))
    writer.put("link-tcp", numbers: numbers(descriptors.linkListeners))
    writer.put("capture", numbers: numbers(descriptors.captureSockets))
    writer.put("verdicts", numbers: numbers(descriptors.verdictPipe.map { [$0] } ?? []))
    writer.put("upstreams", numbers: numbers(descriptors.upstreamLink.map { [$0] } ?? []))
    writer.put("forward-listeners", numbers: numbers(descriptors.forwardListeners))
    switch settings.hostTarget.address {
    case .unix(let path): writer.put("host-unix", text: path)
    case .vsock(let cid, let port): writer.put("host-vsock", numbers: [cid, port])
    // Nothing makes one: a transport is a Unix socket or vsock.
    case .ip: break
    }
    writer.put("proxy-token", settings.proxyToken.bytes)
    writer.put("host-token", settings.hostToken.bytes)
    writer.put(
      "addresses",
      settings.tunnelAddresses.reduce(into: []) { $0 += [UInt8($1.address.bytes.count), $1.length] + $1.address.bytes })
    writer.put("mtu", numbers: [UInt32(settings.tunnelMTU)])
    writer.put("ingress-ports", numbers: settings.ingressPorts.map { UInt32($0) })
    writer.put(
      "proxy-protocols",
      numbers: settings.ingressPorts.flatMap { port in
        settings.proxyProtocols[port].map { [UInt32(port) << 8 | UInt32($0.rawValue)] } ?? []
      })
    writer.put("forwards", settings.forwards.reduce(into: []) { $0 += $1.encoded })
    writer.put("open", flag: settings.egress.isOpen)
    writer.put("allow", text: Self.text(settings.egress.allow))
    writer.put("deny", text: Self.text(settings.egress.deny))
    writer.put("sni", text: settings.sni.check.rawValue)
    writer.put("sni-ports", numbers: settings.sni.ports.map { UInt32($0) })
    writer.put("quic", flag: settings.sni.checksQUIC)
    writer.put("dns-cache", numbers: [UInt32(clamping: settings.names.cache)])
    writer.put("dns-hold", numbers: [settings.names.hold])
    writer.put("dns-denied", text: settings.names.denied.rawValue)
    writer.put("dns-upstream", text: UpstreamServer.text(settings.names.upstreams))
    writer.put(
      "dns-hosts",
      settings.names.hosts.reduce(into: []) { bytes, host in
        bytes += [UInt8(truncatingIfNeeded: host.name.labels.count)] + host.name.labels
        bytes.append(UInt8(truncatingIfNeeded: host.addresses.count))
        for address in host.addresses { bytes += [UInt8(truncatingIfNeeded: address.bytes.count)] + address.bytes }
      })
    writer.put("drain", numbers: [UInt32(clamping: settings.drain.nanoseconds / 1_000_000)])
    writer.put("kept", text: Self.text(RuleTable(settings.kept)))
    let limits = settings.connections
    writer.put("max-outgoing", numbers: limits.outgoing.map { [UInt32(clamping: $0)] } ?? [])
    writer.put("max-incoming", numbers: limits.incoming.map { [UInt32(clamping: $0)] } ?? [])
    writer.put("idle-timeout", numbers: Self.milliseconds(limits.idle))
    writer.put("half-closed-timeout", numbers: Self.milliseconds(limits.halfClosed))
    writer.put("connect-timeout", numbers: Self.milliseconds(limits.connect))
    writer.put("hello-timeout", numbers: Self.milliseconds(limits.hello))
    writer.put("verbose", flag: settings.verbose)
    writer.put("reports-use", flag: settings.reportsUse)
    return (writer.bytes, files)
  }

  /// Of which the first number counts 2³².
  private static func milliseconds(_ time: Duration?) -> [UInt32] {
    guard let time else { return [] }
    let (seconds, attoseconds) = time.components
    let all = UInt64(clamping: seconds &* 1000 &+ attoseconds / 1_000_000_000_000_000)
    return [UInt32(truncatingIfNeeded: all >> 32), UInt32(truncatingIfNeeded: all)]
  }

  /// Not joined(separator:), whose first use looks through every conformance of the program.
  private static func text(_ table: RuleTable) -> String {
    table.rules.reduce(into: "") { $0 += ($0.isEmpty ? "" : ",") + $1.description }
  }
}

/// The same as the proxy reads it.
public struct ProxyPlan: Equatable, Sendable {
  public var settings: ProxySettings
  public var descriptors: ProxyDescriptors<Int32>

  private static let queueLimit = 256
  private static let portLimit = 65535
  /// Bytes of rules: hundreds of thousands of them.
  private static let ruleLimit = 1 << 24

  /// - Throws: a sentence that names the field.
  public init(document: [UInt8]) throws(RoleError) {
    var reader = try RoleReader(document, role: "proxy")
    func files(_ name: String, _ limit: Int) throws(RoleError) -> [Int32] {
      try reader.numbers(name, count: 0...limit).map { number throws(RoleError) in
        guard let file = Int32(exactly: number), file > ProxyHandOver.documentDescriptor else {
          throw RoleError("proxy", "\"\(name)\" names descriptor \(number), expected one above 3")
        }
        return file
      }
    }
    var descriptors = ProxyDescriptors<Int32>()
    descriptors.egressListeners = try files("egress", 2)
    descriptors.dnsSockets = try files("dns-udp", 3)
    descriptors.dnsListeners = try files("dns-tcp", 3)
    descriptors.transportListener = try files("transport", 1).first
    descriptors.readiness = try files("ready", 1).first
    descriptors.tunnelQueues = try files("tun", Self.queueLimit)
    descriptors.packetLink = try files("link", 1).first
    descriptors.linkListeners = try files("link-tcp", 2)
    descriptors.captureSockets = try files("capture", Self.queueLimit)
    descriptors.verdictPipe = try files("verdicts", 1).first
    descriptors.upstreamLink = try files("upstreams", 1).first
    descriptors.forwardListeners = try files("forward-listeners", Self.portLimit)
    self.descriptors = descriptors
    let target: StreamTarget
    if reader.has("host-vsock") {
      let numbers = try reader.numbers("host-vsock", count: 2...2)
      target = StreamTarget(.vsock(cid: numbers[0], port: numbers[1]))
    } else {
      target = StreamTarget(.unix(try reader.text("host-unix", limit: 107)))
    }
    func token(_ name: String) throws(RoleError) -> Token {
      guard let token = Token(try reader.take(name)) else {
        throw RoleError("proxy", "\"\(name)\" has another length than \(Token.length) bytes")
      }
      return token
    }
    var settings = ProxySettings(
      hostTarget: target, proxyToken: try token("proxy-token"), hostToken: try token("host-token"))
    settings.tunnelAddresses = try Self.prefixes(try reader.take("addresses"))
    settings.tunnelMTU = UInt16(truncatingIfNeeded: try reader.number("mtu", in: 1280...65535))
    settings.ingressPorts = try reader.numbers("ingress-ports", count: 0...Self.portLimit).map {
      number throws(RoleError) in
      guard let port = UInt16(exactly: number), port > 0 else {
        throw RoleError("proxy", "\"ingress-ports\" has \(number), expected 1 to 65535")
      }
      return port
    }
    for number in try reader.numbers("proxy-protocols", count: 0...Self.portLimit) {
      guard let port = UInt16(exactly: number >> 8), let version = ProxyProtocol(rawValue: UInt8(number & 0xff)),
        settings.ingressPorts.contains(port)
      else {
        throw RoleError("proxy", "\"proxy-protocols\" has \(number), expected a port of ingress-ports and a version")
      }
      settings.proxyProtocols[port] = version
    }
    guard let forwards = StaticForward.decode(try reader.take("forwards")),
      forwards.count == descriptors.forwardListeners.count
    else { throw RoleError("proxy", "\"forwards\" has something else than one forward for each of its listeners") }
    settings.forwards = forwards
    settings.egress = EgressRules(
      isOpen: try reader.flag("open"), allow: try Self.rules("allow", try reader.text("allow", limit: Self.ruleLimit)),
      deny: try Self.rules("deny", try reader.text("deny", limit: Self.ruleLimit)))
    settings.sni = try Self.sni(&reader)
    settings.names = try Self.names(&reader)
    settings.drain = .milliseconds(Int(try reader.number("drain", in: 0...UInt32.max)))
    settings.kept = try Self.rules("kept", try reader.text("kept", limit: Self.ruleLimit))
    try Self.read(&settings.connections, &reader)
    settings.verbose = try reader.flag("verbose")
    settings.reportsUse = try reader.flag("reports-use")
    try reader.finish()
    self.settings = settings
  }

  private static func read(_ limits: inout ConnectionLimits, _ reader: inout RoleReader) throws(RoleError) {
    func most(_ name: String) throws(RoleError) -> Int? {
      guard let number = try reader.numbers(name, count: 0...1).first else { return nil }
      guard ConnectionLimits.range.contains(Int(number)) else {
        throw RoleError("proxy", "\"\(name)\" is \(number), expected 1 to 1000000")
      }
      return Int(number)
    }
    func time(_ name: String) throws(RoleError) -> Duration? {
      let numbers = try reader.numbers(name, count: 0...2)
      guard let high = numbers.first, let low = numbers.last else { return nil }
      let time = Duration.milliseconds(Int64(truncatingIfNeeded: UInt64(high & 0xffff) << 32 | UInt64(low)))
      guard numbers.count == 2, ConnectionLimits.isTime(time) else {
        throw RoleError("proxy", "\"\(name)\" is not \(ConnectionLimits.timeForm)")
      }
      return time
    }
    func needed(_ name: String) throws(RoleError) -> Duration {
      guard let time = try time(name) else { throw RoleError("proxy", "\"\(name)\" has no time") }
      return time
    }
    limits.outgoing = try most("max-outgoing")
    limits.incoming = try most("max-incoming")
    limits.idle = try time("idle-timeout")
    limits.halfClosed = try time("half-closed-timeout")
    limits.connect = try needed("connect-timeout")
    limits.hello = try needed("hello-timeout")
  }

  private static func sni(_ reader: inout RoleReader) throws(RoleError) -> SNISettings {
    var sni = SNISettings()
    guard let check = SNISettings.Check(rawValue: try reader.text("sni")) else {
      throw RoleError("proxy", "\"sni\" is neither off nor check nor require")
    }
    sni.check = check
    sni.checksQUIC = try reader.flag("quic")
    sni.ports = try reader.numbers("sni-ports", count: 0...portLimit).map { number throws(RoleError) in
      guard let port = UInt16(exactly: number), port > 0 else {
        throw RoleError("proxy", "\"sni-ports\" has \(number), expected 1 to 65535")
      }
      return port
    }
    return sni
  }

  private static func names(_ reader: inout RoleReader) throws(RoleError) -> NameSettings {
    var names = NameSettings()
    names.cache = Int(try reader.number("dns-cache", in: 0...UInt32(NameSettings.cacheLimit)))
    names.hold = try reader.number("dns-hold", in: 0...NameSettings.holdLimit)
    guard let denied = NameSettings.Denied(rawValue: try reader.text("dns-denied")) else {
      throw RoleError("proxy", "\"dns-denied\" is neither refused nor nxdomain")
    }
    names.denied = denied
    names.upstreams = try reader.servers("dns-upstream")
    var rest = try reader.take("dns-hosts")
    func take(_ count: Int) throws(RoleError) -> ArraySlice<UInt8> {
      guard rest.count >= count else { throw RoleError("proxy", "\"dns-hosts\" ends too early") }
      defer { rest = rest.dropFirst(count) }
      return rest.prefix(count)
    }
    while let count = rest.popFirst() {
      guard let name = DomainName(labels: Array(try take(Int(count)))) else {
        throw RoleError("proxy", "\"dns-hosts\" has something that is no name")
      }
      var host = FixedHost(name, [])
      for _ in 0..<(try take(1).first ?? 0) {
        guard let address = IPAddress(bytes: try take(Int(try take(1).first ?? 0))) else {
          throw RoleError("proxy", "\"dns-hosts\" has something that is no address")
        }
        host.addresses.append(address)
      }
      names.hosts.append(host)
    }
    return names
  }

  private static func rules(_ field: String, _ text: String) throws(RoleError) -> [DestinationRule] {
    var rules: [DestinationRule] = []
    for part in text.utf8.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: text.isEmpty) {
      do throws(DestinationRuleError) {
        rules.append(try DestinationRule(String(decoding: part, as: UTF8.self)))
      } catch {
        throw RoleError("proxy", "\"\(field)\" has something that is no rule: \(error)")
      }
    }
    return rules
  }

  private static func prefixes(_ bytes: ArraySlice<UInt8>) throws(RoleError) -> [IPPrefix] {
    var rest = bytes
    var prefixes: [IPPrefix] = []
    while let count = rest.popFirst() {
      guard let length = rest.popFirst(), rest.count >= Int(count),
        let address = IPAddress(bytes: rest.prefix(Int(count))),
        let prefix = IPPrefix(address, length)
      else { throw RoleError("proxy", "\"addresses\" has something that is not an address with its prefix") }
      prefixes.append(prefix)
      rest = rest.dropFirst(Int(count))
    }
    return prefixes
  }
}
