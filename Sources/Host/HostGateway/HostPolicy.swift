import DNS
import EventLoop
import HostNetwork
import Inet
import LinuxSystem
import NameService
import Policy

/// What enclaves may reach, as this machine sees it. The machine's own addresses are kept in it by ourselves.
final class HostPolicy {
  private var policy: Policy { didSet { rawGateway?.change(policy.destinations) } }
  private let machine: MachineAddresses
  /// Judges names; nil where the rules have nothing to say of them, and queries and answers pass as they are.
  private var names: NameService?
  /// Asks the same of packets.
  private let rawGateway: (any RawGateway)?

  init(
    _ destinations: Destinations, _ settings: NameSettings, loop: EventLoop,
    rawGateway: (any RawGateway)?, log: @escaping (String) -> Void
  ) throws {
    machine = try MachineAddresses(loop: loop, log: log)
    self.rawGateway = rawGateway
    policy = Policy(destinations: destinations)
    if !destinations.rules.isPlain {
      names = NameService(destinations, settings, removesHiding: false)
    }
    policy.destinations.own = machine.current
    rawGateway?.change(policy.destinations)
    machine.onChange = { [unowned self] in policy.destinations.own = machine.current }
  }

  /// A connection of the program to the outside.
  func egress(to destination: IPEndpoint) -> Policy.Decision {
    machine.refresh()
    return policy.egress(
      to: destination, names: names?.names(of: destination.address, now: now) ?? [])
  }

  /// In seconds.
  private var now: UInt64 { monotonicNanoseconds() / 1_000_000_000 }

  /// A query of the program.
  func judge(_ query: DNSMessage) -> NameService.Outcome {
    names?.judge(query, now: now) ?? .ask(query)
  }

  /// What a name server has answered to it.
  func review(_ response: DNSMessage, to query: DNSMessage) -> (
    response: DNSMessage, sentence: String?
  ) {
    names?.review(response, to: query, now: now) ?? (response, nil)
  }
}
