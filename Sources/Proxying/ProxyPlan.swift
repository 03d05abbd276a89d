import Inet
import LinuxSystem
import Relaying

/// What PID 1 tells the proxy on its command line: which descriptors it was handed, and where the host is.
public struct ProxyPlan: Equatable, Sendable {
  /// Listening sockets that redirected TCP arrives at.
  public var egressListeners: [Int32] = []
  public var dnsSockets: [Int32] = []
  public var dnsListeners: [Int32] = []
  /// The enclave's one port: streams from the host arrive there.
  public var transportListener: Int32?
  /// The writing end that gets one byte when the proxy is ready.
  public var readiness: Int32?
  public var hostTarget: StreamTarget
  /// Raw mode: the queues of the TUN device, and what it was made with.
  public var tunnelQueues: [Int32] = []
  public var tunnelAddresses: [IPPrefix] = []
  /// In bytes.
  public var tunnelMTU: UInt16 = 1500
  /// With a shared address: the sockets of packet queues, as many as `tunnelQueues`, and the pipe to the keeper of verdicts.
  public var captureSockets: [Int32] = []
  public var verdictPipe: Int32?
  public var ingressPorts: [UInt16] = []
  public var verbose = false

  public init(hostTarget: StreamTarget) { self.hostTarget = hostTarget }

  /// `key=value` words, as `tombolo-init proxy` takes them.
  public var arguments: [String] {
    func list(_ numbers: [some CustomStringConvertible]) -> String {
      // Not joined(separator:), whose first use looks through every conformance of the program.
      numbers.reduce(into: "") { text, number in text += text.isEmpty ? number.description : "," + number.description }
    }
    var words = [
      "egress=\(list(egressListeners))", "dns-udp=\(list(dnsSockets))", "dns-tcp=\(list(dnsListeners))",
      "ingress-ports=\(list(ingressPorts))",
    ]
    if let transportListener { words.append("transport=\(transportListener)") }
    if let readiness { words.append("ready=\(readiness)") }
    if verbose { words.append("verbose=1") }
    if !tunnelQueues.isEmpty {
      words += ["tun=\(list(tunnelQueues))", "addresses=\(list(tunnelAddresses))", "mtu=\(tunnelMTU)"]
    }
    if let verdictPipe { words += ["capture=\(list(captureSockets))", "verdicts=\(verdictPipe)"] }
    switch hostTarget.address {
    case .unix(let path): words.append("host=unix:\(path)")
    case .vsock(let cid, let port): words.append("host=vsock:\(cid):\(port)")
    case .ip(let endpoint): words.append("host=ip:\(endpoint)")
    }
    return words
  }

  /// - Throws: a sentence naming the word that is not understood.
  public init(arguments: [String]) throws(ProxyPlanError) {
    var target: StreamTarget?
    var plan = ProxyPlan(hostTarget: StreamTarget(.unix("")))
    for word in arguments {
      // By bytes: what is ASCII needs no look for grapheme clusters.
      guard let equals = word.utf8.firstIndex(of: UInt8(ascii: "=")) else { throw ProxyPlanError(word: word) }
      let value = word[word.utf8.index(after: equals)...]
      let numbers = Self.parts(value, UInt8(ascii: ",")).compactMap { Int32($0) }
      switch word[..<equals] {
      case "egress": plan.egressListeners = numbers
      case "dns-udp": plan.dnsSockets = numbers
      case "dns-tcp": plan.dnsListeners = numbers
      case "ingress-ports": plan.ingressPorts = numbers.compactMap { UInt16(exactly: $0) }
      case "transport": plan.transportListener = numbers.first
      case "ready": plan.readiness = numbers.first
      case "verbose": plan.verbose = true
      case "tun": plan.tunnelQueues = numbers
      case "addresses": plan.tunnelAddresses = Self.parts(value, UInt8(ascii: ",")).compactMap { IPPrefix($0) }
      case "capture": plan.captureSockets = numbers
      case "verdicts": plan.verdictPipe = numbers.first
      case "mtu": plan.tunnelMTU = UInt16(value) ?? plan.tunnelMTU
      case "host": target = Self.target(value)
      default: throw ProxyPlanError(word: word)
      }
    }
    guard let target else { throw ProxyPlanError(word: "host=") }
    plan.hostTarget = target
    self = plan
  }

  private static func parts(_ text: Substring, _ separator: UInt8) -> [Substring] {
    text.utf8.split(separator: separator).map { Substring($0) }
  }

  private static func target(_ text: Substring) -> StreamTarget? {
    if text.hasPrefix("unix:") { return StreamTarget(.unix(String(text.dropFirst(5)))) }
    let parts = parts(text, UInt8(ascii: ":"))
    if parts.count == 3, parts[0] == "vsock", let cid = UInt32(parts[1]), let port = UInt32(parts[2]) {
      return StreamTarget(.vsock(cid: cid, port: port))
    }
    return nil
  }
}

public struct ProxyPlanError: Error, CustomStringConvertible {
  public var word: String
  public var description: String { "proxy: the argument \"\(word)\" is missing or not understood" }
}
