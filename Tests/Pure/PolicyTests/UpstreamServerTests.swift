import Inet
import Policy
import Testing

/// A server that was written wrong must not be another one, or one in the open.
struct UpstreamServerTests {
  @Test(arguments: [
    ("1.1.1.1", "1.1.1.1:53"), ("1.1.1.1:5353", "1.1.1.1:5353"), ("2606:4700::1111", "[2606:4700::1111]:53"),
    ("[2606:4700::1111]:5353", "[2606:4700::1111]:5353"), ("[2606:4700::1111]", "[2606:4700::1111]:53"),
    ("tls://1.1.1.1#One.one.one.one.", "tls://1.1.1.1:853#one.one.one.one"),
    ("tls://[::2]:8853#::2", "tls://[::2]:8853#::2"), ("tls://1.1.1.1#1.0.0.1", "tls://1.1.1.1:853#1.0.0.1"),
    ("https://1.1.1.1/dns-query", "https://1.1.1.1:443/dns-query#1.1.1.1"),
    ("https://[::2]:8443/a/b?c=d#x.test", "https://[::2]:8443/a/b?c=d#x.test"),
  ])
  func whatIsTaken(_ text: String, _ meaning: String) throws {
    let server = try UpstreamServer(text)
    #expect(server.description == meaning)
    #expect(try UpstreamServer(meaning) == server)
    #expect(try UpstreamServer.list(UpstreamServer.text([server, server])) == [server, server])
  }

  @Test(arguments: [
    ("", "expected an address"), ("dns.google", "a name would have to be asked for before"),
    ("tls://one.one.one.one#one.one.one.one", "a name would have to be asked for before"),
    ("tls://1.1.1.1", "expected \"#\" and the name"), ("tls://1.1.1.1#", "behind \"#\""),
    ("tls://1.1.1.1#a..b", "behind \"#\""), ("tls://1.1.1.1/#a.test", "expected an address"),
    ("quic://1.1.1.1#a.test", "expected \"tls://\" or \"https://\""), ("TLS://1.1.1.1#a.test", "expected \"tls://\""),
    ("1.1.1.1#a.test", "expected an address"), ("1.1.1.1:0", "expected an address"),
    ("1.1.1.1:65536", "expected an address"), ("1.1.1.1:", "expected an address"), ("1.1.1", "expected an address"),
    ("[1.1.1.1]:53", "expected an address"), ("::1]:53", "expected an address"), ("1.1.1.1/24", "expected an address"),
    ("https://1.1.1.1", "expected a path"), ("https://1.1.1.1/dns-query{?dns}", "expected a path"),
    ("https://1.1.1.1/a b", "expected a path"), ("https:///dns-query", "expected an address"),
  ])
  func whatIsNot(_ text: String, _ reason: String) {
    let error = #expect(throws: UpstreamError.self) { try UpstreamServer(text) }
    #expect(error?.reason.contains(reason) ?? false, "\(text): \(error?.reason ?? "taken")")
  }

  @Test func whatHTTPCallsIt() throws {
    #expect(try UpstreamServer("https://1.1.1.1/q").authority == "1.1.1.1")
    #expect(try UpstreamServer("https://[::2]:8443/q").authority == "[::2]:8443")
    #expect(try UpstreamServer("https://1.1.1.1/q#a.test").authority == "a.test")
  }

  /// No answer in the open stands for one that was to be authenticated.
  @Test func theOrderOfAList() throws {
    let (plain, tls) = (try UpstreamServer("1.1.1.1"), try UpstreamServer("tls://1.1.1.1#a.test"))
    #expect(UpstreamServer.defect(in: [plain, plain, tls, tls]) == nil)
    #expect(UpstreamServer.defect(in: [tls, plain])?.contains("expected plain servers first") ?? false)
    #expect(UpstreamServer.defect(in: [UpstreamServer](repeating: tls, count: 9)) != nil)
  }
}
