import Allowlist
import ArgumentParser
import BootPlanning
import EnclaveConfig
import HostGateway
import Inet
import LinuxSystem
import Policy

/// What every host side can be told about the network, in `run`, `host` and `boot` alike.
struct GatewayOptions: ParsableArguments {
  @Option(
    name: .customShort("p"),
    help: ArgumentHelp(
      "Publish a port of the program on this machine, or a range of ports; clients are refused while nothing listens on it inside.",
      valueName: "[addr:]hostport:enclaveport[/tcp|/udp]"))
  var publish: [String] = []
  @Flag(
    help:
      "Clients of published ports come through a load balancer: each connection begins with a PROXY header (version 1 or 2) that says who the client is; one without it is reset."
  )
  var acceptProxyProtocol = false
  @Option(
    help: ArgumentHelp(
      "Carry plain streams from this vsock port to one destination, as AWS's vsock-proxy does; may be repeated.",
      valueName: "vsockport:host:port"))
  var forward: [String] = []
  @Option(
    help: ArgumentHelp(
      "Listen here (default: 127.0.0.1), and carry each connection as a plain stream to the enclave's vsock port; may be repeated.",
      valueName: "[addr:]port:vsockport"))
  var forwardIn: [String] = []
  @Option(
    help: ArgumentHelp(
      "The allowlist of AWS's vsock-proxy (YAML): every --forward must be in it.", valueName: "file"))
  var forwardAllowlist: String?
  @Option(
    help: ArgumentHelp(
      "Ports of this machine, TCP and UDP, that the enclave may reach at its addresses, but for the loopback; otherwise none. In raw mode with a TUN device only.",
      valueName: "ports"))
  var allowHostPorts: String?
  @Option(help: "The name server to ask (default: this machine's /etc/resolv.conf).")
  var dns: String?
  @Option(
    help: ArgumentHelp(
      "Connections that one enclave may have at a time, out and in each (default: \(HostLimits.connectionsByDefault)); fewer where this process may not open that many files (ulimit -Hn).",
      valueName: "number"))
  var maxConnections: Int?
  @Option(help: ArgumentHelp("The same for connections out alone.", valueName: "number"))
  var maxConnectionsOut: Int?
  @Option(help: ArgumentHelp("The same for connections in alone, to published ports.", valueName: "number"))
  var maxConnectionsIn: Int?
  @Option(
    help: ArgumentHelp(
      "Reset connections on which no byte has moved for so long, such as 1h (default: forever).", valueName: "time"))
  var idleTimeout: String?
  @Option(
    help: ArgumentHelp(
      "The same for connections of which one direction has ended (default: forever).", valueName: "time"))
  var halfClosedTimeout: String?
  @Option(
    help: ArgumentHelp("How long a connection out may take until it is there (default: 130s).", valueName: "time"))
  var connectTimeout: String?
  @Option(
    help: ArgumentHelp(
      "How long a stream of the enclave's may be open before it says what it is (default: 10s).", valueName: "time"))
  var helloTimeout: String?
  @Option(help: ArgumentHelp("How long a flow of UDP is kept that nobody uses (default: 5m).", valueName: "time"))
  var udpTimeout: String?
  @Option(
    help: ArgumentHelp(
      "Let the enclave reach what is denied otherwise: link-local and reserved addresses, clouds' metadata, this machine's own. An address or a prefix, with or without :port or :port-port; may be repeated.",
      valueName: "addr[/bits][:port]"))
  var allowDestination: [String] = []
  @Option(
    help: ArgumentHelp(
      "This machine's own rules for the enclave: a TOML file with [egress] default, allow and deny, and [dns] hold and denied. Both sides must allow.",
      valueName: "file"))
  var policy: String?

  @OptionGroup
  var runtime: RuntimeOptions

  /// - Throws: a sentence with what was found and what was expected.
  func published() throws -> [PublishedPort] {
    try publish.flatMap { text in
      guard let ports = PublishedPort.all(text) else {
        throw Misuse(
          "-p: found \"\(text)\", expected [ADDR:]HOSTPORT:ENCLAVEPORT such as 127.0.0.1:8080:80, or with /udp, or two ranges of the same length, of at most \(PublishedPort.rangeLimit) ports"
        )
      }
      return ports
    }
  }

  /// - Throws: a sentence with what was found and what was expected.
  func forwards() throws -> [HostForward] {
    var made: [HostForward] = []
    for text in forward {
      guard let forward = HostForward(out: text) else {
        throw Misuse(
          "--forward: found \"\(text)\", expected VSOCKPORT:HOST:PORT such as 8000:kms.eu-west-1.amazonaws.com:443, with an IPv6 address in brackets"
        )
      }
      guard !made.contains(where: { $0.vsockPort == forward.vsockPort }) else {
        throw Misuse("--forward: found vsock port \(forward.vsockPort) twice")
      }
      guard forward.vsockPort != EnclaveLayout.port else {
        throw Misuse("--forward: found vsock port \(forward.vsockPort), which is Tombolo's own")
      }
      made.append(forward)
    }
    for text in forwardIn {
      guard let forward = HostForward(incoming: text) else {
        throw Misuse("--forward-in: found \"\(text)\", expected [ADDR:]PORT:VSOCKPORT such as 127.0.0.1:5432:5000")
      }
      guard forward.vsockPort != EnclaveLayout.port else {
        throw Misuse("--forward-in: found vsock port \(forward.vsockPort), which is Tombolo's own")
      }
      made.append(forward)
    }
    guard let forwardAllowlist else { return made }
    let allowlist: Allowlist
    let text = try Configuration.text(readFile(forwardAllowlist), file: forwardAllowlist, kind: "YAML")
    do throws(Allowlist.Mistake) {
      allowlist = try Allowlist(yaml: text)
    } catch {
      throw Misuse("\(forwardAllowlist):\(error)")
    }
    for case let (forward, .out(host, port)) in made.map({ ($0, $0.way) })
    where !allowlist.allows(.init(host, port)) {
      throw Misuse("\(forward): \(forwardAllowlist) does not have \(host.bracketed) with port \(port)")
    }
    return made
  }

  /// Refuses what only raw mode can do.
  func check(raw: Bool) throws {
    guard !acceptProxyProtocol || !publish.isEmpty else {
      throw Misuse("--accept-proxy-protocol: expected -p with it")
    }
    guard !raw || !acceptProxyProtocol else {
      throw Misuse("--accept-proxy-protocol: in raw mode the program itself has the connection, and reads its header")
    }
  }

  /// With a shared address the host's ports are at the enclave's own address.
  func refuseHostPorts() throws {
    guard allowHostPorts == nil else {
      throw Misuse("--allow-host-ports: with nfqueue the enclave has this machine's address itself, and no way to it")
    }
  }

  /// Ports of this machine that are open to the enclave.
  func hostPorts() throws -> PortRanges {
    guard let allowHostPorts else { return PortRanges([]) }
    return PortRanges(
      try allowHostPorts.split(separator: ",", omittingEmptySubsequences: false).map { text in
        guard let range = PortRanges.range(text) else {
          throw Misuse("--allow-host-ports: found \"\(allowHostPorts)\", expected ports such as 5432,8000-8009")
        }
        return range
      })
  }

  func nameServer() throws -> IPAddress? {
    try dns.map { text in
      guard let address = IPAddress(text) else { throw Misuse("--dns: found \"\(text)\", expected an IP address") }
      return address
    }
  }

  /// What every host side is told.
  func settings() throws -> HostSettings {
    var settings = HostSettings()
    settings.published = try published()
    settings.given = try runtime.parameters()
    settings.forwards = try forwards()
    settings.acceptsProxyProtocol = acceptProxyProtocol
    settings.nameServer = try nameServer()
    settings.destinations = try destinations()
    if let policy {
      let file = try HostPolicyFile(toml: Configuration.text(readFile(policy), file: policy), file: policy)
      let rules = file.egress.rules
      settings.destinations.rules = EgressRules(
        isOpen: rules.isOpen, allow: rules.allow.rules + settings.destinations.allowed, deny: rules.deny.rules)
      settings.names = file.names
      settings.checksQUIC = file.egress.sni.checksQUIC
    }
    settings.connections = try limits()
    return settings
  }

  private func limits() throws -> ConnectionLimits {
    func most(_ option: String, _ given: Int?) throws -> Int? {
      guard let given else { return nil }
      let range = ConnectionLimits.range
      guard range.contains(given) else {
        throw Misuse("\(option): found \(given), expected \(range.lowerBound) to \(range.upperBound)")
      }
      return given
    }
    func time<T>(_ option: String, _ given: String?, _ form: String, _ parse: (String) -> T?) throws -> T? {
      guard let given else { return nil }
      guard let time = parse(given) else { throw Misuse("\(option): found \"\(given)\", expected \(form)") }
      return time
    }
    let (limit, single) = (ConnectionLimits.limitForm, ConnectionLimits.timeForm)
    let all = try most("--max-connections", maxConnections)
    var limits = ConnectionLimits(
      connect: try time("--connect-timeout", connectTimeout, single, connectionTime) ?? ConnectionLimits.hostConnect)
    limits.outgoing = try most("--max-connections-out", maxConnectionsOut) ?? all
    limits.incoming = try most("--max-connections-in", maxConnectionsIn) ?? all
    limits.idle = try time("--idle-timeout", idleTimeout, limit, connectionLimit) ?? nil
    limits.halfClosed = try time("--half-closed-timeout", halfClosedTimeout, limit, connectionLimit) ?? nil
    limits.hello = try time("--hello-timeout", helloTimeout, single, connectionTime) ?? limits.hello
    limits.datagrams = try time("--udp-timeout", udpTimeout, single, connectionTime) ?? limits.datagrams
    return limits
  }

  /// What the enclave may reach, as this machine sees it.
  func destinations() throws -> Destinations {
    var destinations = Destinations()
    for text in allowDestination {
      do throws(DestinationRuleError) {
        let rule = try DestinationRule(text)
        switch rule.target {
        case .prefix, .set: destinations.allowed.append(rule)
        case .name, .below:
          throw DestinationRuleError(reason: "expected an address or a prefix, or a set such as \"metadata\"")
        }
      } catch {
        throw Misuse("--allow-destination: found \"\(text)\", \(error)")
      }
    }
    destinations.ownPorts = try hostPorts()
    return destinations
  }
}
