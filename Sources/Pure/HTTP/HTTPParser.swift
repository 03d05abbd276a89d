// HTTP/1.1 (RFC 9112) as far as a server of small answers needs it: any bytes in any pieces give requests, or one defect with a
// status. What two readers could see differently is refused: a line without CR, folded headers, a length said twice, a length
// beside chunks.

/// Reads requests out of a connection's bytes.
public struct HTTPParser: Sendable {
  /// Of request line and headers together, in bytes.
  public static let headLimit = 8192
  public static let bodyLimit = 16384
  static let headerLimit = 100
  /// A chunk's line, with extensions; trailers.
  private static let lineLimit = 1024

  private var input: [UInt8] = []
  /// Where the search for a line's or a head's end goes on.
  private var searched = 0
  private var state = State.head

  private enum State: Sendable {
    case head
    case body(HTTPRequest, left: Int)
    case chunkLine(HTTPRequest)
    case chunk(HTTPRequest, left: Int)
    case chunkEnd(HTTPRequest)
    case trailers(HTTPRequest, left: Int)
  }

  public init() {}

  /// Bytes that came and belong to no finished request yet.
  public var held: Int { input.count + (body?.count ?? 0) }

  /// Something of a request is there.
  public var isAmidRequest: Bool { if case .head = state { !input.isEmpty } else { true } }

  private var body: [UInt8]? {
    switch state {
    case .head: nil
    case .body(let request, _), .chunkLine(let request), .chunk(let request, _), .chunkEnd(let request),
      .trailers(let request, _):
      request.body
    }
  }

  /// The client waits for a word before it sends a body; said once.
  public private(set) var awaitsContinue = false
  public mutating func continued() { awaitsContinue = false }

  public mutating func feed(_ bytes: [UInt8]) { input += bytes }

  /// The next request that is whole; nil where more must come.
  public mutating func next() throws(HTTPDefect) -> HTTPRequest? {
    while true {
      switch state {
      case .head:
        guard let head = try takeHead() else { return nil }
        var request = try HTTPHead.request(head)
        switch try HTTPHead.framing(&request) {
        case .length(0): return request
        case .length(let count):
          awaitsContinue = request.header("expect") != nil && input.isEmpty
          state = .body(request, left: count)
        case .chunked:
          awaitsContinue = request.header("expect") != nil && input.isEmpty
          state = .chunkLine(request)
        }
      case .body(var request, let left):
        guard input.count >= left else { return nil }
        take(left, into: &request.body)
        return finish(request)
      case .chunkLine(let request):
        guard let line = try takeLine() else { return nil }
        let size = try HTTPHead.chunkSize(line)
        guard request.body.count + size <= Self.bodyLimit else { throw Self.tooLong }
        state = size == 0 ? .trailers(request, left: Self.headLimit) : .chunk(request, left: size)
      case .chunk(var request, let left):
        guard input.count >= left else { return nil }
        take(left, into: &request.body)
        state = .chunkEnd(request)
      case .chunkEnd(let request):
        guard let line = try takeLine() else { return nil }
        guard line.isEmpty else { throw HTTPDefect(400, "a chunk is longer than it says") }
        state = .chunkLine(request)
      case .trailers(let request, let left):
        guard let line = try takeLine() else { return nil }
        if line.isEmpty { return finish(request) }
        guard line.count < left else { throw HTTPDefect(431, "the trailers are longer than \(Self.headLimit) bytes") }
        state = .trailers(request, left: left - line.count)
      }
    }
  }

  static let tooLong = HTTPDefect(413, "the body is longer than \(bodyLimit) bytes")

  private mutating func finish(_ request: HTTPRequest) -> HTTPRequest {
    state = .head
    awaitsContinue = false
    return request
  }

  private mutating func take(_ count: Int, into bytes: inout [UInt8]) {
    let taken = min(count, input.count)
    bytes += input.prefix(taken)
    input.removeFirst(taken)
    searched = 0
  }

  /// Without the empty line that ends it.
  private mutating func takeHead() throws(HTTPDefect) -> ArraySlice<UInt8>? {
    // RFC 9112, 2.2: an empty line before a request is passed over.
    while input.starts(with: [0x0d, 0x0a]) {
      input.removeFirst(2)
      searched = 0
    }
    let end: [UInt8] = [0x0d, 0x0a, 0x0d, 0x0a]
    guard let place = find(end) else {
      if input.count > Self.headLimit + 3 { throw Self.headTooLong }
      return nil
    }
    guard place <= Self.headLimit else { throw Self.headTooLong }
    let head = input[..<place]
    input.removeFirst(place + end.count)
    searched = 0
    return head
  }

  private static let headTooLong = HTTPDefect(431, "the request's head is longer than \(headLimit) bytes")

  private mutating func takeLine() throws(HTTPDefect) -> ArraySlice<UInt8>? {
    let tooLong = HTTPDefect(400, "a chunk's line is longer than \(Self.lineLimit) bytes")
    guard let place = find([0x0d, 0x0a]) else {
      // The line's end may be half there.
      if input.count > Self.lineLimit + 1 { throw tooLong }
      return nil
    }
    guard place <= Self.lineLimit else { throw tooLong }
    let line = input[..<place]
    input.removeFirst(place + 2)
    searched = 0
    return line
  }

  /// Each byte is looked at once, however small the pieces are in which they come.
  private mutating func find(_ end: [UInt8]) -> Int? {
    var place = searched
    while place + end.count <= input.count {
      if input[place...].starts(with: end) { return place }
      place += 1
    }
    searched = place
    return nil
  }
}
