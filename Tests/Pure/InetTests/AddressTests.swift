import Inet
import Testing

/// A policy or a forward that reads an address otherwise than the kernel does lets through what it should not.
struct AddressTests {
  @Test(arguments: ["0.0.0.0", "127.0.0.1", "255.255.255.255", "10.9.0.2"])
  func fourRoundTrips(_ text: String) { #expect(IPv4Address(text)?.description == text) }

  @Test(arguments: [
    "", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1.2.3.", " 1.2.3.4", "1.2.3.4 ", "0x7f.1", "１.2.3.4",
  ])
  func fourRefuses(_ text: String) { #expect(IPv4Address(text) == nil) }

  @Test(arguments: [
    ("::", "::"), ("::1", "::1"), ("2001:db8::1", "2001:db8::1"), ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
    ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"), ("::ffff:1.2.3.4", "::ffff:1.2.3.4"), ("1::", "1::"),
    ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"), ("64:ff9b::1.2.3.4", "64:ff9b::102:304"),
  ])
  func sixIsCanonical(_ text: String, _ canonical: String) { #expect(IPv6Address(text)?.description == canonical) }

  @Test(arguments: [
    "", ":", ":::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "g::", "12345::", "1:2:3:4:5:6:7:8::", "::1.2.3",
    "fe80::1%eth0", "1:", ":1", "::ffff:1.2.3.4:5",
  ])
  func sixRefuses(_ text: String) { #expect(IPv6Address(text) == nil) }

  @Test func bytesRoundTrip() {
    for _ in 0..<1000 {
      let bytes = (0..<16).map { _ in UInt8.random(in: 0...255) }
      #expect(IPAddress(bytes: bytes)?.bytes == bytes)
      #expect(IPAddress(bytes: bytes).flatMap { IPAddress($0.description) } == IPAddress(bytes: bytes))
      #expect(IPAddress(bytes: bytes.prefix(4))?.bytes == Array(bytes.prefix(4)))
    }
    #expect(IPAddress(bytes: [1, 2, 3]) == nil)
  }

  @Test func loopbackIsSeenThroughMapping() {
    #expect(IPAddress("::ffff:127.0.0.1")?.isLoopback == true)
    #expect(IPAddress("127.255.0.1")?.isLoopback == true)
    #expect(IPAddress("::1")?.isLoopback == true)
    #expect(IPAddress("128.0.0.1")?.isLoopback == false)
  }

  @Test func endpoints() {
    #expect(IPEndpoint("1.2.3.4:80")?.description == "1.2.3.4:80")
    #expect(IPEndpoint("[::1]:80")?.description == "[::1]:80")
    for bad in ["1.2.3.4", "::1:80", "1.2.3.4:65536", "1.2.3.4:", "1.2.3.4:+1", "[1.2.3.4]:80"] {
      #expect(IPEndpoint(bad) == nil, "\(bad)")
    }
  }

  @Test func prefixes() {
    #expect(IPPrefix("10.0.0.0/8")?.contains(.v4(IPv4Address(10, 255, 1, 2))) == true)
    #expect(IPPrefix("10.0.0.0/9")?.contains(.v4(IPv4Address(10, 128, 0, 0))) == false)
    #expect(IPPrefix("0.0.0.0/0")?.contains(.v4(.loopback)) == true)
    #expect(IPPrefix("0.0.0.0/0")?.contains(.v6(.loopback)) == false)
    #expect(IPPrefix("10.0.0.0/33") == nil)
    #expect(IPPrefix("fd00::/8")?.contains(.v6(IPv6Address("fdff::1") ?? .any)) == true)
  }
}

struct SocketTableTests {
  /// As the kernel of a machine with these bytes' order prints it; addresses are words of its own order.
  static func line(_ address: [UInt8], _ port: String, _ state: String) -> String {
    var text = ""
    for start in stride(from: 0, to: address.count, by: 4) {
      let word = address[start..<start + 4].withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) }
      let digits = String(word, radix: 16, uppercase: true)
      text += String(repeating: "0", count: 8 - digits.count) + digits
    }
    return "   0: \(text):\(port) 00000000:0000 \(state) 00000000:00000000 00:00000000 00000000     0        0 1\n"
  }
  static let header =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

  @Test func findsListenersOfLoopback() {
    let mapped: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]
    let text =
      Self.header + Self.line([127, 0, 0, 1], "0050", "0A") + Self.line([0, 0, 0, 0], "1F90", "0A")
      + Self.line([127, 0, 0, 2], "0051", "0A") + Self.line([10, 9, 0, 1], "0052", "03")
      + Self.line(mapped, "0053", "0A")
      + Self.line([UInt8](repeating: 0, count: 15) + [1], "0054", "0A")
      + Self.line([UInt8](repeating: 0, count: 16), "FFFF", "0A")
      + Self.line([127, 0, 0, 1], "0055", "01") + Self.line([127, 0, 0, 1], "0056", "0A")
    var whole = SocketTable()
    whole.add(text.utf8)
    // Behind the first connection there are no listeners.
    #expect(whole.ports == [80, 8080, 83, 84, 65535] && whole.isComplete)
    var pieces = SocketTable()
    for byte in text.utf8 { pieces.add([byte]) }
    #expect(pieces.ports == whole.ports)
  }

  @Test func isTotal() {
    for seed in 0..<2000 {
      var bytes = Array((Self.header + Self.line([127, 0, 0, 1], "0050", "0A")).utf8)
      for _ in 0...(seed % 5) { bytes[Int.random(in: bytes.indices)] = UInt8.random(in: 0...255) }
      var table = SocketTable()
      table.add(bytes.prefix(Int.random(in: 0...bytes.count)))
      #expect(table.ports.count <= 1)
    }
  }
}

/// Which ports take datagrams, from /proc/net/udp and /proc/net/udp6.
struct DatagramSocketTableTests {
  private static let file = """
      sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
      12: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 0
      13: 00000000:0036 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 0
      14: 020000C0:0037 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 0
      15: 0100007F:0038 0100007F:0039 01 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 0
      16: 0200007F:003A 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 0
      17: 00000000000000000000000000000000:003B 00000000000000000000000000000000:0000 07 0:0
      18: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 0:0
      19: 0000000000000000FFFF000000000000:003C 00000000000000000000000000000000:0000 07 0:0

    """

  @Test func socketsThatAreNotConnectedTakeDatagrams() {
    var whole = DatagramSocketTable(own: [.v4(IPv4Address(192, 0, 0, 2))])
    whole.add(Self.file.utf8)
    #expect(
      whole.ports == [
        0x35: [.loopback4, .loopback6], 0x36: [.own4, .loopback4], 0x37: .own4,
        0x3b: [.own4, .own6, .loopback4, .loopback6], 0x3c: [.own4, .loopback4],
      ])
    var pieces = DatagramSocketTable(own: [.v4(IPv4Address(192, 0, 0, 2))])
    for byte in Self.file.utf8 { pieces.add([byte]) }
    #expect(pieces.ports == whole.ports)
  }

  @Test func anyBytes() {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<200 {
      var bytes = Array(Self.file.utf8)
      for _ in 0..<20 {
        bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      var table = DatagramSocketTable(own: [])
      table.add(bytes)
      #expect(table.ports.count <= 8)
    }
  }
}
