/// One request, taken apart.
public struct HTTPRequest: Equatable, Sendable {
  public var method: String
  /// Without the query, percent-decoded.
  public var path: String
  /// In the order in which they came, percent-decoded; a "+" is a "+", since base64 has it.
  public var query: [Field] = []
  /// Names in small letters.
  public var headers: [Field] = []
  public var body: [UInt8] = []
  /// Whether the client may send another one on this connection.
  public var keepsAlive = true

  public struct Field: Equatable, Sendable {
    public var name: String
    public var value: String

    public init(_ name: String, _ value: String) {
      self.name = name
      self.value = value
    }
  }

  public init(method: String, path: String) {
    self.method = method
    self.path = path
  }

  /// - Parameter name: in small letters.
  public func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }
}

/// Why bytes are no request that is served, with the status that says so. The connection ends with it.
public struct HTTPDefect: Error, Equatable, Sendable {
  public var status: Int
  public var sentence: String

  public init(_ status: Int, _ sentence: String) {
    self.status = status
    self.sentence = sentence
  }
}

public struct HTTPResponse: Equatable, Sendable {
  public var status: Int
  public var contentType: String
  public var body: [UInt8]
  /// Further headers.
  public var headers: [HTTPRequest.Field] = []

  public init(_ status: Int, _ contentType: String, _ body: [UInt8]) {
    self.status = status
    self.contentType = contentType
    self.body = body
  }

  /// A sentence with a line feed behind it.
  public init(_ status: Int, _ sentence: String) {
    self.init(status, "text/plain; charset=utf-8", Array((sentence + "\n").utf8))
  }

  /// - Parameter closes: no other response follows on this connection.
  public func bytes(closes: Bool) -> [UInt8] {
    var head = "HTTP/1.1 \(status) \(Self.reason(status))\r\nContent-Type: \(contentType)\r\n"
    head += "Content-Length: \(body.count)\r\nCache-Control: no-store\r\n"
    for field in headers { head += "\(field.name): \(field.value)\r\n" }
    if closes { head += "Connection: close\r\n" }
    return Array((head + "\r\n").utf8) + body
  }

  /// The answer to "Expect: 100-continue".
  public static let goOn = Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)

  private static func reason(_ status: Int) -> String {
    switch status {
    case 200: "OK"
    case 400: "Bad Request"
    case 403: "Forbidden"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 408: "Request Timeout"
    case 409: "Conflict"
    case 413: "Content Too Large"
    case 417: "Expectation Failed"
    case 429: "Too Many Requests"
    case 431: "Request Header Fields Too Large"
    case 501: "Not Implemented"
    case 502: "Bad Gateway"
    case 503: "Service Unavailable"
    case 505: "HTTP Version Not Supported"
    default: "Error"
    }
  }
}
