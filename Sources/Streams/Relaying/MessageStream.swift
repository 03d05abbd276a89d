import CLinux
import EventLoop
import LinuxSystem

/// Messages of at most 65,535 bytes, each behind its length (u16, network order): DNS over TCP (RFC 1035 section
/// 4.2.2) and the resolve channel.
public final class MessageStream: EventSource {
  private let loop: EventLoop
  private let socket: FileReference
  private let received: (MessageStream, [UInt8]) -> Void
  private let closed: (MessageStream) -> Void
  private var registration: Registration?
  private var input: [UInt8] = []
  private var output = ByteQueue()
  private var isClosed = false
  /// The kernel takes no more for now.
  private var isBlocked = false
  private var interest: EventSet = [.readable]
  private var idle: TimerToken?
  private let idleTimeout: Duration?

  /// What may wait to be sent, in bytes.
  private let outputLimit: Int
  /// Above this a side that answers reads no more.
  private static let answersWaiting = 16 * 1024
  private let readsWhileItWrites: Bool

  /// - Parameters:
  ///   - idleTimeout: closes the stream when nothing has come for that long; nil for never.
  ///   - outputLimit: bytes that may wait to be sent; a message more is not sent.
  ///   - readsWhileItWrites: false for the side that only answers: it reads nothing while its answers are not taken. Both
  ///     sides must not do that, or they wait for each other.
  public init(
    loop: EventLoop, socket: FileReference, early: [UInt8] = [], idleTimeout: Duration? = nil,
    outputLimit: Int = 4 << 20, readsWhileItWrites: Bool = true,
    received: @escaping (MessageStream, [UInt8]) -> Void, closed: @escaping (MessageStream) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.socket = socket
    self.received = received
    self.closed = closed
    self.idleTimeout = idleTimeout
    self.outputLimit = outputLimit
    self.readsWhileItWrites = readsWhileItWrites
    input = early
    super.init()
    registration = try loop.add(socket.rawValue, [.readable], self)
    restartIdleTimer()
    if !early.isEmpty { loop.enqueue(self) }
  }

  override public func resume() {
    guard !isClosed else { return }
    flush()
    parse()
  }

  /// The messages of one turn of the loop go together, behind its events: a call of the kernel for each would be most of what
  /// a message costs.
  /// - Returns: false where it is not sent: too long, too much waits, or the stream is closed.
  @discardableResult
  public func send(_ message: [UInt8]) -> Bool {
    guard !isClosed, message.count <= 65535, output.count + 2 + message.count <= outputLimit else { return false }
    output.append(UInt8(message.count >> 8), UInt8(message.count & 0xff))
    output.append(message)
    if !isBlocked {
      if output.count > Self.answersWaiting { flush() } else { loop.enqueue(self) }
    }
    return true
  }

  private var mayRead: Bool { readsWhileItWrites || output.count <= Self.answersWaiting }

  private func flush() {
    while !output.isEmpty {
      switch output.withBytes({ sendBytes(socket.rawValue, $0) }) {
      case .bytes(let count): output.consume(count)
      case .wouldBlock:
        isBlocked = true
        updateInterest()
        return
      case .failed:
        close()
        return
      }
    }
    isBlocked = false
  }

  private func updateInterest() {
    guard let registration, !isClosed else { return }
    var wanted: EventSet = mayRead ? [.readable] : []
    if isBlocked { wanted.insert(.writable) }
    guard wanted != interest else { return }
    interest = wanted
    do throws(SystemError) { try loop.modify(registration, wanted) } catch { close() }
  }

  override public func ready(_ events: EventSet, tag: Int) {
    if events.contains(.writable) {
      flush()
      parse()
    }
    guard !isClosed, mayRead || !events.isDisjoint(with: [.hangup, .error]),
      !events.isDisjoint(with: [.readable, .hangup, .error])
    else { return }
    let (result, chunk) = readChunk(socket.rawValue, limit: 65536)
    switch result {
    case .bytes(0), .failed: close()
    case .bytes:
      restartIdleTimer()
      if input.isEmpty { input = chunk } else { input += chunk }
      parse()
    case .wouldBlock: break
    }
  }

  private func parse() {
    var offset = 0
    while !isClosed, mayRead, input.count - offset >= 2 {
      let length = Int(input[offset]) << 8 | Int(input[offset + 1])
      guard input.count - offset - 2 >= length else { break }
      let message = Array(input[offset + 2..<offset + 2 + length])
      offset += 2 + length
      received(self, message)
    }
    if offset > 0 { input.removeFirst(offset) }
    updateInterest()
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
    // What this turn has sent, as far as there is room for it.
    if !output.isEmpty { _ = output.withBytes { sendBytes(socket.rawValue, $0) } }
    if let registration { loop.remove(registration) }
    if let idle { loop.cancel(idle) }
    shutdownBoth(socket.rawValue)
    closed(self)
  }
}
