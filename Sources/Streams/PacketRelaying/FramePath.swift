import CLinux
import EventLoop
import LinuxSystem
import Packets

/// How the frames of one queue get to the other side and from there: on a stream (`StreamPath`), through memory that both
/// sides have (`MemoryPath`), or between two ends in one process (`PathTwin`). One thread uses it, the queue's.
///
/// What the other side does wrong, and its end, is thrown as a `PacketQueue.Loss` and ends the path.
public protocol FramePath: AnyObject {
  /// What the queue's loop watches for `interest`.
  var file: FileReference { get }
  /// Edge-triggered.
  var interest: EventSet { get }
  /// Events of `file`.
  func note(_ events: EventSet)

  /// Whether frames can be sent and come, or will once there is room.
  var isReady: Bool { get }
  /// Whether the other side has what it needs of this one.
  var isConfirmed: Bool { get }
  /// Whether the other side can change what was put at `room`.
  var isExposed: Bool { get }

  // MARK: out

  /// Where the next frame can be put, `PacketGuard.frameLimit` bytes; nil while there is no room.
  func room() throws(PacketQueue.Loss) -> UnsafeMutableRawPointer?
  /// A frame of that length is at `room`.
  func commit(_ length: Int)
  /// Sends what was committed.
  /// - Returns: whether anything moved.
  func flush() throws(PacketQueue.Loss) -> Bool

  // MARK: in

  /// Looks for frames.
  /// - Returns: whether there is something to look at with `next`.
  func fetch() throws(PacketQueue.Loss) -> Bool
  /// - Parameter whole: copies all of a frame, wherever it is.
  func next(whole: Bool) throws(PacketQueue.Loss) -> DeviceFrame?
  /// The frame that `next` gave is done with.
  func release()
}

/// The stream below a path: what its edges have told, and whether it has ended.
struct PathStream {
  let file: FileReference
  var readable = true
  var writable = true
  /// No edge will follow the one that told of the stream's end: it is read until the end is found.
  private var isEnding = false

  init(_ file: FileReference) { self.file = file }

  mutating func note(_ events: EventSet) {
    if !events.isDisjoint(with: [.readable, .readHangup, .hangup, .error]) { readable = true }
    if !events.isDisjoint(with: [.readHangup, .hangup, .error]) { isEnding = true }
    if !events.isDisjoint(with: [.writable, .hangup, .error]) { writable = true }
  }

  /// - Returns: bytes that were read; 0 for none at the moment.
  mutating func read(_ buffer: UnsafeMutableRawPointer, _ room: Int) throws(PacketQueue.Loss) -> Int {
    try received(clinux_read(file.rawValue, buffer, room), of: room)
  }

  /// - Parameter result: of a call that had room for `room` bytes.
  mutating func received(_ result: Int, of room: Int) throws(PacketQueue.Loss) -> Int {
    switch result {
    case 1...:
      // Less than there was room for: the socket was empty, and an edge will tell of more. But for the end, whose edge may
      // have come together with these bytes.
      readable = isEnding || result == room
      return result
    case 0: throw .closed
    case -Int(EAGAIN):
      readable = false
      return 0
    default: throw .failed(SystemError("read", "packets", errno: Int32(truncatingIfNeeded: 0 &- result)))
    }
  }
}
