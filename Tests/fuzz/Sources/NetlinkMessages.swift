import CLinux

@testable import Netlink

/// What the kernel says over netlink: messages, their attributes, packets of a queue.
let netlink = Harness("netlink") { bytes in
  for message in ReceivedMessage.all(in: bytes) {
    let attributes = message.attributes(after: Int(message.flags & 31))
    for type in 0..<24 {
      _ = attributes.number(type, as: UInt32.self)
      _ = attributes.string(type)
    }
    _ = message.header(as: nlmsghdr.self)
  }
  bytes.withUnsafeBytes { buffer in
    guard let packet = CapturedPacket(buffer) else { return }
    check(
      packet.payload.lowerBound >= 0 && packet.payload.upperBound <= buffer.count, "a packet outside of its message")
  }
}
