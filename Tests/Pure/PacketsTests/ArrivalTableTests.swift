import Inet
import Testing

@testable import Packets

/// Whom a program sees behind a published UDP port.
struct ArrivalTableTests {
  private func end(_ text: String) throws -> IPEndpoint { try #require(IPEndpoint(text)) }

  @Test(arguments: ["203.0.113.9:4000", "10.0.0.1:4000", "[2001:db8::1]:4000", "[fd00::1]:4000"])
  func clientsAreSeenWithTheirOwnAddresses(client: String) throws {
    var table = ArrivalTable()
    let client = try end(client)
    #expect(table.open(7, port: 53, client: client)?.shown == client)
    #expect(table.number(port: 53, shown: client) == 7)
    #expect(table.number(port: 54, shown: client) == nil)
    table.close(7)
    #expect(table.isEmpty && table.number(port: 53, shown: client) == nil)
  }

  @Test(arguments: [
    ("127.0.0.1:4000", "192.0.0.1:4000"), ("169.254.1.1:4000", "192.0.0.1:4000"), ("192.0.0.2:4000", "192.0.0.1:4000"),
    ("224.0.0.1:4000", "192.0.0.1:4000"), ("[::1]:4000", "[fd54:6f6d:626f:1::1]:4000"),
    ("[fe80::1]:4000", "[fd54:6f6d:626f:1::1]:4000"), ("[fd54:6f6d:626f:1::2]:4000", "[fd54:6f6d:626f:1::1]:4000"),
  ])
  func whereNoPacketMayComeFromTheGatewayStands(client: String, shown: String) throws {
    var table = ArrivalTable()
    #expect(table.open(1, port: 53, client: try end(client))?.shown == (try end(shown)))
  }

  /// Two clients of this machine with one port are two for the program.
  @Test func portsAtTheGatewayAreUnique() throws {
    var table = ArrivalTable()
    for number in UInt32(1)...3 {
      let shown = table.open(number, port: 53, client: try end("127.0.0.\(number):65535"))?.shown
      #expect(shown?.port == [65535, 1024, 1025][Int(number) - 1])
      #expect(shown.flatMap { table.number(port: 53, shown: $0) } == number)
    }
    table.close(2)
    #expect(table.open(4, port: 53, client: try end("127.0.0.9:65535"))?.shown.port == 1024)
  }

  /// The newer of two flows of one client gets the answers; the end of the older one does not take them away.
  @Test func theNewerFlowGetsTheAnswers() throws {
    var table = ArrivalTable()
    let client = try end("10.0.0.1:1")
    _ = table.open(1, port: 53, client: client)
    _ = table.open(2, port: 53, client: client)
    #expect(table.number(port: 53, shown: client) == 2)
    table.close(1)
    #expect(table.number(port: 53, shown: client) == 2)
    // A number that is used twice.
    _ = table.open(2, port: 54, client: client)
    #expect(table.number(port: 53, shown: client) == nil && table[2]?.port == 54)
  }

  @Test func thereIsAnEndToIt() throws {
    var table = ArrivalTable()
    for number in 0..<UInt32(ArrivalTable.limit) {
      let client = IPEndpoint(.v4(IPv4Address(rawValue: 0x0a00_0000 + number)), 1)
      #expect(table.open(number, port: 53, client: client) != nil)
    }
    #expect(table.open(.max, port: 53, client: try end("10.200.0.1:1")) == nil)
  }
}
