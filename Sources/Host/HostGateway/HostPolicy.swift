import EventLoop
import HostNetwork
import Inet
import Policy

/// What enclaves may reach, as this machine sees it. The machine's own addresses are kept in it by ourselves.
final class HostPolicy {
  private var policy: Policy { didSet { tunnel?.change(policy.destinations) } }
  private let machine: MachineAddresses
  /// Asks the same of packets.
  private let tunnel: (any RawGateway)?

  init(
    _ destinations: Destinations, loop: EventLoop, tunnel: (any RawGateway)?, log: @escaping (String) -> Void
  ) throws {
    machine = try MachineAddresses(loop: loop, log: log)
    self.tunnel = tunnel
    policy = Policy(destinations: destinations)
    policy.destinations.own = machine.current
    tunnel?.change(policy.destinations)
    machine.onChange = { [unowned self] in policy.destinations.own = machine.current }
  }

  /// A connection of the program to the outside.
  func egress(to destination: IPEndpoint) -> Policy.Decision {
    machine.refresh()
    return policy.egress(to: destination)
  }
}
