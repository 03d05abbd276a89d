import Inet
import Testing
import Wire

/// The PROXY header: a program behind it logs and judges clients by what it says, so nothing may be read into it.
struct ProxyHeaderTests {
  private static let signature: [UInt8] = [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10]
  private static let four = IPEndpoint("192.0.2.7:51000")
  private static let six = IPEndpoint("[2001:db8::7]:51000")

  private func read(_ text: String) -> ProxyHeader.Reading { ProxyHeader.read(Array(text.utf8)) }

  /// The specification's own forms (sections 2.1 and 2.2), bytes behind them being the client's.
  @Test func whatIsUnderstood() {
    #expect(read("PROXY TCP4 192.0.2.7 192.0.2.1 51000 443\r\nGET") == .header(source: Self.four, length: 42))
    #expect(read("PROXY TCP6 2001:db8::7 2001:db8::1 51000 443\r\n") == .header(source: Self.six, length: 46))
    #expect(read("PROXY UNKNOWN\r\n") == .header(source: nil, length: 15))
    #expect(read("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\nx") == .header(source: nil, length: 43))
    let tcp4 = Self.signature + [0x21, 0x11, 0, 12, 192, 0, 2, 7, 192, 0, 2, 1, 0xc7, 0x38, 1, 0xbb]
    #expect(ProxyHeader.read(tcp4 + [9]) == .header(source: Self.four, length: 28))
    // With TLVs behind the addresses, and of the sender itself.
    let more = Self.signature + [0x21, 0x11, 0, 16, 192, 0, 2, 7, 192, 0, 2, 1, 0xc7, 0x38, 1, 0xbb, 4, 0, 1, 0]
    #expect(ProxyHeader.read(more) == .header(source: Self.four, length: 32))
    #expect(ProxyHeader.read(Self.signature + [0x20, 0, 0, 0]) == .header(source: nil, length: 16))
    #expect(ProxyHeader.read(Self.signature + [0x21, 0x31, 0, 1, 7]) == .header(source: nil, length: 17))
  }

  @Test(arguments: [
    "GET / HTTP/1.1\r\n", "PROXY TCP4 192.0.2.7 192.0.2.1 51000 443\n", "PROXY TCP4 192.0.2.7 192.0.2.1 51000\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.1 51000 65536\r\n", "PROXY TCP4 192.0.2.7 192.0.2.1 051000 443\r\n",
    "PROXY TCP4 2001:db8::7 192.0.2.1 51000 443\r\n", "PROXY TCP6 192.0.2.7 192.0.2.1 51000 443\r\n",
    "PROXY TCP4  192.0.2.7 192.0.2.1 51000 443\r\n", "PROXY TCP4 192.0.2.7 192.0.2.1 51000 443 \r\n",
    "PROXY UDP4 192.0.2.7 192.0.2.1 51000 443\r\n", "PROXY \r\n", "PROXY \n", "proxy TCP4", "PROXY\t",
    "PROXY TCP4 192.0.2.07 192.0.2.1 51000 443\r\n",
  ]) func whatIsNot(_ text: String) {
    if case .malformed = read(text) { return }
    Issue.record("\(text): \(read(text))")
  }

  @Test func binaryHeadersThatAreNot() {
    let rests: [[UInt8]] = [
      [0x11, 0x11, 0, 12], [0x22, 0x11, 0, 12], [0x21, 0x11, 0, 0], [0x21, 0x21, 0, 0], [0x21, 0x11, 0xff, 0xff],
    ]
    for rest in rests {
      if case .malformed = ProxyHeader.read(Self.signature + rest) { continue }
      Issue.record("\(rest)")
    }
    let long = Array(("PROXY " + String(repeating: "x", count: 101)).utf8)
    #expect(ProxyHeader.read(long) == .malformed("is longer than 107 bytes"))
  }

  /// However it is cut, more is waited for; what is written is read back.
  @Test func whatIsWrittenIsReadBack() {
    for source in [Self.four, Self.six, IPEndpoint("[::ffff:192.0.2.7]:51000"), nil] {
      for version in ProxyProtocol.allCases {
        let bytes = ProxyHeader.encode(version, source: source, port: 80)
        let unmapped = source.map { IPEndpoint($0.address.unmapped, $0.port) }
        #expect(ProxyHeader.read(bytes + [1, 2]) == .header(source: unmapped, length: bytes.count))
        for count in 0..<bytes.count {
          #expect(ProxyHeader.read(Array(bytes.prefix(count))) == .incomplete, "\(count)")
        }
      }
    }
    let text = Array("PROXY TCP4 192.0.2.7 127.0.0.1 51000 80\r\n".utf8)
    #expect(ProxyHeader.encode(.v1, source: Self.four, port: 80) == text)
  }

  @Test func anyBytesGiveAReading() {
    let good = ProxyHeader.encode(.v1, source: Self.six, port: 80)
    let binary = ProxyHeader.encode(.v2, source: Self.six, port: 80)
    for _ in 0..<50_000 {
      var bytes = Bool.random() ? good : binary
      for _ in 0..<Int.random(in: 1...4) { bytes[Int.random(in: 0..<bytes.count)] = UInt8.random(in: 0...255) }
      if case .header(_, let length) = ProxyHeader.read(bytes) { #expect(length <= bytes.count && length > 0) }
    }
  }
}
