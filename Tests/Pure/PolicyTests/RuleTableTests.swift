import Inet
import Policy
import Testing

/// What each kind of rule allows and denies, as an operator would read it.
///
/// A case is a question and the answer: `+` allowed, `-` denied. A question is a name alone (may it be asked for?), a flow
/// to an address (`udp://10.0.0.1:53`), or a flow to an address that was the answer for names (`10.0.0.1:443 a.test,b.test`).
struct RuleTableTests {
  struct Group: Sendable, CustomStringConvertible {
    var open = false
    var allow: [String] = []
    var deny: [String] = []
    var cases: String
    var description: String { "\(open ? "allow" : "deny") +\(allow) -\(deny)" }
  }

  static let groups: [Group] = [
    // Nothing said, and everything denied.
    Group(
      open: true,
      cases: """
        + example.com
        + a.b.c.example
        + 8.8.8.8:53
        + udp://8.8.8.8:53
        + icmp://8.8.8.8
        + 10.0.0.1:5432
        + 192.168.1.1:22
        + [2606:4700::1]:443
        + [fd00::1]:443
        - 169.254.169.254:80
        - [fd00:ec2::254]:80
        - 127.0.0.1:80
        - 224.0.0.1:80
        - udp://224.0.0.1:5353
        - icmp://169.254.169.254
        - 240.0.0.1:80
        - [ff02::1]:80
        - [64:ff9b::169.254.169.254]:80
        - 169.254.169.254:80 metadata.example
        + 8.8.8.8:443 example.com
        """),
    Group(
      cases: """
        - example.com
        - com
        - 8.8.8.8:53
        - udp://8.8.8.8:53
        - icmp://8.8.8.8
        - 10.0.0.1:1
        - [2606:4700::1]:443
        - 8.8.8.8:443 example.com
        - 169.254.169.254:80
        """),
    // Exact names.
    Group(
      allow: ["api.example.com", "Other.Example.NET.", "single", "xn--bcher-kva.example"],
      cases: """
        + api.example.com
        + API.EXAMPLE.COM
        + aPi.eXample.cOm
        - example.com
        - www.example.com
        - a.api.example.com
        - api.example.com.evil.test
        - xapi.example.com
        - api.example.co
        - api.example.comx
        - apiexample.com
        - com
        + other.example.net
        + single
        - a.single
        + xn--bcher-kva.example
        - bcher-kva.example
        + 8.8.8.8:443 api.example.com
        + 8.8.8.8:1 api.example.com
        + 8.8.8.8:65535 api.example.com
        - udp://8.8.8.8:443 api.example.com
        - icmp://8.8.8.8 api.example.com
        - 8.8.8.8:443
        - 8.8.8.8:443 www.example.com
        + 8.8.8.8:443 www.example.com,api.example.com
        - 169.254.169.254:80 api.example.com
        - 127.0.0.1:80 api.example.com
        - [64:ff9b::7f00:1]:80 api.example.com
        + 10.0.0.1:80 api.example.com
        + [2606:4700::1]:443 api.example.com
        """),
    // Suffixes.
    Group(
      allow: ["*.example.com", "*.net:443"],
      cases: """
        + a.example.com
        + a.b.example.com
        + a.b.c.d.e.f.g.example.com
        - example.com
        - aexample.com
        - a.example.com.test
        - com
        + A.EXAMPLE.com
        + example.net
        + www.example.net
        - net
        + 8.8.8.8:22 a.example.com
        + 8.8.8.8:443 a.net
        - 8.8.8.8:444 a.net
        - 8.8.8.8:442 a.net
        - udp://8.8.8.8:443 a.net
        - 8.8.8.8:443 example.com
        + _sip._tcp.example.com
        """),
    Group(
      allow: ["example.com", "*.example.com"],
      cases: """
        + example.com
        + a.example.com
        + a.b.example.com
        - com
        - xexample.com
        """),
    // Ports of names.
    Group(
      allow: ["a.test:80", "a.test:443", "b.test:8000-8999", "udp://c.test:123", "tcp://d.test:5432", "icmp://e.test"],
      cases: """
        + a.test
        + b.test
        + c.test
        + d.test
        + e.test
        - f.test
        + 1.1.1.1:80 a.test
        + 1.1.1.1:443 a.test
        - 1.1.1.1:81 a.test
        - udp://1.1.1.1:80 a.test
        - 1.1.1.1:7999 b.test
        + 1.1.1.1:8000 b.test
        + 1.1.1.1:8500 b.test
        + 1.1.1.1:8999 b.test
        - 1.1.1.1:9000 b.test
        + udp://1.1.1.1:123 c.test
        - 1.1.1.1:123 c.test
        - udp://1.1.1.1:124 c.test
        + 1.1.1.1:5432 d.test
        - udp://1.1.1.1:5432 d.test
        + icmp://1.1.1.1 e.test
        - 1.1.1.1:80 e.test
        - icmp://1.1.1.1 a.test
        - 1.1.1.1:80 b.test
        + 1.1.1.1:80 b.test,a.test
        - 1.1.1.1:8000 a.test
        """),
    // Addresses and prefixes.
    Group(
      allow: [
        "10.0.0.0/8:5432", "192.0.1.7", "[2606:4700::]/32", "udp://9.9.9.9:53", "icmp://10.0.0.0/8", "1.2.3.4/31:1-9",
      ],
      cases: """
        + 10.0.0.0:5432
        + 10.255.255.255:5432
        + 10.1.2.3:5432
        - 10.1.2.3:5433
        - 10.1.2.3:5431
        - 9.255.255.255:5432
        - 11.0.0.0:5432
        - udp://10.1.2.3:5432
        + icmp://10.1.2.3
        - icmp://11.1.2.3
        + 192.0.1.7:1
        + 192.0.1.7:65535
        - 192.0.1.6:1
        - 192.0.1.8:1
        - udp://192.0.1.7:1
        - icmp://192.0.1.7
        + [2606:4700::]:443
        + [2606:4700:ffff:ffff:ffff:ffff:ffff:ffff]:443
        - [2606:4701::]:443
        - [2606:46ff:ffff::]:443
        + udp://9.9.9.9:53
        - 9.9.9.9:53
        - udp://9.9.9.9:54
        + 1.2.3.4:1
        + 1.2.3.5:9
        - 1.2.3.6:9
        - 1.2.3.3:9
        - 1.2.3.4:10
        + [::ffff:10.1.2.3]:5432
        - [::ffff:10.1.2.3]:5433
        - [64:ff9b::10.1.2.3]:5432
        - example.com
        - 10.1.2.3:443 example.com
        + 10.1.2.3:5432 example.com
        """),
    // Everything by address is not everything.
    Group(
      allow: ["0.0.0.0/0", "::/0"],
      cases: """
        + 8.8.8.8:443
        + 10.0.0.1:1
        + [2606:4700::1]:443
        - udp://8.8.8.8:53
        - icmp://8.8.8.8
        - 169.254.169.254:80
        - 169.254.1.1:80
        - 127.0.0.1:80
        - [fd00:ec2::254]:80
        - [::1]:80
        - 224.0.0.1:80
        - example.com
        + 8.8.8.8:443 example.com
        """),
    Group(
      allow: ["0.0.0.0/0", "udp://0.0.0.0/0", "icmp://0.0.0.0/0"],
      cases: """
        + 8.8.8.8:443
        + udp://8.8.8.8:443
        + icmp://8.8.8.8
        - other://8.8.8.8
        - [2606:4700::1]:443
        """),
    // deny wins.
    Group(
      allow: ["*.example.com", "10.0.0.0/8", "a.test:443"],
      deny: ["secret.example.com", "*.internal.example.com", "10.66.0.0/16", "10.1.1.1:22", "*.test:80"],
      cases: """
        + a.example.com
        - secret.example.com
        + a.secret.example.com
        + internal.example.com
        - a.internal.example.com
        - a.b.internal.example.com
        + 10.0.0.1:22
        - 10.66.0.0:22
        - 10.66.255.255:22
        + 10.65.255.255:22
        + 10.67.0.0:22
        - 10.1.1.1:22
        + 10.1.1.1:23
        - 10.66.1.1:443 a.example.com
        + 8.8.8.8:443 a.example.com
        - 8.8.8.8:443 secret.example.com
        + 8.8.8.8:443 secret.example.com,a.example.com
        - [64:ff9b::10.66.1.1]:443 a.example.com
        - [::ffff:10.66.1.1]:443 a.example.com
        - [2002:a42:101::1]:443 a.example.com
        + [64:ff9b::8.8.8.8]:443 a.example.com
        + a.test
        + 8.8.8.8:443 a.test
        - 8.8.8.8:80 a.test
        - b.test
        """),
    Group(
      open: true, deny: ["evil.test", "*.ads.test", "8.8.4.4", "udp://8.8.8.8:53", "tcp://9.9.9.9", "c.test:25"],
      cases: """
        - evil.test
        + a.evil.test
        + ads.test
        - x.ads.test
        + example.com
        - 8.8.4.4:53
        - udp://8.8.4.4:53
        - icmp://8.8.4.4
        - other://8.8.4.4
        + 8.8.8.8:53
        - udp://8.8.8.8:53
        + udp://8.8.8.8:54
        - 9.9.9.9:1
        + udp://9.9.9.9:1
        + icmp://9.9.9.9
        + c.test
        - 1.1.1.1:25 c.test
        + 1.1.1.1:26 c.test
        + udp://1.1.1.1:26 c.test
        - udp://1.1.1.1:25 c.test
        + 1.1.1.1:25 c.test,example.com
        + 1.1.1.1:25
        """),
    // Sets.
    Group(
      open: true, deny: ["private"],
      cases: """
        - 10.0.0.1:80
        - 172.16.0.1:80
        + 172.32.0.1:80
        - 192.168.255.255:80
        - 100.64.0.1:80
        - [fd00::1]:80
        - [fc00::1]:80
        - udp://10.0.0.1:53
        - icmp://10.0.0.1
        - [64:ff9b::10.0.0.1]:80
        - [::ffff:192.168.0.1]:80
        - [64:ff9b:1::10.0.0.1]:80
        + 8.8.8.8:80
        + [2606:4700::1]:80
        - 10.0.0.1:80 example.com
        """),
    Group(
      open: true, deny: ["private:22", "udp://private:53"],
      cases: """
        - 10.0.0.1:22
        + 10.0.0.1:23
        - udp://10.0.0.1:53
        + 10.0.0.1:53
        - udp://10.0.0.1:22
        + 8.8.8.8:22
        """),
    Group(
      allow: ["private:5432", "metadata:80", "udp://multicast:5353", "loopback", "reserved:443"],
      cases: """
        + 10.0.0.1:5432
        - 10.0.0.1:5433
        + 192.168.7.7:5432
        - 8.8.8.8:5432
        + 169.254.169.254:80
        - 169.254.169.254:81
        + [fd00:ec2::254]:80
        + 100.100.100.200:80
        - 169.254.1.1:80
        + udp://224.0.0.251:5353
        - udp://224.0.0.251:5354
        - 224.0.0.251:5353
        + 127.0.0.1:1
        + [::1]:1
        + 192.0.2.1:443
        - 192.0.2.1:80
        - 8.8.8.8:443
        """),
    Group(
      open: true, allow: ["link-local"],
      cases: """
        + 169.254.1.1:80
        + udp://169.254.1.1:53
        + [fe80::1]:80
        - 169.254.169.254:80
        - [fe80::a9fe:a9fe]:80
        """),
    Group(
      open: true, allow: ["metadata"], deny: ["169.254.169.254:80"],
      cases: """
        - 169.254.169.254:80
        + 169.254.169.254:81
        + 168.63.129.16:80
        - 169.254.1.1:80
        """),
    // Names that look like others.
    Group(
      allow: ["private.", "host.example", "a_b.example"],
      cases: """
        + private
        - 10.0.0.1:80
        + 10.0.0.1:80 private
        + host.example
        + a_b.example
        - a-b.example
        - a\\.b.example
        """),
  ]

  @Test(arguments: groups) func table(_ group: Group) throws {
    let destinations = try Self.destinations(group)
    for line in group.cases.split(separator: "\n") {
      let words = line.split(separator: " ")
      let found = try Self.isAllowed(words.dropFirst().map(String.init), destinations)
      #expect(found == (words[0] == "+"), "\(group): \(line)")
    }
  }

  @Test func theTableHas250Cases() {
    let count = Self.groups.reduce(0) { $0 + $1.cases.split(separator: "\n").count }
    #expect(count >= 250, "\(count)")
  }

  private static func destinations(_ group: Group) throws -> Destinations {
    Destinations(
      EgressRules(
        isOpen: group.open, allow: try group.allow.map { try DestinationRule($0) },
        deny: try group.deny.map { try DestinationRule($0) }))
  }

  private static func isAllowed(_ question: [String], _ destinations: Destinations) throws -> Bool {
    var text = question[0]
    var transport = FlowTransport.tcp
    for one in FlowTransport.allCases where text.hasPrefix(one.rawValue + "://") {
      transport = one
      text.removeFirst(one.rawValue.count + 3)
    }
    let address: IPAddress
    var port: UInt16?
    if let endpoint = IPEndpoint(text) {
      address = endpoint.address
      port = endpoint.port
    } else if let alone = IPAddress(text) {
      address = alone
    } else {
      if case .allowed = destinations.rules.verdict(on: try name(text)) { return true }
      return false
    }
    let names = try question.count > 1 ? question[1].split(separator: ",").map { try name(String($0)) } : []
    return destinations.denial(of: address, port: port, transport, names: names) == nil
  }

  /// As it would come in a message: a dot behind a backslash is one in a label.
  private static func name(_ text: String) throws -> DomainName {
    let labels = text.replacing("\\.", with: "\u{1}").split(separator: ".").map { label in
      label.utf8.map { $0 == 1 ? UInt8(ascii: ".") : $0 }
    }
    return try #require(DomainName(labels: labels.flatMap { [UInt8($0.count)] + $0 }))
  }

  // MARK: names

  @Test func namesOfMessagesAreBounded() throws {
    let label = [UInt8(63)] + Array(repeating: UInt8(ascii: "a"), count: 63)
    #expect(DomainName(labels: label + label + label) != nil)
    let most = label + label + label + [61] + Array(repeating: UInt8(ascii: "b"), count: 61)
    #expect(most.count == 254)
    #expect(DomainName(labels: most)?.description.utf8.count == 253)
    #expect(DomainName(labels: label + label + label + [62] + Array(repeating: 0x62, count: 62)) == nil)
    #expect(DomainName(labels: [64] + Array(repeating: 0x61, count: 64)) == nil)
    #expect(DomainName(labels: [3, 0x61, 0x62]) == nil)
    #expect(DomainName(labels: [0]) == nil)
    #expect(DomainName(labels: []) == .root)
    #expect(DomainName(labels: [3, 0x41, 0x2e, 0xff])?.description == "a\\.\\255")
  }

  @Test func theNarrowestRuleDecides() throws {
    let table = RuleTable(
      try [
        "10.0.0.0/8", "10.1.0.0/16", "*.example.com", "a.example.com", "*.b.example.com", "10.1.0.0/16:80", "private",
      ]
      .map { try DestinationRule($0) })
    let destinations = Destinations(EgressRules(isOpen: false, allow: table.rules))
    func rule(_ text: String) -> String? {
      IPEndpoint(text).flatMap { destinations.rule(allowing: $0.address, port: $0.port) }?.description
    }
    #expect(rule("10.1.2.3:80") == "10.1.0.0/16")
    #expect(rule("10.2.2.3:80") == "10.0.0.0/8")
    #expect(rule("192.168.0.1:80") == "private")
    #expect(rule("8.8.8.8:80") == nil)
    func named(_ text: String) throws -> String? {
      table.rule(for: try Self.name(text), where: { _ in true })?.description
    }
    #expect(try named("a.example.com") == "a.example.com")
    #expect(try named("b.example.com") == "*.example.com")
    #expect(try named("c.b.example.com") == "*.b.example.com")
    #expect(try named("example.com") == nil)
  }
}
