import EventLoop
import LinuxSystem

/// A datagram socket that queries come to and answers leave by. A call of the kernel takes several, and sends several: all
/// that one turn of the loop has made.
final class DatagramSource: EventSource {
  private let loop: EventLoop
  private let socket: FileReference
  private let room: DatagramRoom
  private let received: ([UInt8], DatagramPeer, DatagramSource) -> Void
  private var answers = DatagramQueue()
  /// Calls of the kernel before other sources have their turn.
  private static let turnLimit = 2

  /// - Parameters:
  ///   - room: which sources of one loop may share.
  ///   - received: takes each datagram, its sender and this source.
  init(
    loop: EventLoop, socket: FileReference, room: DatagramRoom,
    received: @escaping ([UInt8], DatagramPeer, DatagramSource) -> Void
  ) {
    self.loop = loop
    self.socket = socket
    self.room = room
    self.received = received
  }

  override func ready(_ events: EventSet, tag: Int) {
    for _ in 0..<Self.turnLimit {
      let count = room.receive(socket.rawValue)
      for index in 0..<count {
        let (bytes, peer) = room[index]
        received(bytes, peer, self)
      }
      if count < DatagramRoom.capacity { return }
    }
  }

  /// Goes at the end of this turn.
  func send(_ bytes: [UInt8], to peer: DatagramPeer) {
    answers.append(bytes, to: peer)
    if answers.isFull { answers.send(socket.rawValue) } else { loop.enqueue(self) }
  }

  override func resume() {
    if !answers.isEmpty { answers.send(socket.rawValue) }
  }
}
