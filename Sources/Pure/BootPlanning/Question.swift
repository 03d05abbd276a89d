import EnclaveConfig
import Inet

/// What a start asks before it makes its plan. Nothing in the enclave is changed by that.
public enum Question: Sendable, CustomStringConvertible {
  case configuration
  /// The program and its variables, where AWS's ramdisk says them.
  case contract
  /// AWS's sign that the enclave has booted; nil: CID 3.
  case heartbeat(cid: UInt32?, within: Duration)
  /// Which CID the host has; nil: the candidates in turn.
  case host(cid: UInt32?, port: UInt32, within: Duration)
  case session(within: Duration)
  /// In these networks; nil: wherever the host's own address is.
  case addresses(ipv4: Bool, ipv6: Bool, networks: [IPPrefix]?, within: Duration)
  /// What the image lets the host give for the program.
  case runtime(arguments: Bool, variables: Bool, within: Duration)
  /// How many queues there are to be.
  case processors

  /// Nitro's parent, then everybody else's (VMADDR_CID_HOST).
  public static let candidates: [UInt32] = [3, 2]
  public static let heartbeatPort: UInt32 = 9000

  /// What says how the rest is asked.
  public static func first(_ kind: StartKind) -> [Question] {
    kind.isKernel ? [.configuration, .contract] : [.configuration]
  }

  /// What is asked as the configuration says.
  public static func rest(_ kind: StartKind, _ configuration: Configuration) -> [Question] {
    let boot = configuration.boot
    var list: [Question] = []
    let isVsock = !kind.isLocal && configuration.transport == .vsock
    let beats =
      switch kind {
      case .kernel: boot.heartbeat != .never
      case .child: boot.heartbeat == .always && isVsock
      case .local: false
      }
    if beats { list.append(.heartbeat(cid: configuration.parentCID, within: boot.heartbeatTimeout)) }
    if isVsock {
      list.append(.host(cid: configuration.parentCID, port: configuration.parentPort, within: boot.hostTimeout))
    }
    list.append(.session(within: boot.hostTimeout))
    let isRaw = configuration.networkMode == .raw
    if isRaw, configuration.raw.asksHost { list.append(addresses(configuration.raw, boot.hostTimeout)) }
    let (arguments, variables) = (configuration.takesArguments, configuration.takesVariables)
    if arguments || variables {
      list.append(.runtime(arguments: arguments, variables: variables, within: boot.hostTimeout))
    }
    if isRaw, configuration.raw.queues == nil { list.append(.processors) }
    return list
  }

  static func all(_ facts: StartFacts) -> [Question] { first(facts.kind) + rest(facts.kind, facts.configuration) }

  public var description: String {
    switch self {
    case .configuration: return "read the configuration"
    case .contract: return "read /cmd and /env, where they are there; what the configuration says wins"
    case .heartbeat(let cid, let time):
      return "send the heartbeat to vsock \(cid ?? 3):\(Self.heartbeatPort), for \(time)"
    case .host(let cid, let port, let time):
      let list = (cid.map { [$0] } ?? Self.candidates).map(String.init).joined(separator: ", then ")
      return "find the host at port \(port) of vsock CID \(list), for \(time)"
    case .session(let time): return "open the session with the host, for \(time)"
    case .addresses(let ipv4, let ipv6, let networks, _):
      return Self.asked(ipv4 ? "IPv4" : nil, ipv6 ? "IPv6" : nil, networks)
    case .runtime(let arguments, let variables, _):
      let kinds = (arguments ? ["arguments"] : []) + (variables ? ["variables"] : [])
      return "take the \(kinds.joined(separator: " and ")) that the host gives"
    case .processors: return "count the processors: a queue for each, at most 4"
    }
  }

  private static func addresses(_ raw: RawNetwork, _ time: Duration) -> Question {
    let isHostsOwn = raw.capture == .nfqueue && raw.allowed == RawNetwork.defaultAllowed
    return .addresses(
      ipv4: raw.asksForAddress, ipv6: raw.asksForAddress6 && !raw.lacksIPv6, networks: isHostsOwn ? nil : raw.allowed,
      within: time)
  }

  private static func asked(_ ipv4: String?, _ ipv6: String?, _ networks: [IPPrefix]?) -> String {
    [ipv4, ipv6].compactMap { $0 }.map { family in
      guard let networks else { return "ask the host for its \(family) address" }
      return "ask the host for an \(family) address within \(networks.map(\.description).joined(separator: ", "))"
    }.joined(separator: "\n")
  }
}
