import BootPlanning
import EnclaveConfig
import Testing

/// What the host gave is measured before any other process starts, and the device is out of reach by then.
struct AttestationPlanTests {
  private let text =
    "[attestation]\nlisten = [1300]\n[dns]\nupstream = [\"10.0.0.1\"]\n[network]\nmode = \"raw\"\ncapture = \"nfqueue\""

  @Test func theServiceIsFirst() throws {
    let plan = try StartPlanTests.plan(.kernel(hasRootfs: true), text)
    let lines = plan.description.split(separator: "\n").map(String.init)
    func place(_ line: String) throws -> Int { try #require(lines.firstIndex { $0.hasPrefix(line) }, "\(line)") }
    #expect(try place("open tombolo-attest") < place("switch root"))
    #expect(try place("open /dev/nsm, and remove it") > place("switch root"))
    #expect(
      lines.contains(
        "listen for the attestation service on /run/tombolo/attestation/attestation.sock, 127.0.0.1:1300; callers: all")
    )
    let service = try place("start the attestation service: what the host gave is in PCR16, which is locked")
    #expect(try service < place("start the proxy's keeper") && service < place("start the DNS client"))
    #expect(
      plan.steps.contains {
        if case .keepCapabilities(_, let set) = $0 { set & ProgramRights.mknod == 0 } else { false }
      })
  }

  /// A local enclave's devices are the machine's; a machine without a module ends, or does as it is told.
  @Test func withoutAModule() throws {
    let local = try StartPlanTests.plan(.local(StartPlanTests.local), "[attestation]")
    #expect(local.steps.contains(.simulateSecurityModule))
    var facts = try StartPlanTests.facts(.child, "[attestation]")
    facts.hasSecurityModule = false
    #expect(StartPlan(facts).steps.contains(.openSecurityModule(.closed)))
    facts.configuration.attestation.missing = .simulate
    #expect(StartPlan(facts).steps.contains(.simulateSecurityModule))
    facts.hasSecurityModule = true
    #expect(StartPlan(facts).steps.contains(.openSecurityModule(.closed)))
  }
}
