import CLinux
import CMnl

/// One message of the kernel. Reading it is total: whatever the bytes, there is a value or nil, never a trap.
public struct ReceivedMessage: Equatable, Sendable {
  public var type: UInt16
  public var flags: UInt16
  public var sequence: UInt32
  public var payload: [UInt8]

  public init(type: UInt16, flags: UInt16, sequence: UInt32, payload: [UInt8]) {
    self.type = type
    self.flags = flags
    self.sequence = sequence
    self.payload = payload
  }

  /// The messages of one datagram, up to the first that is not whole.
  public static func all(in datagram: [UInt8]) -> [ReceivedMessage] {
    var messages: [ReceivedMessage] = []
    datagram.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      var offset = 0
      // Walked by offset: mnl_nlmsg_next may step past the end where the last message has no padding.
      while offset < buffer.count {
        let header = (base + offset).assumingMemoryBound(to: nlmsghdr.self)
        let left = Int32(clamping: buffer.count - offset)
        // mnl_nlmsg_ok takes lengths from 2^31 on for negative ones, which are shorter than anything.
        guard mnl_nlmsg_ok(header, left), header.pointee.nlmsg_len <= UInt32(left),
          let start = mnl_nlmsg_get_payload(header)
        else { return }
        let payload = UnsafeRawBufferPointer(start: start, count: mnl_nlmsg_get_payload_len(header))
        messages.append(
          ReceivedMessage(
            type: header.pointee.nlmsg_type, flags: header.pointee.nlmsg_flags, sequence: header.pointee.nlmsg_seq,
            payload: Array(payload)))
        offset += (Int(header.pointee.nlmsg_len) + 3) & ~3
      }
    }
    return messages
  }

  /// The first `MemoryLayout<T>.size` bytes as the C structure that the message's type starts with.
  func header<T: BitwiseCopyable>(as type: T.Type) -> T? {
    payload.count >= MemoryLayout<T>.size ? payload.withUnsafeBytes { $0.loadUnaligned(as: T.self) } : nil
  }

  /// The attributes after `offset` bytes of payload.
  func attributes(after offset: Int) -> Attributes { Attributes(payload, after: offset) }
}

/// The attributes of a message; of several with one type the last counts, as in the kernel (nla_parse).
struct Attributes {
  /// In the message's order. A link has about fifty and is asked for two or three, so no dictionary.
  private var values: [Attribute] = []

  private struct Attribute {
    var type: UInt16
    var value: [UInt8]
  }

  /// Reads up to the first attribute that is not whole.
  init(_ bytes: [UInt8], after start: Int) {
    bytes.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      var offset = (start + 3) & ~3
      while offset < buffer.count {
        let attribute = (base + offset).assumingMemoryBound(to: nlattr.self)
        let left = Int32(clamping: buffer.count - offset)
        guard mnl_attr_ok(attribute, left), let value = mnl_attr_get_payload(attribute) else { return }
        values.append(
          Attribute(
            type: mnl_attr_get_type(attribute),
            value: Array(UnsafeRawBufferPointer(start: value, count: Int(mnl_attr_get_payload_len(attribute))))))
        offset += (Int(mnl_attr_get_len(attribute)) + 3) & ~3
      }
    }
  }

  func bytes(_ type: some BinaryInteger) -> [UInt8]? {
    let type = UInt16(truncatingIfNeeded: type)
    return values.last { $0.type == type }?.value
  }

  /// A number of the machine's order, exactly as long as `T`.
  func number<T: FixedWidthInteger>(_ type: some BinaryInteger, as: T.Type = T.self) -> T? {
    guard let value = bytes(type), value.count == MemoryLayout<T>.size else { return nil }
    return value.withUnsafeBytes { $0.loadUnaligned(as: T.self) }
  }

  /// Text up to its NUL.
  func string(_ type: some BinaryInteger) -> String? {
    bytes(type).map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }
}
