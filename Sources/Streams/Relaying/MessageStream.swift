import CLinux
import EventLoop
import LinuxSystem

/// Messages of at most 65,535 bytes, each behind its length (u16, network order): DNS over TCP (RFC 1035 section
/// 4.2.2) and the resolve channel.
public final class MessageStream: EventSource {
  private let loop: EventLoop
  private let socket: FileHandle
  private let received: (MessageStream, [UInt8]) -> Void
  private let closed: (MessageStream) -> Void
  private var registration: Registration?
  private var input: [UInt8] = []
  private var output = ByteQueue()
  private var isClosed = false
  private var idle: TimerToken?
  private let idleTimeout: Duration?

  /// What may wait to be sent, in bytes, before the stream counts as dead.
  private static let outputLimit = 4 << 20

  /// - Parameter idleTimeout: closes the stream when nothing has come for that long; nil for never.
  public init(
    loop: EventLoop, socket: FileHandle, early: [UInt8] = [], idleTimeout: Duration? = nil,
    received: @escaping (MessageStream, [UInt8]) -> Void, closed: @escaping (MessageStream) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.socket = socket
    self.received = received
    self.closed = closed
    self.idleTimeout = idleTimeout
    input = early
    super.init()
    registration = try loop.add(socket.rawValue, [.readable], self)
    restartIdleTimer()
    if !early.isEmpty { loop.enqueue(self) }
  }

  override public func resume() { parse() }

  public func send(_ message: [UInt8]) {
    guard !isClosed, message.count <= 65535 else { return }
    let wasEmpty = output.isEmpty
    output.append([UInt8(message.count >> 8), UInt8(message.count & 0xff)] + message)
    if output.count > Self.outputLimit {
      close()
    } else if wasEmpty {
      flush()
    }
  }

  private func flush() {
    while !output.isEmpty {
      switch output.withBytes({ sendBytes(socket.rawValue, $0) }) {
      case .bytes(let count): output.consume(count)
      case .wouldBlock:
        setInterest([.readable, .writable])
        return
      case .failed:
        close()
        return
      }
    }
  }

  private func setInterest(_ interest: EventSet) {
    guard let registration else { return }
    do throws(SystemError) { try loop.modify(registration, interest) } catch { close() }
  }

  override public func ready(_ events: EventSet, tag: Int) {
    if events.contains(.writable) {
      flush()
      if !isClosed, output.isEmpty { setInterest([.readable]) }
    }
    guard !isClosed, !events.isDisjoint(with: [.readable, .hangup, .error]) else { return }
    let (result, chunk) = readChunk(socket.rawValue, limit: 65536)
    switch result {
    case .bytes(0), .failed: close()
    case .bytes:
      restartIdleTimer()
      input += chunk
      parse()
    case .wouldBlock: break
    }
  }

  private func parse() {
    var offset = 0
    while !isClosed, input.count - offset >= 2 {
      let length = Int(input[offset]) << 8 | Int(input[offset + 1])
      guard input.count - offset - 2 >= length else { break }
      let message = Array(input[offset + 2..<offset + 2 + length])
      offset += 2 + length
      received(self, message)
    }
    input.removeFirst(offset)
  }

  private func restartIdleTimer() {
    guard let idleTimeout else { return }
    if let idle { loop.cancel(idle) }
    idle = loop.schedule(after: idleTimeout, self)
  }

  override public func timerFired(_ key: Int) { close() }

  /// Closes the stream and says so, once.
  public func close() {
    guard !isClosed else { return }
    isClosed = true
    if let registration { loop.remove(registration) }
    if let idle { loop.cancel(idle) }
    shutdownBoth(socket.rawValue)
    closed(self)
  }
}
