import Policy
import Roles
import Testing

/// What PID 1 hands to the DNS client, and what that and the proxy say to each other.
struct UpstreamRoleTests {
  private static func plan() throws -> UpstreamPlan {
    UpstreamPlan(
      servers: try [UpstreamServer("1.1.1.1"), UpstreamServer("tls://1.1.1.1#one.one.one.one")],
      certificates: Array("a bundle".utf8), link: 4, readiness: 5)
  }

  @Test func theClientReadsWhatInitWrites() throws {
    #expect(try UpstreamPlan(document: Self.plan().document) == Self.plan())
  }

  @Test func nothingHasADefault() throws {
    var plan = try Self.plan()
    plan.servers = []
    #expect(throws: RoleError.self) { try UpstreamPlan(document: plan.document) }
    // A plain one behind one with a certificate.
    plan.servers = try Self.plan().servers.reversed()
    #expect(throws: RoleError.self) { try UpstreamPlan(document: plan.document) }
    plan = try Self.plan()
    plan.link = 3
    #expect(throws: RoleError.self) { try UpstreamPlan(document: plan.document) }
    let document = try Self.plan().document
    for length in 0..<document.count {
      #expect(throws: RoleError.self) { try UpstreamPlan(document: Array(document.prefix(length))) }
    }
  }

  @Test func messagesThereAndBack() {
    let messages: [UpstreamMessage] = [
      .started, .connect(server: 7), .connection(server: 0), .refusal(server: 1, reason: "connection refused"),
      .message([UInt8](repeating: 1, count: 65535)),
    ]
    for message in messages { #expect(UpstreamMessage(message.bytes) == message) }
  }

  /// The proxy does not trust the client.
  @Test func anyOtherBytesAreNoMessage() {
    for bytes in [
      [], [0, 0], [1], [1, 2, 3], [2], [3], [UInt8](repeating: 3, count: 65537), [5, 0],
      [4] + [UInt8](repeating: 65, count: 600),
    ] as [[UInt8]] {
      #expect(UpstreamMessage(bytes) == nil)
    }
  }
}
