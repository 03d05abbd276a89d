import CLinux
import EventLoop
import LinuxSystem
import Wire

// Messages of a session, on either side. Both directions are bounded: a message has a limit, and while our own output waits
// for a reader nothing more is read, so that questions cannot pile up answers.

/// A session's stream once it has been opened.
public final class SessionStream: EventSource {
  /// Output that may wait, in bytes, before reading stops.
  private static let highWater = 16 << 10
  /// Messages of one turn before others have theirs.
  private static let turnLimit = 64

  private let loop: EventLoop
  private let socket: FileReference
  private let received: (UInt8, [UInt8]) throws(WireError) -> Void
  private let closed: (String?) -> Void
  private var registration: Registration?
  private var decoder = SessionDecoder()
  private var output = ByteQueue()
  private var interest: EventSet = [.readable]
  public private(set) var isClosed = false

  /// - Parameters:
  ///   - received: type and payload of each message; what it throws ends the stream.
  ///   - closed: called once, with a sentence where the other side broke the protocol.
  public init(
    loop: EventLoop, socket: FileReference, early: [UInt8],
    received: @escaping (UInt8, [UInt8]) throws(WireError) -> Void, closed: @escaping (String?) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.socket = socket
    self.received = received
    self.closed = closed
    super.init()
    decoder.append(early)
    registration = try loop.add(socket.rawValue, interest, self)
    if !early.isEmpty { loop.enqueue(self) }
  }

  public func send(_ message: [UInt8]) {
    guard !isClosed else { return }
    output.append(message)
    flush()
    updateInterest()
  }

  private func flush() {
    while !isClosed, !output.isEmpty {
      switch output.withBytes({ sendBytes(socket.rawValue, $0) }) {
      case .bytes(let count): output.consume(count)
      case .wouldBlock: return
      case .failed: close(nil)
      }
    }
  }

  private var mayRead: Bool { output.count <= Self.highWater }

  private func updateInterest() {
    guard !isClosed, let registration else { return }
    var wanted: EventSet = mayRead ? [.readable] : []
    if !output.isEmpty { wanted.insert(.writable) }
    guard wanted != interest else { return }
    interest = wanted
    do throws(SystemError) { try loop.modify(registration, wanted) } catch { close(nil) }
  }

  override public func ready(_ events: EventSet, tag: Int) {
    if events.contains(.writable) { flush() }
    if !isClosed, mayRead, !events.isDisjoint(with: [.readable, .hangup, .error]) { read() }
    resume()
  }

  /// At most what the decoder's limit of one message leaves over: 4096 bytes a turn.
  private func read() {
    var chunk = [UInt8](repeating: 0, count: 4096)
    switch chunk.withUnsafeMutableBytes({ readBytes(socket.rawValue, $0) }) {
    case .bytes(0), .failed: close(nil)
    case .bytes(let count): decoder.append(chunk[..<count])
    case .wouldBlock: break
    }
  }

  override public func resume() {
    do throws(WireError) {
      for _ in 0..<Self.turnLimit {
        guard !isClosed, mayRead, let message = try decoder.next() else { break }
        try received(message.type, message.payload)
      }
    } catch {
      close(error.description)
    }
    guard !isClosed else { return }
    updateInterest()
    if mayRead, decoder.hasMessage { loop.enqueue(self) }
  }

  public func close(_ problem: String?) {
    guard !isClosed else { return }
    isClosed = true
    if let registration { loop.remove(registration) }
    registration = nil
    shutdownBoth(socket.rawValue)
    closed(problem)
  }
}
