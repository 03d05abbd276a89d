import BootPlanning
import EnclaveConfig
import Inet
import LinuxSystem
import Proxying
import Relaying
import Supervision
import Testing
import Wire

@testable import ServiceControl

/// The plan's services as they are started: one that does not wait for what it needs runs without a network, or without
/// anybody who gives its verdicts.
struct EnclaveServicesTests {
  private func services(_ text: String, handsOver: Bool = true) throws -> [Service] {
    let configuration = try Configuration(toml: text, file: "t")
    let plan = StartPlan(StartFacts(.child, configuration))
    var made = EnclaveServices(
      configuration, plan.services.compactMap { if case .start(let service) = $0 { service } else { nil } })
    if handsOver {
      made.proxyHandOver = ProxyHandOver(
        ProxySettings(hostTarget: StreamTarget(.unix("/host")), proxyToken: .none, hostToken: .none))
      if configuration.needsAttestation {
        let null = FileReference(try openFile("/dev/null", 0))
        made.attestation = AttestationHandOver(
          executable: null, module: nil, listeners: [null], callers: nil, runtime: [])
      }
    }
    return try made.descriptions { _, sentence in Issue.record("\(sentence)") }.map(\.service)
  }

  @Test func eachWaitsForTheOneBefore() throws {
    let shared = try services("[network]\nmode = \"raw\"\ncapture = \"nfqueue\"")
    #expect(shared.map(\.name) == ["the proxy's keeper of verdicts", "the proxy", "the program"])
    #expect(shared.map(\.needs) == [[], [ServiceID(0)], [ServiceID(1)]])
    // A life of its own would leave packets without verdicts.
    #expect(shared[0].end == .startedAgainWith(ServiceID(1)))
    for mode in ["tcp", "raw"] {
      let two = try services("[network]\nmode = \"\(mode)\"")
      #expect(two.map(\.name) == ["the proxy", "the program"])
      #expect(two.map(\.needs) == [[], [ServiceID(0)]])
    }
    _ = try ServicePlan(shared)
  }

  /// A program that starts before its register is locked could be measured as another.
  @Test func everythingWaitsForTheAttestationService() throws {
    for network in ["mode = \"none\"", "mode = \"tcp\"", "mode = \"raw\"\ncapture = \"nfqueue\""] {
      let list = try services("[attestation]\n[network]\n\(network)")
      let plan = try ServicePlan(list)
      #expect(list[0].name == "the attestation service" && plan.programNeeds(ServiceID(0)), "\(network)")
    }
  }

  @Test func withoutANetworkThereIsTheProgramAlone() throws {
    let one = try services("[network]\nmode = \"none\"", handsOver: false)
    #expect(one.map(\.name) == ["the program"] && one[0].needs.isEmpty)
  }

  @Test func aProxyWithNothingToBeHandedIsAnError() {
    #expect { try services("", handsOver: false) } throws: { "\($0)" == "the proxy has nothing to be handed" }
  }
}
