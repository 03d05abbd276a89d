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
