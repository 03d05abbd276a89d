import CLinux
import LinuxSystem
import PacketRelaying

// Theory of operation.
//
// A verdict on a queue's packets may be given only by a process with CAP_NET_ADMIN (netlink_net_capable asks it of the
// sender of each message, and not of the process that opened the socket), and the proxy, which parses what the host sends,
// is to have no right at all. So the packets and the verdicts part: the proxy reads packets, for which it needs no right, and writes into a
// pipe how far it has come; this process reads the pipe and tells the kernel. It has CAP_NET_ADMIN and nothing else, reads
// eight bytes at a time that have no length and no meaning but a number, and has one verdict to give: drop. What a proxy
// in other hands can do with it is to lose packets that it could lose anyway.

/// Drops what the proxy has copied; runs as a process of its own.
public enum VerdictKeeper {
  private static let batch = 512

  /// Until the pipe's other end is closed.
  /// - Parameter sockets: how many; their descriptors follow those that every process has and the pipe's, which is 3.
  public static func run(sockets: Int) {
    run(pipe: 3, sockets: (0..<sockets).map { 4 + Int32(truncatingIfNeeded: $0) })
  }

  static func run(pipe: Int32, sockets: [Int32]) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: batch * VerdictRecord.size, alignment: 8)
    defer { buffer.deallocate() }
    while true {
      let result = clinux_read(pipe, buffer.baseAddress, buffer.count)
      guard result > 0 else { return }
      var last: VerdictRecord?
      // A record is written whole, so none is cut; of a queue's in a row only the last counts.
      for offset in stride(from: 0, through: result - VerdictRecord.size, by: VerdictRecord.size) {
        let record = VerdictRecord(UnsafeRawBufferPointer(rebasing: buffer[offset...]))
        if let last, last.socket != record.socket || last.queue != record.queue { drop(last, sockets) }
        last = record
      }
      if let last { drop(last, sockets) }
    }
  }

  private static func drop(_ record: VerdictRecord, _ sockets: [Int32]) {
    guard sockets.indices.contains(Int(record.socket)) else { return }
    _ = clinux_queue_verdict(sockets[Int(record.socket)], record.queue, record.id, UInt32(CLINUX_NF_DROP), true)
  }
}
