import DNS
import Inet
import Testing

struct DNSMessageTests {
  /// `dig example.com AAAA +bufsize=1232`.
  static let query: [UInt8] =
    [0x12, 0x34, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1, 7] + Array("example".utf8) + [3] + Array("com".utf8) + [
      0, 0, 28, 0, 1, 0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0,
    ]

  @Test func readsAQuery() throws {
    let message = try #require(DNSMessage(Self.query))
    #expect(message.id == 0x1234)
    #expect(!message.isResponse && !message.isTruncated)
    #expect(message.question?.description == "example.com AAAA")
    #expect(message.udpLimit == 1232)
  }

  @Test func aClientWithoutEDNSGets512Bytes() throws {
    var bytes = Array(Self.query.dropLast(11))
    bytes[11] = 0
    #expect(try #require(DNSMessage(bytes)).udpLimit == 512)
  }

  /// A program whose query fails must learn it at once, with its own id and question.
  @Test func errorResponse() throws {
    let response = try #require(DNSMessage(Self.query)).errorResponse(code: 2)
    #expect(response.isResponse && response.id == 0x1234)
    #expect(response.bytes[3] & 0x0f == 2)
    #expect(response.question?.name == "example.com")
    #expect(response.bytes.count == Self.query.count - 11)
    #expect(response.bytes[11] == 0)
  }

  @Test func truncation() throws {
    let response = try #require(DNSMessage(Self.query)).truncated()
    #expect(response.isTruncated && response.bytes.count == Self.query.count - 11)
  }

  /// A name that is a loop of pointers must not hold the proxy, and none may end it.
  @Test func hostileNames() {
    let header: [UInt8] = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    for name: [UInt8] in [[0xc0, 0x0c], [0xc0, 0x0d, 0xc0, 0x0c], [0xc0], [0x40, 1], [63], [1], []] {
      #expect(DNSMessage(header + name + [0, 1, 0, 1])?.question == nil, "\(name)")
    }
    // The rest of the name in the header, whose first bytes a forwarder changes: the name that is judged would be another
    // one than the name that is asked for.
    #expect(DNSMessage(header + [1, 97, 0xc0, 0, 0, 1, 0, 1])?.question == nil)
    #expect(DNSMessage(header + [1, 97, 0xc0, 11, 0, 1, 0, 1])?.question == nil)
    let long = [UInt8](repeating: 0, count: 0) + (0..<10).flatMap { _ in [63] + [UInt8](repeating: 97, count: 63) }
    #expect(DNSMessage(header + long + [0, 0, 1, 0, 1])?.question == nil)
    #expect(DNSMessage(header + [2, 0x2e, 0x01, 0, 0, 1, 0, 1])?.question?.name == "\\.\\001")
  }

  @Test func randomBytesGiveValuesOrNothing() {
    for _ in 0..<200_000 {
      var bytes = (0..<Int.random(in: 0...80)).map { _ in UInt8.random(in: 0...255) }
      if bytes.count > 12 { bytes[5] = UInt8.random(in: 0...2) }
      guard let message = DNSMessage(bytes) else {
        #expect(bytes.count < 12)
        continue
      }
      #expect(message.udpLimit >= 512)
      #expect(message.errorResponse(code: 5).isResponse)
      #expect(message.truncated().bytes.count <= bytes.count)
    }
  }
}

struct ResolverConfigurationTests {
  @Test func readsResolvConf() {
    let text = """
      # comment
      ; another
      search example.com
      nameserver 10.9.0.2
      nameserver\t2001:db8::53
      nameserver fe80::1%eth0
      options timeout:3 attempts:9 rotate
      """
    let configuration = ResolverConfiguration(resolvConf: text)
    #expect(configuration.servers.map(\.description) == ["10.9.0.2:53", "[2001:db8::53]:53"])
    #expect(configuration.timeout == 3)
    #expect(configuration.attempts == 5)
  }

  @Test func withoutServersTheLocalOne() {
    #expect(ResolverConfiguration(resolvConf: "").servers.map(\.description) == ["127.0.0.1:53"])
  }
}

struct ResolvConfTests {
  /// What a program's C library would have read there itself.
  @Test func searchAndOptions() {
    let read = ResolverConfiguration(
      resolvConf: """
        # search no
        domain old.example
        nameserver 192.0.2.1
        search corp.example  lab.corp.example
        options ndots:2 timeout:1
        options rotate  edns0
        """)
    #expect(read.search == ["corp.example", "lab.corp.example"])
    #expect(read.options == ["ndots:2", "timeout:1", "rotate", "edns0"])
    #expect(read.timeout == 1)
    #expect(ResolverConfiguration(resolvConf: "search a\ndomain b c\n").search == ["b"])
    #expect(ResolverConfiguration(resolvConf: "search a\nsearch\n").search == [])
    #expect(ResolverConfiguration(resolvConf: "search a\u{1b}[1m b\u{e9}.example c\n").search == ["c"])
    #expect(ResolverConfiguration(resolvConf: "").search == [])
  }
}
