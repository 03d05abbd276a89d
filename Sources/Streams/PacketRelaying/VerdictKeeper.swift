import CLinux
import LinuxSystem

// Theory of operation.
//
// A verdict on a queue's packets may be given only by a process with CAP_NET_ADMIN (netlink_net_capable asks it of the
// sender of each message, and not of the process that opened the socket), and a process that parses what the other side
// sends is to have no right at all. So the packets and the verdicts part: the enclave's proxy and the host's side read
// packets, for which they need no right, and write into a pipe how far they have come; this process reads the pipe and tells
// the kernel. It has CAP_NET_ADMIN and nothing else, and reads eight bytes at a time that have no length and no meaning but
// numbers. What a proxy in other hands can do with it is to lose packets that it could lose anyway; a host side also to let
// packets to the enclave's ports pass to the host's own programs.

/// An order to the keeper of verdicts. 8 bytes in the machine's order, which a pipe takes whole.
public struct VerdictRecord: Equatable, Sendable {
  public enum Order: UInt8, Sendable {
    /// Throw away all of the queue's packets up to this one: copies of them are on their way.
    case drop
    /// Let this one pass: it is not the enclave's.
    case accept
    /// Nothing comes any more.
    case end
  }

  public static let size = 8

  public var queue: UInt16
  /// The queue's socket among those of the keeper.
  public var socket: UInt8
  /// An `Order`, unless the writer is in other hands.
  var order: UInt8
  public var id: UInt32

  public init(_ order: Order, socket: UInt8 = 0, queue: UInt16 = 0, id: UInt32 = 0) {
    self.order = order.rawValue
    self.socket = socket
    self.queue = queue
    self.id = id
  }

  /// - Parameter bytes: at least `size`.
  public init(_ bytes: UnsafeRawBufferPointer) {
    queue = bytes.loadUnaligned(as: UInt16.self)
    socket = bytes.loadUnaligned(fromByteOffset: 2, as: UInt8.self)
    order = bytes.loadUnaligned(fromByteOffset: 3, as: UInt8.self)
    id = bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
  }

  public func send(_ pipe: Int32) {
    var word: UInt64 = 0
    withUnsafeMutableBytes(of: &word) {
      $0.storeBytes(of: queue, as: UInt16.self)
      $0.storeBytes(of: socket, toByteOffset: 2, as: UInt8.self)
      $0.storeBytes(of: order, toByteOffset: 3, as: UInt8.self)
      $0.storeBytes(of: id, toByteOffset: 4, as: UInt32.self)
    }
    _ = withUnsafeBytes(of: word) { clinux_write(pipe, $0.baseAddress, $0.count) }
  }
}

/// Gives the verdicts; runs as a process of its own.
public enum VerdictKeeper {
  private static let batch = 512

  /// The enclave's: all that is captured there is copied, so that it drops and does nothing else.
  /// - Parameter sockets: how many; their descriptors follow those that every process has and the pipe's, which is 3.
  public static func run(sockets: Int) {
    run(pipe: 3, sockets: (0..<sockets).map { 4 + Int32(truncatingIfNeeded: $0) })
  }

  /// Until the pipe's other end is closed.
  /// - Parameter onlyDrops: the other orders are passed over.
  public static func run(pipe: Int32, sockets: [Int32], onlyDrops: Bool = true) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: batch * VerdictRecord.size, alignment: 8)
    defer { buffer.deallocate() }
    while true {
      let result = clinux_read(pipe, buffer.baseAddress, buffer.count)
      guard result > 0 else { return }
      var last: VerdictRecord?
      // A record is written whole, so none is cut; of a queue's in a row only the last counts.
      for offset in stride(from: 0, through: result - VerdictRecord.size, by: VerdictRecord.size) {
        let record = VerdictRecord(UnsafeRawBufferPointer(rebasing: buffer[offset...]))
        switch VerdictRecord.Order(rawValue: record.order) {
        case .drop:
          if let last, last.socket != record.socket || last.queue != record.queue { give(last, sockets) }
          last = record
        // At once: it comes before the order that drops what was read before it.
        case .accept: if !onlyDrops { give(record, sockets) }
        case .end: if !onlyDrops { return }
        case nil: break
        }
      }
      if let last { give(last, sockets) }
    }
  }

  private static func give(_ record: VerdictRecord, _ sockets: [Int32]) {
    guard sockets.indices.contains(Int(record.socket)) else { return }
    let drops = record.order == VerdictRecord.Order.drop.rawValue
    _ = clinux_queue_verdict(
      sockets[Int(record.socket)], record.queue, record.id, UInt32(drops ? CLINUX_NF_DROP : CLINUX_NF_ACCEPT), drops)
  }
}
