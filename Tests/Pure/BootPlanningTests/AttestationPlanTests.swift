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

  /// In a file system of their own, each its user's, and before the service is started, which fills them.
  @Test func keysHaveTheirFiles() throws {
    let keys = """
      [program]
      user = "www-data"
      [[attestation.key]]
      name = "a"
      type = "ed25519"
      [[attestation.key]]
      name = "b"
      type = "p256"
      user = "7:7"
      """
    let lines = try StartPlanTests.plan(.kernel(hasRootfs: true), keys).description.split(separator: "\n")
    func place(_ line: String) throws -> Int { try #require(lines.firstIndex { $0.hasPrefix(line) }, "\(line)") }
    let mount = try place("mount -t tmpfs -o nosuid,nodev,noexec,mode=755,size=1m tmpfs /run/tombolo/keys")
    #expect(try place("make /run/tombolo/keys/a.pem, of user www-data alone, for a key") == mount + 1)
    #expect(try place("make /run/tombolo/keys/b.pem, of user 7:7 alone, for a key") == mount + 2)
    #expect(try mount < place("start the attestation service"))
    let document = try StartPlanTests.plan(.child, "[attestation]\ndocument = \"/run/a.cbor\"")
    #expect(document.steps.contains(.makeDocument(at: "/run/a.cbor")))
    #expect(document.description.contains("make the document's file, and a link to it, /run/a.cbor\n"))
    #expect(try !StartPlanTests.plan(.kernel(hasRootfs: true), text).description.contains("/run/tombolo/keys"))
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
