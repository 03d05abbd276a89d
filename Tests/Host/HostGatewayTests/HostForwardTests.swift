import HostGateway
import Inet
import Testing

/// What a command line names must be what is carried, and nothing else be taken for it.
struct HostForwardTests {
  @Test func destinations() throws {
    let name = try #require(HostForward(out: "8000:kms.eu-west-1.amazonaws.com:443"))
    #expect(name.vsockPort == 8000)
    #expect(name.way == .out(try #require(ForwardHost("kms.eu-west-1.amazonaws.com")), port: 443))
    #expect("\(name)" == "--forward 8000:kms.eu-west-1.amazonaws.com:443")
    let six = try #require(HostForward(out: "1:[fd09::2]:80"))
    #expect("\(six)" == "--forward 1:[fd09::2]:80")
    #expect(HostForward(out: "4294967294:localhost:1")?.way == .out(.address(.v4(.loopback)), port: 1))
    for text in [
      "", "8000", "8000:a", "8000:a:", "8000::443", ":a:443", "0:a:443", "4294967295:a:1", "8000:a:0", "8000:a:65536",
      "8000:fd09::2:80", "8000:[a]:80", "8000:[10.0.0.1]:80", "+1:a:1", "8000:a b:1", "8000:10.0.0.256:1",
    ] { #expect(HostForward(out: text) == nil, "\(text)") }
  }

  @Test func rangesOfPublishedPorts() throws {
    func all(_ text: String) -> [String]? { PublishedPort.all(text)?.map(\.description) }
    #expect(
      all("8000-8002:9000-9002") == ["0.0.0.0:8000 → 9000", "0.0.0.0:8001 → 9001", "0.0.0.0:8002 → 9002"])
    #expect(all("[::]:80-81:80-81/udp") == ["[::]:80 → 80/udp", "[::]:81 → 81/udp"])
    #expect(all("[::]:80:80") == ["[::]:80 → 80"])
    #expect(all("127.0.0.1:1-1:2-2") == ["127.0.0.1:1 → 2"])
    for text in [
      "8000-8010:8000-8009", "8000-8010:8000", "8000:8000-8010", "8010-8000:8010-8000", "0-1:0-1", "1-2000:1-2000",
      "65535-65536:1-2", "1-2-3:1-2-3", "-1:-1", "1-:1-", "a:1-2:1-2",
    ] { #expect(PublishedPort.all(text) == nil, "\(text)") }
  }

  @Test func listeners() throws {
    #expect(HostForward(incoming: "5432:5000")?.way == .incoming(listen: IPEndpoint(.v4(.loopback), 5432)))
    #expect(HostForward(incoming: "0.0.0.0:5432:5000")?.way == .incoming(listen: IPEndpoint(.v4(.any), 5432)))
    #expect(HostForward(incoming: "[::]:1:5000")?.way == .incoming(listen: IPEndpoint(.v6(.any), 1)))
    for text in ["", "5000", "a:5000", "0:5000", "1:0", "::1:5000", "1:4294967295"] {
      #expect(HostForward(incoming: text) == nil, "\(text)")
    }
  }
}
