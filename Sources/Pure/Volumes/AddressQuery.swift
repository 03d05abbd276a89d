import DNS
import Inet

/// A query for the addresses of one name, and what came of it.
public struct AddressQuery: Sendable {
  public var name: DomainName
  public var type: UInt16
  public var id: UInt16

  public init(_ name: DomainName, ipv6: Bool, id: UInt16) {
    self.name = name
    type = ipv6 ? 28 : 1
    self.id = id
  }

  public var bytes: [UInt8] {
    // RD, one question, class IN (RFC 1035 section 4.1).
    [UInt8(id >> 8), UInt8(id & 0xff), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0] + name.labels
      + [0, UInt8(type >> 8), UInt8(type & 0xff), 0, 1]
  }

  /// - Returns: nil for what is no response to this. Total over any bytes.
  public func addresses(_ response: [UInt8]) -> (addresses: [IPAddress], seconds: UInt32, code: UInt8)? {
    guard let message = DNSMessage(response), message.id == id, message.isResponse, let question = message.question,
      question.domain == name, question.type == type
    else { return nil }
    let rules = ResponseReview.Rules(isBarred: { _ in false }, removesHiding: false, ceiling: .max)
    guard let review = ResponseReview(message, to: question, rules) else { return ([], 0, message.code) }
    let seconds = review.addresses.reduce(UInt32.max) { min($0, $1.seconds) }
    return (review.addresses.map(\.address), seconds, message.code)
  }
}
