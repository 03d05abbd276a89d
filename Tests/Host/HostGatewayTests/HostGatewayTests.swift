import HostGateway
import Testing

struct PublishedPortTests {
  @Test func forms() {
    #expect(PublishedPort("8080:80")?.description == "0.0.0.0:8080 → 80")
    #expect(PublishedPort("127.0.0.1:8080:80")?.description == "127.0.0.1:8080 → 80")
    #expect(PublishedPort("[::1]:8080:80")?.description == "[::1]:8080 → 80")
    #expect(PublishedPort("8080:80/tcp") == PublishedPort("8080:80"))
    #expect(PublishedPort("127.0.0.1:53:5353/udp")?.description == "127.0.0.1:53 → 5353/udp")
  }

  @Test(arguments: [
    "", "80", "80:", ":80", "80:0", "80:65536", "a:80:80", "localhost:1:2", "1.2.3.4:80", "80:80/", "80:80/sctp",
    "80:80/udp/tcp", "80/udp:80",
  ])
  func refusals(_ text: String) { #expect(PublishedPort(text) == nil) }
}
