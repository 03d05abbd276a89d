import CHTTP2
import DNS
import Policy
import Upstreams

/// What came of a query on a connection.
enum UpstreamReply {
  /// With its id.
  case response(DNSMessage)
  /// The server has not taken this query, or has answered with something else than DNS; the sentence says what.
  case failure(UInt16, String)
}

/// How queries stand on a connection, inside TLS or without it.
protocol UpstreamProtocol: AnyObject {
  /// - Returns: false where this connection takes no more.
  func submit(_ query: DNSMessage) -> Bool
  /// Takes what came.
  func feed(_ bytes: [UInt8]) throws(TLSFailure) -> [UpstreamReply]
  /// What is to be sent.
  func drain() throws(TLSFailure) -> [UInt8]
}

/// DNS over TCP and TLS: each message behind its length, answers in any order (RFC 7766, RFC 7858).
final class LengthProtocol: UpstreamProtocol {
  private var framing = LengthFraming()
  private var output: [UInt8] = []

  func submit(_ query: DNSMessage) -> Bool {
    guard let frame = LengthFraming.frame(query.bytes) else { return false }
    output += frame
    return true
  }

  func feed(_ bytes: [UInt8]) throws(TLSFailure) -> [UpstreamReply] {
    var replies: [UpstreamReply] = []
    for message in framing.feed(bytes) {
      guard let response = DNSMessage(message), response.isResponse else {
        throw TLSFailure(reason: "the server sent something that is no DNS response")
      }
      replies.append(.response(response))
    }
    return replies
  }

  func drain() throws(TLSFailure) -> [UInt8] {
    defer { output = [] }
    return output
  }
}

/// DNS over HTTPS: a POST each on one connection of HTTP/2 (RFC 8484).
final class HTTP2Protocol: UpstreamProtocol {
  /// What the callback of C finds.
  private final class Collector {
    var ids: [Int32: UInt16] = [:]
    var replies: [UpstreamReply] = []

    func ended(_ stream: Int32, _ status: Int32, _ body: UnsafeBufferPointer<UInt8>) {
      guard let id = ids.removeValue(forKey: stream) else { return }
      guard status == 200 else {
        let what = status == 0 ? "the server has ended a request without a response" : "HTTP status \(status)"
        return replies.append(.failure(id, what))
      }
      guard var response = DNSMessage(Array(body)), response.isResponse else {
        return replies.append(.failure(id, "the response is not application/dns-message, or no DNS response"))
      }
      response.id = id
      replies.append(.response(response))
    }
  }

  private let connection: OpaquePointer
  private let collector = Collector()
  private let server: UpstreamServer

  init(_ server: UpstreamServer) throws(TLSFailure) {
    self.server = server
    // The collector lives as long as the connection: both are ours.
    let context = Unmanaged.passUnretained(collector).toOpaque()
    let opened = chttp2_open(context) { context, stream, status, body, size in
      guard let context else { return }
      Unmanaged<Collector>.fromOpaque(context).takeUnretainedValue().ended(
        stream, status, UnsafeBufferPointer(start: body, count: size))
    }
    guard let opened else { throw TLSFailure(reason: "no memory is left") }
    connection = opened
  }

  deinit { chttp2_close(connection) }

  /// With id 0, as section 4.1 has it: nobody on the other side needs one, and caches there can use it.
  func submit(_ query: DNSMessage) -> Bool {
    guard chttp2_is_open(connection) else { return false }
    var asked = query
    asked.id = 0
    let stream = chttp2_post(connection, server.authority, server.path, asked.bytes, asked.bytes.count)
    guard stream > 0 else { return false }
    collector.ids[stream] = query.id
    return true
  }

  func feed(_ bytes: [UInt8]) throws(TLSFailure) -> [UpstreamReply] {
    guard chttp2_feed(connection, bytes, bytes.count) else { throw failure }
    defer { collector.replies = [] }
    return collector.replies
  }

  func drain() throws(TLSFailure) -> [UInt8] {
    var output: [UInt8] = []
    while true {
      var bytes: UnsafePointer<UInt8>?
      let count = chttp2_drain(connection, &bytes)
      guard count >= 0 else { throw failure }
      if count == 0 { return output }
      output += UnsafeBufferPointer(start: bytes, count: count)
    }
  }

  private var failure: TLSFailure { TLSFailure(reason: "HTTP/2: \(String(cString: chttp2_reason(connection)))") }
}
