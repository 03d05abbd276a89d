import Testing

@testable import HTTP

/// What unmodified clients send is understood, and what two readers could understand differently is refused.
struct HTTPParserTests {
  private func requests(_ text: String, piece: Int = .max) throws(HTTPDefect) -> [HTTPRequest] {
    var parser = HTTPParser()
    var found: [HTTPRequest] = []
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      parser.feed(Array(rest.prefix(piece)))
      rest = rest.dropFirst(piece)
      while let request = try parser.next() { found.append(request) }
    }
    return found
  }

  private func status(_ text: String) -> Int? {
    do throws(HTTPDefect) {
      _ = try requests(text)
      return nil
    } catch {
      return error.status
    }
  }

  @Test(arguments: [1, 2, 7, 1000]) func whatClientsSend(piece: Int) throws {
    let curl =
      "GET /attestation?nonce=0a%2Fb&user_data=a+b&empty HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
    let post =
      "\r\nPOST /v1/attestation HTTP/1.1\r\nhost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    let chunked =
      "POST http://a.b/pcr/17/extend HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n02\r\nde\r\n0\r\nT: v\r\n\r\n"
    let found = try requests(curl + chunked + post + "GET / HTTP/1.0\r\n\r\n", piece: piece)
    try #require(found.count == 4)
    #expect(found[0].path == "/attestation" && found[0].keepsAlive)
    #expect(found[0].query == [.init("nonce", "0a/b"), .init("user_data", "a+b"), .init("empty", "")])
    #expect(found[0].header("accept") == "*/*")
    #expect(found[1].path == "/pcr/17/extend" && found[1].body == Array("abcde".utf8))
    #expect(found[2].body == Array("{}".utf8) && !found[2].keepsAlive)
    #expect(found[3].path == "/" && !found[3].keepsAlive)
  }

  @Test func whatIsRefused() {
    for (text, expected) in [
      ("GET / HTTP/1.1\r\n\r\n", 400), ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
      ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505), ("GET /\r\nHost: a\r\n\r\n", 400),
      ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
      ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400), ("GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
      ("GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400), ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
      ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{1}\r\n\r\n", 400), ("GET / HTTP/1.1\r\nHost: a\nb: c\r\n\r\n", 400),
      ("P / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
      ("P / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
      ("P / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
      ("P / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
      ("P / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
      ("P / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", 400),
      ("P / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
      ("P / HTTP/1.1\r\nHost: a\r\nContent-Length: 16385\r\n\r\n", 413),
      ("P / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
      ("P / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", 417),
      ("GET /" + String(repeating: "a", count: 9000), 431),
      ("GET / HTTP/1.1\r\nHost: a\r\n" + String(repeating: "a: b\r\n", count: 101) + "\r\n", 431),
    ] { #expect(status(text) == expected, "\(text.prefix(80))") }
  }

  /// A client that sends a large body waits for a word first.
  @Test func continueIsSaidOnce() throws {
    var parser = HTTPParser()
    parser.feed(Array("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n".utf8))
    #expect(try parser.next() == nil)
    #expect(parser.awaitsContinue)
    parser.continued()
    #expect(try parser.next() == nil && !parser.awaitsContinue)
    parser.feed([0x61])
    #expect(try parser.next()?.body == [0x61])
  }

  /// Any bytes give requests or one defect, and what is held stays small.
  @Test func anyBytes() {
    var random = SystemRandomNumberGenerator()
    let words = [
      "GET ", "/", " HTTP/1.1", "\r\n", "\r\n\r\n", "Host: a", "Content-Length: ", "Transfer-Encoding: chunked", "9",
      "%", "?", "\0", "a", ":",
    ]
    for _ in 0..<20_000 {
      var parser = HTTPParser()
      for _ in 0..<Int.random(in: 1...20, using: &random) {
        parser.feed(Array((words.randomElement(using: &random) ?? "").utf8))
        do throws(HTTPDefect) {
          while let request = try parser.next() { #expect(request.body.count <= HTTPParser.bodyLimit) }
        } catch { break }
      }
    }
  }
}
