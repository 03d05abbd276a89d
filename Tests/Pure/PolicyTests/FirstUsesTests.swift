import Inet
import Policy
import Testing

/// The log names each destination once, and a program that uses more and more of them cannot fill it.
struct FirstUsesTests {
  @Test func eachIsNamedOnceAndNotMoreThanSome() throws {
    var uses = FirstUses(limit: 100)
    let name = try DomainName(text: "ok.test")
    let endpoint = IPEndpoint(.v4(IPv4Address(10, 0, 0, 1)), 443)
    let all: [FirstUses.Use] = [
      .query(name), .init(endpoint, name), .init(endpoint, nil), .name(name, port: 444, .tcp),
      .init(endpoint, name, .udp), .init(endpoint, nil, .icmp),
      .query(try DomainName(text: "ok2.test")),
      .address(IPEndpoint(.v4(IPv4Address(10, 0, 0, 1)), 444), .tcp),
    ]
    for use in all { #expect(uses.note(use) == .first) }
    for use in all { #expect(uses.note(use) == .known) }
    var told = 0
    var tooMany = 0
    for port in 1...1000 as ClosedRange<UInt16> {
      switch uses.note(.name(try DomainName(text: "many.test"), port: port, .tcp)) {
      case .first: told += 1
      case .tooMany: tooMany += 1
      case .known: break
      }
    }
    #expect(told == 92 && tooMany == 1)
    #expect(uses.note(all[0]) == .known)
  }
}
