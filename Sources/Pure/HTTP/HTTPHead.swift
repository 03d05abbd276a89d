/// The request line and the headers.
enum HTTPHead {
  enum Framing { case length(Int), chunked }

  static func request(_ head: ArraySlice<UInt8>) throws(HTTPDefect) -> HTTPRequest {
    var lines = lines(head)
    guard let first = lines.popFirst() else { throw HTTPDefect(400, "there is no request line") }
    let parts = first.split(separator: 0x20, omittingEmptySubsequences: false)
    guard parts.count == 3, isToken(parts[0]), !parts[1].isEmpty else {
      throw HTTPDefect(400, "the request line is not METHOD TARGET VERSION")
    }
    let version = String(decoding: parts[2], as: UTF8.self)
    guard version == "HTTP/1.1" || version == "HTTP/1.0" else {
      throw HTTPDefect(505, "HTTP/1.1 is spoken here, and HTTP/1.0")
    }
    var request = try target(parts[1], method: String(decoding: parts[0], as: UTF8.self))
    guard lines.count <= HTTPParser.headerLimit else {
      throw HTTPDefect(431, "there are more than \(HTTPParser.headerLimit) headers")
    }
    for line in lines { request.headers.append(try field(line)) }
    let hosts = request.headers.filter { $0.name == "host" }.count
    guard hosts == 1 || hosts == 0 && version == "HTTP/1.0" else {
      throw HTTPDefect(400, "there must be one Host header")
    }
    let words = (request.header("connection") ?? "").split(separator: ",").map { trimmed(Array($0.utf8)).lowercased() }
    request.keepsAlive = version == "HTTP/1.1" ? !words.contains("close") : words.contains("keep-alive")
    return request
  }

  /// How long the body is.
  static func framing(_ request: inout HTTPRequest) throws(HTTPDefect) -> Framing {
    let lengths = request.headers.filter { $0.name == "content-length" }
    let codings = request.headers.filter { $0.name == "transfer-encoding" }
    if let expected = request.header("expect"), expected.lowercased() != "100-continue" {
      throw HTTPDefect(417, "nothing but 100-continue can be expected")
    }
    if let coding = codings.first {
      guard lengths.isEmpty else { throw HTTPDefect(400, "Content-Length and Transfer-Encoding exclude each other") }
      guard codings.count == 1, coding.value.lowercased() == "chunked" else {
        throw HTTPDefect(501, "of transfer codings chunked is known, and no other")
      }
      return .chunked
    }
    guard let length = lengths.first else { return .length(0) }
    guard lengths.count == 1, !length.value.isEmpty, length.value.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
      throw HTTPDefect(400, "Content-Length is not one number")
    }
    guard let count = Int(length.value), count <= HTTPParser.bodyLimit else { throw HTTPParser.tooLong }
    return .length(count)
  }

  /// Hexadecimal digits, and extensions behind a ";".
  static func chunkSize(_ line: ArraySlice<UInt8>) throws(HTTPDefect) -> Int {
    let digits = line.prefix { $0 != 0x3b && $0 != 0x20 && $0 != 0x09 }
    guard (1...8).contains(digits.count), digits.allSatisfy({ hexValue($0) != nil }) else {
      throw HTTPDefect(400, "a chunk's size is not a hexadecimal number")
    }
    let size = digits.reduce(0) { $0 << 4 | Int(hexValue($1) ?? 0) }
    guard size <= HTTPParser.bodyLimit else { throw HTTPParser.tooLong }
    return size
  }

  private static func lines(_ head: ArraySlice<UInt8>) -> ArraySlice<ArraySlice<UInt8>> {
    var lines: [ArraySlice<UInt8>] = []
    var rest = head
    while let place = rest.indices.first(where: { rest[$0] == 0x0d && rest[$0...].dropFirst().first == 0x0a }) {
      lines.append(rest[..<place])
      rest = rest[place...].dropFirst(2)
    }
    return lines[...] + [rest]
  }

  private static func field(_ line: ArraySlice<UInt8>) throws(HTTPDefect) -> HTTPRequest.Field {
    guard let colon = line.firstIndex(of: 0x3a), isToken(line[..<colon]) else {
      throw HTTPDefect(400, "a header is not NAME: VALUE")
    }
    let value = line[colon...].dropFirst()
    guard value.allSatisfy({ $0 >= 0x20 && $0 != 0x7f || $0 == 0x09 }) else {
      throw HTTPDefect(400, "a header has a control character in it")
    }
    return .init(String(decoding: line[..<colon], as: UTF8.self).lowercased(), trimmed(Array(value)))
  }

  private static func trimmed(_ bytes: [UInt8]) -> String {
    let isBlank: (UInt8) -> Bool = { $0 == 0x20 || $0 == 0x09 }
    var rest = bytes[...].drop(while: isBlank)
    while let last = rest.last, isBlank(last) { rest.removeLast() }
    return String(decoding: rest, as: UTF8.self)
  }

  /// `/path?query`, or a whole URL as proxies are asked.
  private static func target(_ bytes: ArraySlice<UInt8>, method: String) throws(HTTPDefect) -> HTTPRequest {
    let defect = HTTPDefect(400, "the request's target is neither /PATH nor http://HOST/PATH")
    guard bytes.allSatisfy({ (0x21...0x7e).contains($0) }) else { throw defect }
    var rest = bytes
    let scheme = Array("http://".utf8)
    if rest.starts(with: scheme) {
      rest = rest.dropFirst(scheme.count).drop { $0 != 0x2f && $0 != 0x3f }
      if rest.first != 0x2f { rest = [0x2f] + rest }
    }
    guard rest.first == 0x2f else { throw defect }
    rest = rest.prefix { $0 != 0x23 }
    let path = rest.prefix { $0 != 0x3f }
    guard let decoded = decodePercent(path) else { throw HTTPDefect(400, "the path has a % without two digits") }
    var request = HTTPRequest(method: method, path: decoded)
    for part in rest.dropFirst(path.count + 1).split(separator: 0x26) {
      let raw = part.prefix { $0 != 0x3d }
      guard let name = decodePercent(raw), let value = decodePercent(part.dropFirst(raw.count + 1)) else {
        throw HTTPDefect(400, "the query has a % without two digits")
      }
      request.query.append(.init(name, value))
    }
    return request
  }

  private static func decodePercent(_ bytes: ArraySlice<UInt8>) -> String? {
    var decoded: [UInt8] = []
    var rest = bytes
    while let byte = rest.popFirst() {
      guard byte == 0x25 else {
        decoded.append(byte)
        continue
      }
      guard let high = rest.popFirst().flatMap(hexValue), let low = rest.popFirst().flatMap(hexValue) else {
        return nil
      }
      decoded.append(high << 4 | low)
    }
    return String(decoding: decoded, as: UTF8.self)
  }

  /// RFC 9110, 5.6.2.
  private static func isToken(_ bytes: ArraySlice<UInt8>) -> Bool {
    !bytes.isEmpty
      && bytes.allSatisfy { byte in
        (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
          || "!#$%&'*+-.^_`|~".utf8.contains(byte)
      }
  }
}

/// Of a hexadecimal digit.
public func hexValue(_ digit: UInt8) -> UInt8? {
  switch digit {
  case 0x30...0x39: digit - 0x30
  case 0x41...0x46: digit - 0x41 + 10
  case 0x61...0x66: digit - 0x61 + 10
  default: nil
  }
}
