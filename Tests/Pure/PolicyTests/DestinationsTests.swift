import Inet
import Policy
import Testing

/// Where a program may go, decided without a network.
struct DestinationsTests {
  private func denied(_ text: String, _ destinations: Destinations = Destinations()) -> String? {
    guard let endpoint = IPEndpoint(text) else { return "not an endpoint" }
    return destinations.denial(of: endpoint.address, port: endpoint.port)?.rule.name
  }

  /// The parent's credentials and services, in each way in which they can be written.
  @Test(
    arguments: [
      ("169.254.169.254:80", "metadata"), ("[::ffff:169.254.169.254]:80", "metadata"),
      ("[64:ff9b::169.254.169.254]:80", "metadata"), ("[64:ff9b:1::169.254.169.254]:80", "metadata"),
      ("[64:ff9b:1:a9fe:a9:fe00::]:80", "metadata"), ("[2002:a9fe:a9fe::1]:80", "metadata"),
      ("[fd00:ec2::254]:80", "metadata"), ("[fd20:ce::254]:80", "metadata"), ("100.100.100.200:80", "metadata"),
      ("168.63.129.16:32526", "metadata"), ("192.0.0.192:80", "metadata"), ("169.254.1.1:80", "link-local"),
      ("[fe80::1]:80", "link-local"), ("224.0.0.1:80", "multicast"), ("[ff02::1]:80", "multicast"),
      ("255.255.255.255:80", "reserved"), ("240.0.0.1:80", "reserved"), ("0.0.0.0:80", "reserved"),
      ("[::]:80", "reserved"), ("127.0.0.1:80", "loopback"), ("[::1]:80", "loopback"),
      ("[64:ff9b::7f00:1]:80", "loopback"), ("[::127.0.0.1]:80", "reserved"), ("192.0.2.1:80", "reserved"),
      ("198.18.0.1:80", "reserved"), ("[2001:db8::1]:80", "reserved"), ("[100::1]:80", "reserved"),
      ("[2001:0:4136:e378:8000:63bf:5601:5601]:80", "metadata"),
    ])
  func builtInDenials(_ text: String, _ rule: String) { #expect(denied(text) == rule, "\(text)") }

  /// Databases in the VPC, and everybody else's servers.
  @Test(
    arguments: [
      "10.9.0.2:8080", "172.16.0.1:5432", "192.168.1.1:443", "100.64.0.1:443", "[fd09::2]:80", "8.8.8.8:443",
      "[2606:4700::1111]:443", "[64:ff9b::8.8.8.8]:443", "[64:ff9b:1:808:8:800::]:443", "[2002:808:808::1]:80",
      "[64:ff9b::10.0.0.1]:5432", "192.0.1.1:80", "[2620:4f:8000::1]:53",
    ])
  func ordinaryDestinations(_ text: String) { #expect(denied(text) == nil, "\(text)") }

  private func rules(_ texts: String...) throws -> [DestinationRule] {
    try texts.map { (text) throws(DestinationRuleError) in try DestinationRule(text) }
  }

  /// A rule opens what it names, on the ports that it names, in every form, and nothing beside it.
  @Test func rulesLiftWhatTheyName() throws {
    var some = Destinations(
      allowed: try rules("169.254.169.254:80", "10.0.0.0/8", "240.0.0.0/4:443-444", "[fe80::]/10"))
    #expect(denied("169.254.169.254:80", some) == nil)
    #expect(denied("169.254.169.254:81", some) == "metadata")
    #expect(denied("[64:ff9b::169.254.169.254]:80", some) == nil)
    #expect(denied("[::ffff:169.254.169.254]:80", some) == nil)
    #expect(denied("[::ffff:169.254.169.254]:81", some) == "metadata")
    #expect(denied("169.254.170.2:80", some) == "metadata")
    #expect(denied("240.1.2.3:444", some) == nil)
    #expect(denied("240.1.2.3:445", some) == "reserved")
    // A range of addresses does not name the metadata in it, nor broadcast.
    #expect(denied("255.255.255.255:443", some) == "reserved")
    #expect(denied("[fe80::1]:80", some) == nil)
    #expect(denied("[fe80::a9fe:a9fe]:80", some) == "metadata")
    some.allowed = try rules("0.0.0.0/0", "::/0", "169.254.0.0/16")
    #expect(denied("169.254.169.254:80", some) == "metadata")
    #expect(denied("169.254.1.1:80", some) == nil)
    #expect(denied("[fd00:ec2::254]:80", some) == "metadata")
    #expect(denied("127.0.0.1:80", some) == "loopback")
    // Where no port is known only a rule for all of them holds.
    some.allowed = try rules("169.254.169.254:80")
    #expect(some.denial(of: .v4(IPv4Address(169, 254, 169, 254)), port: nil) != nil)
    some.allowed = try rules("169.254.169.254")
    #expect(some.denial(of: .v4(IPv4Address(169, 254, 169, 254)), port: nil) == nil)
  }

  @Test func theMachinesOwnAddresses() throws {
    let own: Set<IPAddress> = [.v4(IPv4Address(10, 1, 2, 3)), .v6(IPv6Address(high: 0xfd09 << 48, low: 1))]
    var some = Destinations(allowed: try rules("10.0.0.0/8"), own: own)
    for text in [
      "10.1.2.3:22", "[::ffff:10.1.2.3]:22", "[64:ff9b::10.1.2.3]:22", "[2002:a01:203::]:22", "[fd09::1]:22",
    ] {
      #expect(denied(text, some) == "host", "\(text)")
    }
    #expect(denied("10.1.2.4:22", some) == nil)
    some.ownPorts = PortRanges([8080...8081])
    #expect(denied("10.1.2.3:8080", some) == nil)
    #expect(denied("[64:ff9b::10.1.2.3]:8081", some) == nil)
    #expect(denied("10.1.2.3:8082", some) == "host")
    some.allowed = try rules("10.1.2.3:22")
    #expect(denied("10.1.2.3:22", some) == nil)
    #expect(denied("[fd09::1]:22", some) == "host")
  }

  @Test func theReasonNamesRangeAndRule() {
    let reason = Destinations().denial(of: IPAddress("64:ff9b::a9fe:a9fe") ?? .v4(.any), port: 80)?.description ?? ""
    #expect(
      reason.hasPrefix("built-in rule \"metadata\": it stands for 169.254.169.254, in 169.254.169.254/32, metadata of"))
    let own = Destinations(own: [.v4(IPv4Address(10, 0, 0, 1))]).denial(of: .v4(IPv4Address(10, 0, 0, 1)), port: 1)
    #expect(own?.description == "built-in rule \"host\": it is an address of this machine")
  }

  // MARK: rules as text

  @Test(
    arguments: [
      ("10.0.0.0/8", "10.0.0.0/8"), ("10.0.0.0/8:5432", "10.0.0.0/8:5432"),
      ("169.254.169.254:80", "169.254.169.254:80"),
      ("169.254.169.254", "169.254.169.254"), ("10.1.2.3:8000-8999", "10.1.2.3:8000-8999"),
      ("[2001:db8::]/32", "2001:db8::/32"), ("2001:db8::/32", "2001:db8::/32"),
      ("[2001:db8::]/32:443", "[2001:db8::]/32:443"),
      ("[fd00:ec2::254]:80", "[fd00:ec2::254]:80"), ("fd00:ec2::254", "fd00:ec2::254"), ("::1:80", "::1:80"),
      ("0.0.0.0/0:443", "0.0.0.0/0:443"), ("::/0", "::/0"), ("1.2.3.4/32", "1.2.3.4"),
      ("api.example.com", "api.example.com"), ("API.Example.COM.", "api.example.com"),
      ("*.example.com", "*.example.com"),
      ("*.amazonaws.com:443", "*.amazonaws.com:443"), ("*.Example.com.:8000-8999", "*.example.com:8000-8999"),
      ("udp://time.example.com:123", "udp://time.example.com:123"), ("icmp://10.0.0.0/8", "icmp://10.0.0.0/8"),
      ("tcp://[2001:db8::1]:443", "tcp://[2001:db8::1]:443"), ("private", "private"),
      ("link-local:443", "link-local:443"),
      ("udp://multicast:5353", "udp://multicast:5353"), ("private.", "private."), ("host.example", "host.example"),
      ("xn--bcher-kva.example", "xn--bcher-kva.example"), ("_ldap._tcp.example.com", "_ldap._tcp.example.com"),
      ("localhost", "localhost"), ("com", "com"), ("*.com", "*.com"), ("1.example", "1.example"),
      ("10.0.0.1.example", "10.0.0.1.example"), ("icmp://[fd00::]/8", "icmp://fd00::/8"),
      (String(repeating: "abc.", count: 63) + "a", String(repeating: "abc.", count: 63) + "a"),
      (String(repeating: "a", count: 63) + ".example", String(repeating: "a", count: 63) + ".example"),
    ])
  func rulesAreRead(_ text: String, _ shown: String) throws {
    let rule = try DestinationRule(text)
    #expect(rule.description == shown)
    let again = try DestinationRule(rule.description)
    #expect(again == rule)
  }

  @Test(
    arguments: [
      ("", "expected a name, an address"), ("10.0.0.0/33", "expected a prefix of at most 32 bits"),
      ("[2001:db8::]/129", "expected a prefix of at most 128"),
      ("10.0.0.1/8", "expected 10.0.0.0/8, or 10.0.0.1 alone"), ("2001:db8::1/32", "expected 2001:db8::/32, or"),
      ("10.0.0.1:0", "expected a port from 1 to 65535"), ("10.0.0.1:65536", "expected a port"),
      ("10.0.0.1:90-80", "expected a port"), ("10.0.0.1:", "expected a port"), ("10.0.0.1:80:81", "expected a port"),
      ("10.0.0.1/", "expected the number of the prefix's bits"), ("[10.0.0.1]:80", "expected an IPv6 address between"),
      ("[2001:db8::1", "expected an IPv6 address between"), ("[2001:db8::1]80", "expected a name, an address"),
      (" 10.0.0.1", "expected labels of letters"), ("10.0.0.1 ", "expected labels"),
      ("10.0.0", "expected a name, whose last label is no number"), ("010.0.0.1", "expected a name, whose last label"),
      ("10.0.0.0/8/9", "expected the number"), ("fe80::1%eth0", "expected a port"),
      // Names.
      ("example..com", "found an empty label"), (".example.com", "found an empty label"), (".", "found an empty label"),
      ("example.com..", "found an empty label"), ("-a.example.com", "found a label that begins or ends with \"-\""),
      ("a-.example.com", "found a label that begins or ends"), ("exa mple.com", "expected labels of letters"),
      ("bücher.example", "expected the form that DNS has (A-labels"),
      ("*", "expected a name; everything is allowed by"),
      ("*.", "expected a name"), ("*example.com", "expected \"*\" as the whole of the first label"),
      ("a.*.example.com", "expected \"*\" as the whole"), ("*.*.example.com", "expected labels"),
      ("example.com/24", "expected an address before"), ("private/8", "expected a name, an address"),
      ("example.com:http", "expected a port from 1"), ("https://example.com", "expected \"tcp://\", \"udp://\""),
      ("other://10.0.0.1", "expected \"tcp://\""), ("://10.0.0.1", "expected \"tcp://\""),
      ("tcp://", "expected a name"),
      ("icmp://10.0.0.0/8:1", "expected no port: ICMP has none"), ("icmp://example.com:1", "expected no port"),
      ("udp://tcp://example.com", "expected a port"), ("example.com.1", "expected a name, whose last label is no"),
      ("1.2.3.4.5", "expected a name, whose last label"), ("a\u{0}b", "expected labels"),
      ("user@example.com", "expected labels"),
      ("[]", "expected an IPv6 address between"), ("0x7f000001.5", "expected a name, whose last label"),
      (String(repeating: "a", count: 64) + ".example", "found a label of 64 bytes, expected at most 63"),
      (String(repeating: "abc.", count: 63) + "ab", "found a name of 254 bytes, expected at most 253"),
    ])
  func rulesAreRefused(_ text: String, _ reason: String) {
    do throws(DestinationRuleError) {
      let rule = try DestinationRule(text)
      Issue.record("\(text) was read as \(rule)")
    } catch {
      #expect(error.reason.hasPrefix(reason), "\(text): \(error)")
    }
  }

  @Test func randomTextIsRefusedOrReadAgain() {
    let letters = Array("0123456789abcdef:./[]-xX %*")
    for _ in 0..<20_000 {
      let text = String((0..<Int.random(in: 0...24)).map { _ in letters.randomElement() ?? "0" })
      guard let rule = try? DestinationRule(text) else { continue }
      let again = try? DestinationRule(rule.description)
      #expect(again == rule, "\(text)")
    }
  }

  // MARK: the log

  @Test func aFloodOfDenialsIsAFewLines() {
    var budget = DenialBudget()
    let lines = (0..<10_000).compactMap { budget.admit(at: 5_000_000_000 + UInt64($0)) }
    #expect(lines.count == 11 || lines.count == 10)
    let plain = lines.filter(\.isEmpty).count
    #expect(plain == lines.count)
    #expect(
      budget.admit(at: 6_500_000_000) == " (and \(10_000 - lines.count) more were denied since the last such line)")
    #expect(budget.admit(at: 6_500_000_001) == nil)
    // A clock that goes back all the same.
    #expect(budget.admit(at: 1) == nil)
  }
}
