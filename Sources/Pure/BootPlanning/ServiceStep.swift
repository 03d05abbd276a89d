import EnclaveConfig
import Policy

/// A process that PID 1 starts.
public enum PlannedService: Sendable, CustomStringConvertible {
  /// The proxy's keeper of verdicts.
  case keeper
  /// What asks the servers of `dns.upstream`.
  case dnsClient([UpstreamServer])
  case attestation(AttestationSettings)
  case proxy(ProxyWork)
  indirect case mount(PlannedMount)
  indirect case program(ProgramStart)

  /// A `[[mount]]` that needs the network.
  public struct PlannedMount: Sendable {
    public var settings: MountSettings
    /// Targets of other services of this kind that must be mounted before.
    public var after: [String]
  }

  /// What the proxy does; for the plan's text, the hand-over has it all.
  public enum ProxyWork: Sendable {
    case streams(ingressPorts: [UInt16])
    case tunnel
    case packetQueues
    /// No network, only what `[[forward]]` names.
    case forwards
  }

  public struct ProgramStart: Sendable {
    public var command: [String]
    public var user: String?
    /// As configured.
    public var directory: String?
    /// Else this, if it is a directory in the enclave; else "/".
    public var defaultDirectory: String?
  }

  public var description: String {
    switch self {
    case .keeper: return "start the proxy's keeper of verdicts"
    case .dnsClient(let servers): return "start the DNS client: \(UpstreamServer.text(servers))"
    case .attestation(let settings):
      return "start the attestation service: what the host gave is in PCR\(settings.runtimeRegister), which is locked"
    case .proxy(.streams(let ports)):
      let list = ports.map(String.init).joined(separator: ", ")
      return "start the proxy: egress on port \(EnclaveLayout.egressPort), DNS on port \(EnclaveLayout.dnsPort)\n"
        + "let the host reach \(list.isEmpty ? "no port" : "port \(list)")"
    case .proxy(.tunnel): return "start the proxy: the queues of \(TunnelPlan.link), a stream to the host for each"
    case .proxy(.packetQueues): return "start the proxy: packet queues, a stream to the host for each"
    case .mount(let mount):
      let settings = mount.settings
      var text = "in a process of its own: \(BootStep.mount(settings))"
      for target in mount.after { text += ", after \(target)" }
      if let timeout = settings.timeout { text += ", for \(timeout)" }
      return text + (settings.isRequired ? "; the program waits for it" : "; the program does not wait for it")
    case .proxy(.forwards): return "start the proxy: forwards alone"
    case .program(let start):
      let place =
        start.directory ?? start.defaultDirectory.map { $0 == "/" ? "/" : "\($0), or / where that is no directory" }
        ?? "/"
      let words = start.command.isEmpty ? "what /cmd says" : start.command.joined(separator: " ")
      return "cd \(place)\nstart as \(start.user ?? "root"): \(words)"
    }
  }
}

/// The end of a start: what runs from then on.
public enum ServiceStep: Sendable, CustomStringConvertible {
  /// What PID 1 and the others write is kept for the host, up to that many bytes.
  case forwardLog(bytes: Int)
  case start(PlannedService)
  case awaitProxy

  static func all(_ facts: StartFacts) -> [ServiceStep] {
    let configuration = facts.configuration
    var list: [ServiceStep] = [.forwardLog(bytes: configuration.logs.buffer)]
    // First: what it measures is locked before the network and the program start.
    if configuration.needsAttestation { list.append(.start(.attestation(configuration.attestation))) }
    if configuration.needsDNSClient { list.append(.start(.dnsClient(configuration.resolver.names.upstreams))) }
    switch (configuration.networkMode, configuration.raw.capture) {
    case (.none, _): if configuration.hasProxy { list += [.start(.proxy(.forwards)), .awaitProxy] }
    case (.tcp, _): list += [.start(.proxy(.streams(ingressPorts: configuration.ingressPorts))), .awaitProxy]
    case (.raw, .tun): list += [.start(.proxy(.tunnel)), .awaitProxy]
    case (.raw, .nfqueue): list += [.start(.keeper), .start(.proxy(.packetQueues)), .awaitProxy]
    }
    let volumes = configuration.mounts.volumes
    for (index, mount) in volumes.enumerated() {
      let after = volumes.dependencies(of: index).map { volumes[$0].target }
      list.append(.start(.mount(.init(settings: mount, after: after))))
    }
    let program = configuration.program
    list.append(
      .start(
        .program(
          .init(
            command: program.command, user: program.user, directory: program.workingDirectory,
            defaultDirectory: facts.defaultDirectory))))
    return list
  }

  public var description: String {
    switch self {
    case .forwardLog(let bytes): "keep up to \(bytes) bytes of the log for the host"
    case .start(let service): service.description
    case .awaitProxy: "wait until the proxy is ready"
    }
  }
}
