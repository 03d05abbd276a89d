import DNS
import EventLoop
import HostNetwork
import Inet
import LinuxSystem
import NameService
import PacketRelaying
import Policy

/// What enclaves may reach, as this machine sees it. The machine's own addresses are kept in it by ourselves.
final class HostPolicy {
  private var policy: Policy { didSet { changePackets() } }
  private let machine: MachineAddresses
  /// Judges names; nil where the rules have nothing to say of them, and queries and answers pass as they are.
  private let names: Locked<NameService>?
  /// Asks the same of packets.
  private let rawGateway: (any RawGateway)?
  private let checksQUIC: Bool

  /// - Parameter checksQUIC: in raw mode datagrams to port 443 are looked at.
  init(
    _ destinations: Destinations, _ settings: NameSettings, checksQUIC: Bool, loop: EventLoop,
    rawGateway: (any RawGateway)?, log: @escaping (String) -> Void
  ) throws {
    machine = try MachineAddresses(loop: loop, log: log)
    self.rawGateway = rawGateway
    self.checksQUIC = checksQUIC && rawGateway != nil
    policy = Policy(destinations: destinations)
    names =
      destinations.rules.isPlain && !self.checksQUIC
      ? nil : Locked(NameService(destinations, settings, removesHiding: self.checksQUIC))
    policy.destinations.own = machine.current
    changePackets()
    machine.onChange = { [unowned self] in policy.destinations.own = machine.current }
  }

  private func changePackets() {
    rawGateway?.change(policy.destinations, checksQUIC: checksQUIC) { [names] address in
      names?.with { $0.names(of: address, now: Self.now) } ?? []
    }
  }

  /// A connection of the program to the outside, or a flow of datagrams.
  func egress(to destination: IPEndpoint, _ transport: FlowTransport = .tcp) -> Policy.Decision {
    machine.refresh()
    return policy.egress(
      to: destination, transport, names: names?.with { $0.names(of: destination.address, now: Self.now) } ?? [])
  }

  /// A connection of a forward.
  /// - Parameter isNamed: whoever started this host side has named this very address: what is denied without a rule is lifted
  ///   for it. Their own rules hold.
  func egress(to destination: IPEndpoint, isNamed: Bool) -> Policy.Decision {
    let decision = egress(to: destination)
    guard isNamed, policy.destinations.rules.isOpen, case .deny = decision,
      let whole = IPPrefix(destination.address, UInt8(clamping: destination.address.bitCount))
    else { return decision }
    var lifted = policy
    lifted.destinations.allowed.append(DestinationRule(whole, ports: destination.port...destination.port))
    return lifted.egress(to: destination)
  }

  /// In seconds.
  private static var now: UInt64 { monotonicNanoseconds() / 1_000_000_000 }

  /// A query of the program.
  func judge(_ query: DNSMessage) -> NameService.Outcome {
    names?.with { $0.judge(query, now: Self.now) } ?? .ask(query)
  }

  /// What a name server has answered to it.
  func review(_ response: DNSMessage, to query: DNSMessage) -> (
    response: DNSMessage, sentence: String?
  ) {
    names?.with { $0.review(response, to: query, now: Self.now) } ?? (response, nil)
  }
}
