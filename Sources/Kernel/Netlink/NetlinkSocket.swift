import CLinux
import CMnl
import LinuxSystem
import Netfilter

/// A netlink socket for requests and their answers: blocking, one request at a time, never waiting longer than
/// `timeout`.
///
/// Answers are matched by sequence number, so what is left of an earlier, failed request is not taken for an answer.
public struct NetlinkSocket: ~Copyable {
  /// The most to wait for an answer, in seconds. The kernel answers before `send` returns, except for dumps.
  static let timeout = 5

  private let socket: OpaquePointer
  private var sequence: UInt32
  private var buffer: [UInt8]

  /// - Parameters:
  ///   - netlinkFamily: NETLINK_ROUTE, NETLINK_NETFILTER.
  ///   - groups: multicast groups to listen to, a bit each (netlink(7)).
  /// - Throws: EPROTONOSUPPORT where the kernel has no such family. The C function is `mnl_socket_open2`.
  public init(_ netlinkFamily: Int32, groups: UInt32 = 0) throws(NetlinkError) {
    let label = "open netlink socket"
    var opened: OpaquePointer?
    do throws(SystemError) {
      try checkErrno("socket", "AF_NETLINK") { () -> Int in
        opened = mnl_socket_open2(netlinkFamily, Int32(SOCK_CLOEXEC.rawValue))
        return opened == nil ? -1 : 0
      }
      guard let opened else { throw SystemError("socket", "AF_NETLINK", errno: EINVAL) }
      do throws(SystemError) {
        try checkErrno("bind", "AF_NETLINK") { mnl_socket_bind(opened, groups, MNL_SOCKET_AUTOPID) }
        var limit = timeval(tv_sec: Self.timeout, tv_usec: 0)
        try checkErrno("setsockopt", "SO_RCVTIMEO") {
          setsockopt(
            mnl_socket_get_fd(opened), SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
      } catch {
        mnl_socket_close(opened)
        throw error
      }
      socket = opened
    } catch {
      throw NetlinkError(label, error)
    }
    // Older kernels (before 4.12 and 4.2) lack these two: then errors have no words, and carry the request along.
    var on: Int32 = 1
    for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK] {
      _ = mnl_socket_setsockopt(socket, option, &on, socklen_t(MemoryLayout<Int32>.size))
    }
    sequence = 1
    // The kernel fills at most 32 KiB at a time in dumps (NLMSG_GOODSIZE and min_dump_alloc, af_netlink.c); acks with
    // the request inside may be longer.
    buffer = Array(repeating: 0, count: 65536)
  }

  deinit { mnl_socket_close(socket) }

  /// Another descriptor of the same socket, which has the same port id and outlives this value.
  func duplicate() throws(SystemError) -> FileReference {
    FileReference(
      OwnedFileDescriptor(try checkErrno("fcntl", "F_DUPFD_CLOEXEC") { clinux_dup_cloexec(mnl_socket_get_fd(socket)) }))
  }

  /// One request, until the kernel has said that it is done.
  public mutating func request(_ message: NetlinkMessage) throws(NetlinkError) {
    try exchange([message], last: 0)
  }

  /// The messages of one nfnetlink batch, its begin and end included, as one datagram. The kernel answers what fails
  /// whether asked or not; that all has been done is asked of the last message before the end, because kernels before
  /// 6.10 do not acknowledge the end.
  public mutating func transaction(_ batch: [NetlinkMessage]) throws(NetlinkError) {
    guard batch.count > 2 else { return }
    try exchange(batch, last: batch.count - 2)
  }

  private mutating func exchange(_ messages: [NetlinkMessage], last: Int) throws(NetlinkError) {
    var messages = messages
    messages[last].flags |= UInt16(NLM_F_ACK)
    let first = try send(messages)
    while true {
      for answer in try receive(messages[last].label) {
        let index = Int(answer.sequence &- first)
        guard messages.indices.contains(index), answer.type == UInt16(NLMSG_ERROR) else { continue }
        try Self.throwError(in: answer, messages[index].label)
        if index == last { return }
      }
    }
  }

  /// A request with one message as its answer.
  public mutating func answer(to message: NetlinkMessage) throws(NetlinkError) -> ReceivedMessage {
    let first = try send([message])
    while true {
      for answer in try receive(message.label) where answer.sequence == first {
        guard answer.type == UInt16(NLMSG_ERROR) else { return answer }
        try Self.throwError(in: answer, message.label)
      }
    }
  }

  /// All answers to a dump request. A dump that changed under the kernel's hands (NLM_F_DUMP_INTR) is asked for again.
  public mutating func dump(_ message: NetlinkMessage) throws(NetlinkError) -> [ReceivedMessage] {
    var message = message
    message.flags |= UInt16(NLM_F_DUMP)
    for _ in 0..<8 {
      let first = try send([message])
      var answers: [ReceivedMessage] = []
      var done = false
      var interrupted = false
      while !done {
        for answer in try receive(message.label) where answer.sequence == first {
          if answer.flags & UInt16(NLM_F_DUMP_INTR) != 0 { interrupted = true }
          switch Int32(answer.type) {
          case NLMSG_ERROR: try Self.throwError(in: answer, message.label)
          case NLMSG_DONE:
            // The end carries the dump's own error (netlink_dump_done).
            if let code = answer.header(as: Int32.self), code < 0 {
              throw NetlinkError(message.label, errno: 0 &- code)
            }
            done = true
          default: answers.append(answer)
          }
        }
      }
      if !interrupted { return answers }
    }
    throw NetlinkError(message.label, errno: EINTR, explanation: "the list kept changing while it was read")
  }

  // MARK: -

  /// - Returns: the first message's sequence number.
  private mutating func send(_ messages: [NetlinkMessage]) throws(NetlinkError) -> UInt32 {
    let label = messages.count == 1 ? messages[0].label : "send netlink messages"
    let first = sequence
    sequence &+= UInt32(clamping: messages.count)
    guard let bytes = MessageBytes.encode(messages, firstSequence: first) else {
      throw NetlinkError(label, errno: EMSGSIZE)
    }
    let raw = socket
    // A datagram must fit the send buffer as a whole; the default of 208 KiB is about 700 rules. Needs CAP_NET_ADMIN,
    // as the request does; where it fails, sending says why.
    if bytes.count > 65536 {
      var size = Int32(clamping: 2 * bytes.count)
      setsockopt(mnl_socket_get_fd(raw), SOL_SOCKET, SO_SNDBUFFORCE, &size, socklen_t(MemoryLayout<Int32>.size))
    }
    do {
      try checkErrno("sendto") { mnl_socket_sendto(raw, bytes, bytes.count) }
    } catch {
      throw NetlinkError(label, error)
    }
    return first
  }

  private mutating func receive(_ label: String) throws(NetlinkError) -> [ReceivedMessage] {
    let raw = socket
    do {
      let count = try checkErrno("recvmsg") {
        buffer.withUnsafeMutableBytes { mnl_socket_recvfrom(raw, $0.baseAddress, $0.count) }
      }
      return ReceivedMessage.all(in: Array(buffer[..<min(count, buffer.count)]))
    } catch {
      guard error.errno == EAGAIN else { throw NetlinkError(label, error) }
      throw NetlinkError(label, errno: ETIMEDOUT, explanation: "no answer for \(Self.timeout) s")
    }
  }

  /// struct nlmsgerr: the negative errno, the request's header, the request itself unless NLM_F_CAPPED is set, then
  /// attributes where NLM_F_ACK_TLVS says so.
  static func throwError(in message: ReceivedMessage, _ label: String) throws(NetlinkError) {
    guard let error = message.header(as: nlmsgerr.self) else {
      throw NetlinkError(label, errno: EBADMSG, explanation: "short netlink error")
    }
    guard error.error < 0 else { return }
    var explanation: String?
    if message.flags & UInt16(NLM_F_ACK_TLVS) != 0 {
      let capped = message.flags & UInt16(NLM_F_CAPPED) != 0
      let skipped = capped ? MemoryLayout<nlmsgerr>.size : 4 + Int(error.msg.nlmsg_len)
      explanation = message.attributes(after: skipped).string(NLMSGERR_ATTR_MSG.rawValue)
    }
    throw NetlinkError(label, errno: 0 &- error.error, explanation: explanation)
  }
}
