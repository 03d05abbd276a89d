import BootPlanning
import EnclaveConfig
import Foundation
import Testing

/// What `tombolo-init --plan` prints is what an auditor reads to know what a measured image does: all of it, in its order,
/// in each of the four ways to be started. The texts are in Tests/plans; the end-to-end tests hold the programs to them.
struct GoldenPlanTests {
  private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("plans")
  private static let server = """
    [program]
    command = ["/bin/server", "-v"]
    user = "www-data"
    [ingress]
    ports = [443, 80]
    """

  private static func expectGolden(_ name: String, _ facts: StartFacts) throws {
    let golden = try String(contentsOf: folder.appendingPathComponent(name + ".txt"), encoding: .utf8)
    let text = StartPlan.text(facts) + "\n"
    if text != golden {
      let differing = zip(text.split(separator: "\n"), golden.split(separator: "\n")).first { $0 != $1 }
      Issue.record("\(name): \(differing.map { "\"\($0.0)\" instead of \"\($0.1)\"" } ?? "one is longer"):\n\(text)")
    }
  }

  @Test func aKernelsInit() throws {
    try Self.expectGolden("kernel", StartPlanTests.facts(.kernel(hasRootfs: true), Self.server))
  }

  @Test func aKernelsInitWithoutRootfs() throws {
    try Self.expectGolden("kernel-without-rootfs", StartPlanTests.facts(.kernel(hasRootfs: false), Self.server))
  }

  @Test func underAnotherInit() throws { try Self.expectGolden("child", StartPlanTests.facts(.child, Self.server)) }

  /// Connections are turned to the proxy, and the interface is for datagrams alone.
  @Test func connectEarly() throws {
    try Self.expectGolden("child-early", StartPlanTests.facts(.child, Self.server + "\n[network]\nconnect = \"early\""))
  }

  /// What is mounted by steps, what by processes of their own, and what the program waits for.
  @Test func mounts() throws {
    try Self.expectGolden(
      "kernel-mounts",
      StartPlanTests.facts(
        .kernel(hasRootfs: true),
        Self.server + """

          [[mount]]
          type = "nfs"
          source = "nfs.example:/vol"
          target = "/data"
          options = ["noatime"]
          [[mount]]
          type = "bind"
          source = "/data/shop"
          target = "/srv"
          options = ["ro"]
          required = false
          [[mount]]
          type = "tmpfs"
          target = "/scratch"
          options = ["size=64m", "mode=1777"]
          """))
  }

  @Test func aLocalEnclave() throws {
    var facts = try StartPlanTests.facts(.local(StartPlanTests.local), Self.server)
    facts.defaultDirectory = "/home/me"
    try Self.expectGolden("local", facts)
  }

  /// What is carried besides is in the plan, also where there is no network.
  @Test(arguments: ["tcp", "none"])
  func forwards(_ mode: String) throws {
    let plan = try StartPlanTests.facts(
      .child,
      """
      [program]
      command = ["/bin/server"]
      [network]
      mode = "\(mode)"
      [[forward]]
      listen = "127.0.0.2:443"
      vsock_port = 8000
      [[forward]]
      vsock_listen = 5000
      connect = "127.0.0.1:5432"
      """)
    let text = StartPlan.text(plan)
    #expect(text.contains("\nlisten for the proxy on 127.0.0.2:443 to the host's port 8000\n"))
    #expect(text.contains("\nlisten for the host on vsock port 5000, for 127.0.0.1:5432\n"))
    #expect(
      text.contains(mode == "none" ? "\nstart the proxy: forwards alone\nwait until" : "\nstart the proxy: egress"))
  }

  /// With the host's own address nothing leaves through the link but by a queue; with rules by name, no query does.
  @Test(arguments: [("child-nfqueue", ""), ("child-nfqueue-names", "[egress]\nallow = [\"ok.test\"]\n")])
  func sharedAddress(_ golden: String, _ rules: String) throws {
    try Self.expectGolden(
      golden,
      StartPlanTests.facts(
        .child,
        rules + """
          [network]
          mode = "raw"
          capture = "nfqueue"
          address = "192.0.43.8"
          address6 = "none"
          queues = 2
          [program]
          command = ["/bin/server"]
          """))
  }

  /// An auditor sees what the host may decide, and within what.
  @Test(arguments: [("child-raw", ""), ("child-raw-names", "[egress]\ndefault = \"allow\"\nsni = \"check\"\n")])
  func rawModeWithTheHostsAddress(_ golden: String, _ rules: String) throws {
    var facts = try StartPlanTests.facts(
      .child,
      rules + """
        [program]
        command = ["/bin/server"]
        [network]
        mode = "raw"
        address = "host"
        allowed = ["10.7.0.0/16"]
        """)
    facts.processors = 3
    try Self.expectGolden(golden, facts)
  }
}
