import CLinux
import LinuxSystem
import Netfilter

/// Sockets at which nfnetlink_queue hands out packets that rules have sent to a queue.
///
/// A queue belongs to the socket that bound it (its port id), and so to every process with a descriptor of it. To read packets
/// no right is needed; to give verdicts CAP_NET_ADMIN, checked of the very process that sends the message
/// (netlink_net_capable in net/netlink/af_netlink.c). Nothing fails open: what nobody reads fills the queue, and behind it
/// the kernel drops.
public enum CaptureSocket {
  /// One queue of the network namespace.
  public struct Queue: Hashable, Sendable {
    public var number: UInt16
    /// TCP's super-packets come whole and with their checksums undone (NFQA_CFG_F_GSO). Without it the kernel divides
    /// them, as it must with UDP: how long its datagrams were, no attribute says.
    public var takesSuperPackets: Bool

    public init(_ number: UInt16, takesSuperPackets: Bool) {
      self.number = number
      self.takesSuperPackets = takesSuperPackets
    }
  }

  /// Packets that wait in the kernel for a verdict, at most; and bytes that wait for a reader.
  private static let lengthLimit: UInt32 = 4096
  private static let receiveBuffer: Int32 = 16 << 20

  /// Binds the queues to one new socket.
  /// - Throws: EPROTONOSUPPORT or EINVAL where the kernel has no nfnetlink_queue, EPERM without CAP_NET_ADMIN, EBUSY where
  ///   a queue is another socket's.
  public static func open(_ queues: [Queue]) throws(NetlinkError) -> FileReference {
    var socket = try NetlinkSocket(NETLINK_NETFILTER)
    for queue in queues { try socket.request(bind(queue)) }
    do throws(SystemError) {
      let file = try socket.duplicate()
      // What is lost is lost; being told of it instead of getting the next packet helps nobody.
      _ = clinux_set_option(file.rawValue, Int32(CLINUX_SOL_NETLINK), Int32(CLINUX_NETLINK_NO_ENOBUFS), 1)
      _ = clinux_set_option(file.rawValue, SOL_SOCKET, SO_RCVBUFFORCE, receiveBuffer)
      return file
    } catch {
      throw NetlinkError("bind packet queues", error)
    }
  }

  /// Whether any process of this network namespace has the queue.
  public static func isBound(_ queue: UInt16) -> Bool {
    guard let text = try? readText("/proc/thread-self/net/netfilter/nfnetlink_queue") else { return false }
    return text.split(separator: "\n").contains { $0.split(separator: " ").first == "\(queue)" }
  }

  static func bind(_ queue: Queue) -> NetlinkMessage {
    var attributes: [NetlinkAttribute] = [
      // struct nfqnl_msg_config_cmd: NFQNL_CFG_CMD_BIND, padding, no family.
      NetlinkAttribute(UInt16(NFQA_CFG_CMD.rawValue), .bytes([UInt8(NFQNL_CFG_CMD_BIND.rawValue), 0, 0, 0])),
      // struct nfqnl_msg_config_params: range, mode.
      NetlinkAttribute(
        UInt16(NFQA_CFG_PARAMS.rawValue), .bytes([0, 0, 0xff, 0xff, UInt8(NFQNL_COPY_PACKET.rawValue)])),
      .bigEndian(UInt16(NFQA_CFG_QUEUE_MAXLEN.rawValue), lengthLimit),
    ]
    // A queue may have been left with flags by an earlier owner of this socket's port id: all are said.
    attributes += [
      .bigEndian(UInt16(NFQA_CFG_MASK.rawValue), UInt32(NFQA_CFG_F_GSO | NFQA_CFG_F_FAIL_OPEN)),
      .bigEndian(UInt16(NFQA_CFG_FLAGS.rawValue), UInt32(queue.takesSuperPackets ? NFQA_CFG_F_GSO : 0)),
    ]
    return NetlinkMessage(
      type: UInt16(CLINUX_QUEUE_CONFIG), flags: 0,
      header: [0, 0, UInt8(queue.number >> 8), UInt8(queue.number & 0xff)], attributes: attributes,
      label: "bind packet queue \(queue.number)")
  }

  /// What this kernel must have, in the words of its configuration, where `error` says that it has not.
  public static func missing(_ error: NetlinkError) -> String? {
    switch error.errno {
    case EPROTONOSUPPORT, EINVAL:
      "the kernel has no nfnetlink_queue (CONFIG_NETFILTER_NETLINK_QUEUE; modprobe nfnetlink_queue)"
    case EBUSY: "another program has that packet queue"
    default: nil
    }
  }
}

/// One message of nfnetlink_queue, read where it lies. Reading is total: whatever the bytes, there is a value or nil.
public struct CapturedPacket: Equatable, Sendable {
  public var queue: UInt16
  /// What a verdict names it by.
  public var id: UInt32
  /// The transport's checksum is still to be put in; the field has the sum of the pseudo-header.
  public var needsChecksum = false
  /// It is a super-packet of TCP, longer than a segment.
  public var isSuperPacket = false
  /// Nobody has looked at its checksum yet.
  public var isUnverified = false
  /// Where in the message the packet is; empty where it was longer than a message can be.
  public var payload: Range<Int>

  /// - Parameter message: one datagram of the socket; only its first message is looked at, and there is only one.
  public init?(_ message: UnsafeRawBufferPointer) {
    // struct nlmsghdr, struct nfgenmsg.
    guard message.count >= 20, Int(message.loadUnaligned(as: UInt32.self)) <= message.count,
      message.loadUnaligned(fromByteOffset: 4, as: UInt16.self) == UInt16(CLINUX_QUEUE_PACKET)
    else { return nil }
    let end = Int(message.loadUnaligned(as: UInt32.self))
    guard end >= 20 else { return nil }
    queue = UInt16(bigEndian: message.loadUnaligned(fromByteOffset: 18, as: UInt16.self))
    var id: UInt32?
    var place = 0..<0
    var whole: Int?
    var offset = 20
    while end - offset >= 4 {
      let length = Int(message.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      guard length >= 4, length <= end - offset else { return nil }
      let type = message.loadUnaligned(fromByteOffset: offset + 2, as: UInt16.self) & 0x3fff
      func number() -> UInt32? {
        length >= 8 ? UInt32(bigEndian: message.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self)) : nil
      }
      switch UInt32(type) {
      case NFQA_PACKET_HDR.rawValue: id = number()
      case NFQA_PAYLOAD.rawValue: place = offset + 4..<offset + length
      case NFQA_CAP_LEN.rawValue: whole = number().map { Int($0) }
      case NFQA_SKB_INFO.rawValue:
        let info = number() ?? 0
        needsChecksum = info & UInt32(NFQA_SKB_CSUMNOTREADY) != 0
        isSuperPacket = info & UInt32(NFQA_SKB_GSO) != 0
        isUnverified = info & UInt32(NFQA_SKB_CSUM_NOTVERIFIED) != 0
      default: break
      }
      offset += (length + 3) & ~3
    }
    guard let id else { return nil }
    self.id = id
    payload = whole.map { $0 == place.count } ?? true ? place : 0..<0
  }
}
