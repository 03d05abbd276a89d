import Flows
import Inet
import PacketRelaying
import Policy

/// Where an enclave's packets may go, as this machine's owner says: of each packet by itself as long as only built-in rules
/// say it, of each flow where there are others.
struct PacketReach {
  typealias Names = @Sendable (IPAddress) -> [DomainName]

  private let published: [Publication]
  private var flows: SharedFlows?

  init(_ published: [Publication]) { self.published = published }

  /// - Parameters:
  ///   - checksQUIC: datagrams to port 443 are looked at.
  ///   - names: for which an address was the answer; called in any thread.
  mutating func value(
    _ wanted: Destinations, checksQUIC: Bool, _ names: @escaping Names
  ) -> LockedDestinations.Value {
    var sni = SNISettings()
    sni.checksQUIC = checksQUIC
    guard wanted.rules.needsFlows(sni) else { return .init(wanted) }
    var wanted = wanted
    let needsNames = wanted.rules.needsNames(sni)
    if needsNames {
      // Nobody else's answers are known here.
      let server = IPPrefix(.v4(AgreedAddresses.nameServer), clamping: 32)
      wanted.allowed += [FlowTransport.tcp, .udp].map {
        DestinationRule(.prefix(server), ports: 53...53, transport: $0)
      }
    }
    if let flows {
      flows.change(wanted)
    } else {
      flows = SharedFlows(
        FlowJudge(
          wanted, sni: sni, queries: needsNames ? .only(.v4(AgreedAddresses.nameServer)) : .anybody,
          published: ports(.tcp), publishedDatagrams: ports(.udp)), names: names)
    }
    // What is left for each packet by itself: the built-in rules, and what lifts them.
    var special = wanted
    special.rules = EgressRules(isOpen: true, allow: wanted.allowed)
    return .init(special, flows)
  }

  private func ports(_ transport: PortTransport) -> [UInt16] {
    published.filter { $0.transport == transport }.map(\.port)
  }
}
