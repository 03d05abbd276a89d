import EnclaveConfig
import Inet
import Testing

/// Raw mode's addresses, from the configuration or from a host that is not trusted.
struct RawNetworkTests {
  private func raw(_ lines: String) throws -> RawNetwork {
    try Configuration(toml: "[network]\n" + lines, file: "t").raw
  }

  @Test func readsWhereAddressesComeFrom() throws {
    #expect(try raw("").asksHost == false)
    let both = try raw("address = \"host\"\naddress6 = \"host\"")
    #expect(both.asksForAddress && both.asksForAddress6)
    #expect(both.allowed.map(\.description) == ["10.118.0.0/16", "fd74:6f6d:626f::/48"])
    let one = try raw("address = \"host\"\naddress6 = \"fd00::9/64\"\nallowed = [\"192.168.0.0/20\"]")
    #expect(one.asksForAddress && !one.asksForAddress6)
    #expect(one.allowed.map(\.description) == ["192.168.0.0/20"])
    // What comes later, such as a command line, takes its place.
    var configuration = try Configuration(toml: "[network]\naddress = \"host\"", file: "t")
    try configuration.apply(toml: "[network]\naddress = \"10.0.0.2/24\"", file: "u")
    #expect(!configuration.raw.asksHost && configuration.raw.address.description == "10.0.0.2/24")
  }

  @Test(arguments: [
    (
      "address = \"hosts\"",
      "t:2: network.address: found \"hosts\", expected \"host\", or an IPv4 address and its prefix's length such as \"10.118.0.2/30\""
    ),
    (
      "address6 = \"10.0.0.2/24\"",
      "t:2: network.address6: found \"10.0.0.2/24\", expected \"host\", \"none\", or an IPv6 address and its prefix's length such as \"fd74:6f6d:626f::2/64\""
    ),
    (
      "allowed = [\"10.0.0.0/33\"]",
      "t:2: network.allowed: found \"10.0.0.0/33\", expected networks such as \"10.118.0.0/16\""
    ),
    ("allowed = \"10.0.0.0/8\"", "t:2: network.allowed: found \"10.0.0.0/8\", expected an array of strings"),
    (
      "address6 = \"host\"\nallowed = [\"10.0.0.0/8\"]",
      "t:3: network.allowed: found no IPv6 network, expected one because of network.address6 = \"host\""
    ),
  ]) func mistakes(lines: String, sentence: String) {
    let error = #expect(throws: ConfigurationError.self) { try raw(lines) }
    #expect(error?.description == sentence)
  }

  /// A host that gives an enclave its own loopback, somebody else's network or a link that reaches too far would get at
  /// what the image keeps inside.
  @Test(
    arguments: [
      ("10.118.0.6/30", nil), ("10.118.255.254/16", nil), ("10.119.0.6/30", "which is outside what the image allows"),
      ("10.118.0.6/15", "which is outside what the image allows"),
      ("10.118.0.4/30", "which is its network's own address"),
      ("10.118.0.7/30", "which is its network's own address or its broadcast address"),
      ("10.118.0.6/31", "whose prefix is no link's"), ("10.118.0.6/32", "whose prefix is no link's"),
      ("10.118.0.6/7", "whose prefix is no link's"), ("127.0.0.2/8", "which no machine can have"),
      ("0.0.0.5/8", "which no machine can have"), ("224.0.0.5/8", "which no machine can have"),
      ("255.255.255.254/24", "which no machine can have"), ("169.254.0.9/16", "which no machine can have"),
      (nil, "gave no IPv4 address"),
    ] as [(String?, String?)]) func checksIPv4(offer: String?, problem: String?) throws
  {
    // Even where the image allows everything, what is no machine's address is refused.
    let wide = problem?.contains("no machine") == true || problem?.contains("no link") == true
    try check("address = \"host\"\nallowed = [\"\(wide ? "0.0.0.0/0" : "10.118.0.0/16")\"]", offer, nil, problem)
  }

  @Test(
    arguments: [
      ("fd74:6f6d:626f:1::2/64", nil), ("fd74:6f6d:6270::2/64", "which is outside what the image allows"),
      ("fd74:6f6d:626f::2/47", "which is outside what the image allows"),
      ("fd74:6f6d:626f:1::/64", "which is its network's own address"),
      ("fd74:6f6d:626f::2/127", "whose prefix is no link's"),
      ("fd74:6f6d:626f::2/7", "whose prefix is no link's"), ("::1/64", "which no machine can have"),
      ("::ffff:10.118.0.2/96", "which no machine can have"), ("fe80::2/64", "which no machine can have"),
      ("ff02::2/64", "which no machine can have"), (nil, "gave no IPv6 address"),
    ] as [(String?, String?)]) func checksIPv6(offer: String?, problem: String?) throws
  {
    let wide = problem?.contains("no machine") == true || problem?.contains("no link") == true
    try check("address6 = \"host\"\nallowed = [\"\(wide ? "::/0" : "fd74:6f6d:626f::/48")\"]", nil, offer, problem)
  }

  private func check(_ lines: String, _ four: String?, _ six: String?, _ problem: String?) throws {
    let before = try raw(lines)
    var after = before
    do {
      try after.take(address4: four.flatMap { IPPrefix($0) }, address6: six.flatMap { IPPrefix($0) }, mtu: 0)
      #expect(problem == nil && !after.asksHost)
      if let four { #expect(after.address.description == four) }
      if let six { #expect(after.address6.description == six) }
    } catch {
      #expect(problem.map { error.description.contains($0) } == true, "\(error)")
      #expect(after == before)
    }
  }

  /// The host may make the MTU smaller, within reason, and nothing that was not asked for counts.
  @Test func otherValues() throws {
    var raw = try raw("address = \"host\"\naddress6 = \"fd00::9/64\"\nmtu = 1500")
    let given = IPPrefix("10.118.0.6/30")
    for mtu: UInt16 in [1, 1279, 1501, 65535] {
      let before = raw
      let error = #expect(throws: RawNetwork.OfferError.self) {
        try raw.take(address4: given, address6: nil, mtu: mtu)
      }
      #expect(error?.description == "the host gave an MTU of \(mtu), expected 1280 to 1500 (network.mtu)")
      #expect(raw == before)
    }
    try raw.take(address4: given, address6: IPPrefix("::1/128"), mtu: 1280)
    #expect(raw.mtu == 1280 && raw.address6.description == "fd00::9/64")
  }

  // MARK: the host's own address

  @Test func sharedAddress() throws {
    let plain = try raw("capture = \"nfqueue\"")
    #expect(plain.asksForAddress && plain.asksForAddress6)
    #expect(plain.sharedPorts.description == "80, 443, 1024-61439")
    let given = try raw(
      "capture = \"nfqueue\"\naddress = \"192.0.43.8\"\naddress6 = \"none\"\nshared_ports = [\"22\", \"20000-30000\"]\nqueues = 16"
    )
    #expect(!given.asksHost && given.address.description == "192.0.43.8/32" && given.lacksIPv6)
    #expect(given.sharedPorts.description == "22, 20000-30000" && given.queues == 16)
    // Cloud machines have addresses without a network.
    var asked = plain
    try asked.take(address4: IPPrefix("192.0.43.8/32"), address6: nil, mtu: 0)
    #expect(asked.address.description == "192.0.43.8/32" && asked.lacksIPv6 && !asked.asksHost)
    for offer in ["127.0.0.1/8", "169.254.1.1/16", "0.0.0.1/8", "239.0.0.1/8"] {
      var asked = plain
      #expect(throws: RawNetwork.OfferError.self) {
        try asked.take(address4: IPPrefix(offer), address6: nil, mtu: 0)
      }
      #expect(asked == plain)
    }
    // Where the image says a range, it holds.
    var narrow = try raw("capture = \"nfqueue\"\nallowed = [\"10.0.0.0/8\", \"fd00::/8\"]")
    #expect(throws: RawNetwork.OfferError.self) {
      try narrow.take(address4: IPPrefix("11.0.0.1/24"), address6: nil, mtu: 0)
    }
  }

  @Test(arguments: [
    ("capture = \"pcap\"", "t:2: network.capture: found \"pcap\", expected \"tun\" or \"nfqueue\""),
    (
      "shared_ports = [\"80\"]",
      "t:2: network.shared_ports: only with capture = \"nfqueue\", where the enclave has the host's own address"
    ),
    (
      "capture = \"nfqueue\"\nshared_ports = [\"80-70\"]",
      "t:3: network.shared_ports: found \"80-70\", expected ports such as \"443\" or \"1024-61439\""
    ),
    (
      "capture = \"nfqueue\"\nshared_ports = [\"80\"]",
      "t:3: network.shared_ports: found 80, expected a range of at least 256, for the enclave's own connections"
    ),
    (
      "capture = \"nfqueue\"\nshared_ports = [\"1-65400\"]",
      "t:3: network.shared_ports: found 1-65400, expected a range of at least 256 from 1024 on left out, for the host's own connections"
    ),
    ("capture = \"nfqueue\"\nqueues = 17", "t:3: network.queues: found 17, expected a number from 1 to 16"),
  ]) func refusesSharedAddress(lines: String, sentence: String) {
    let error = #expect(throws: ConfigurationError.self) { try raw(lines) }
    #expect(error?.description == sentence)
  }
}
