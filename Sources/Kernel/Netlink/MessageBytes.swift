import CLinux
import CMnl
import Netfilter

/// Requests as the bytes that a netlink socket takes, put together by libmnl.
public enum MessageBytes {
  /// One datagram of all the messages, numbered from `firstSequence`. NLM_F_REQUEST is added to each.
  /// - Returns: nil where an attribute is longer than its 16-bit length can say.
  public static func encode(_ messages: [NetlinkMessage], firstSequence: UInt32) -> [UInt8]? {
    // libmnl wants room for the longest message behind the batch's limit (mnl_nlmsg_batch_start).
    let total = messages.reduce(0) { $0 + size($1) }
    var complete = true
    let bytes = [UInt8](unsafeUninitializedCapacity: 2 * total + 64) { buffer, count in
      count = 0
      guard let base = buffer.baseAddress, let batch = mnl_nlmsg_batch_start(base, total + 32) else {
        complete = false
        return
      }
      defer { mnl_nlmsg_batch_stop(batch) }
      for (index, message) in messages.enumerated() {
        guard let place = mnl_nlmsg_batch_current(batch) else { break }
        complete = put(message, at: place, limit: size(message), firstSequence &+ UInt32(index)) && complete
        complete = mnl_nlmsg_batch_next(batch) && complete
      }
      count = mnl_nlmsg_batch_size(batch)
    }
    return complete ? bytes : nil
  }

  private static func put(
    _ message: NetlinkMessage, at place: UnsafeMutableRawPointer, limit: Int, _ sequence: UInt32
  ) -> Bool {
    guard let header = mnl_nlmsg_put_header(place) else { return false }
    header.pointee.nlmsg_type = message.type
    header.pointee.nlmsg_flags = message.flags | UInt16(NLM_F_REQUEST)
    header.pointee.nlmsg_seq = sequence
    if let extra = mnl_nlmsg_put_extra_header(header, message.header.count) {
      extra.copyMemory(from: message.header, byteCount: message.header.count)
    }
    return put(message.attributes, header, limit)
  }

  private static func put(
    _ attributes: [NetlinkAttribute], _ header: UnsafeMutablePointer<nlmsghdr>, _ limit: Int
  ) -> Bool {
    for attribute in attributes {
      guard size(attribute) <= Int(UInt16.max) else { return false }
      switch attribute.value {
      case .bytes(let bytes):
        guard mnl_attr_put_check(header, limit, attribute.type, bytes.count, bytes) else { return false }
      case .string(let text):
        guard mnl_attr_put_strz_check(header, limit, attribute.type, text) else { return false }
      case .nested(let inner):
        guard let nest = mnl_attr_nest_start_check(header, limit, attribute.type) else { return false }
        guard put(inner, header, limit) else { return false }
        mnl_attr_nest_end(header, nest)
      }
    }
    return true
  }

  private static func align(_ count: Int) -> Int { (count + 3) & ~3 }

  private static func size(_ message: NetlinkMessage) -> Int {
    MemoryLayout<nlmsghdr>.size + align(message.header.count) + message.attributes.reduce(0) { $0 + size($1) }
  }

  private static func size(_ attribute: NetlinkAttribute) -> Int {
    switch attribute.value {
    case .bytes(let bytes): 4 + align(bytes.count)
    case .string(let text): 4 + align(text.utf8.count + 1)
    case .nested(let inner): inner.reduce(4) { $0 + size($1) }
    }
  }
}
