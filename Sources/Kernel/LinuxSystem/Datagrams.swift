import CLinux
import Glibc
import Inet

/// Who has sent a datagram, as the kernel says it; of sockets of `openDatagramPort` also to which of our addresses.
public struct DatagramPeer: Sendable {
  var value: clinux_peer

  /// nil where it is neither of IPv4 nor of IPv6.
  public var endpoint: IPEndpoint? {
    var storage = sockaddr_storage()
    withUnsafeMutableBytes(of: &storage) { room in
      withUnsafeBytes(of: value.bytes) {
        room.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0.prefix(room.count)))
      }
    }
    return IPEndpoint(&storage)
  }

  /// The address to which it has sent; nil where the socket does not tell.
  public var local: IPAddress? {
    withUnsafeBytes(of: value.local) { IPAddress(bytes: Array($0.prefix(Int(value.local_length)))[...]) }
  }
}

/// Room for the datagrams that one call of the kernel brings; 2 MiB, of which the kernel gives what is used.
public final class DatagramRoom {
  public static let capacity = Int(CLINUX_DATAGRAMS)
  /// No datagram is longer.
  private static let each = 65536
  private let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity * each, alignment: 16)
  private var slots = [clinux_datagram](repeating: clinux_datagram(), count: capacity)

  public init() {}

  deinit { memory.deallocate() }

  /// Takes what waits. The corresponding C function is `recvmmsg`.
  /// - Returns: how many there are; 0 where none waits, or the call has failed.
  public func receive(_ fd: Int32) -> Int {
    for index in slots.indices {
      slots[index].bytes = memory.baseAddress.map { $0 + index * Self.each }
      slots[index].count = UInt32(Self.each)
    }
    return slots.withUnsafeMutableBufferPointer {
      max(0, Int(clinux_receive_datagrams(fd, $0.baseAddress, Int32($0.count))))
    }
  }

  /// - Parameter index: less than what `receive` has returned.
  public subscript(index: Int) -> (bytes: [UInt8], peer: DatagramPeer) {
    let slot = slots[index]
    let start = index * Self.each
    return (Array(memory[start..<start + min(Int(slot.count), Self.each)]), DatagramPeer(value: slot.peer))
  }
}

/// Datagrams that go with one call of the kernel.
public struct DatagramQueue {
  private var bytes: [UInt8] = []
  private var waiting: [(offset: Int, count: Int, peer: DatagramPeer)] = []

  public init() {}

  public var isEmpty: Bool { waiting.isEmpty }
  public var isFull: Bool { waiting.count >= Int(CLINUX_DATAGRAMS) }

  public mutating func append(_ message: [UInt8], to peer: DatagramPeer) {
    waiting.append((bytes.count, message.count, peer))
    bytes += message
  }

  /// Sends all of them; what the kernel cannot take now is lost, as UDP is. The corresponding C function is `sendmmsg`.
  public mutating func send(_ fd: Int32) {
    // An error of an earlier one that has come meanwhile is given to a send in place of its own outcome (ip(7)).
    var hasFailed = false
    bytes.withUnsafeMutableBytes { memory in
      guard let start = memory.baseAddress else { return }
      var datagrams = waiting.map {
        clinux_datagram(bytes: start + $0.offset, count: UInt32(truncatingIfNeeded: $0.count), peer: $0.peer.value)
      }
      datagrams.withUnsafeMutableBufferPointer { all in
        var done = 0
        while done < all.count {
          let sent = clinux_send_datagrams(fd, all.baseAddress.map { $0 + done }, Int32(all.count - done))
          if sent < 0, !hasFailed {
            hasFailed = true
            continue
          }
          hasFailed = false
          // The one that was not taken is passed over.
          done += max(1, Int(sent))
        }
      }
    }
    bytes.removeAll(keepingCapacity: bytes.capacity <= 65536)
    waiting.removeAll(keepingCapacity: true)
  }
}
