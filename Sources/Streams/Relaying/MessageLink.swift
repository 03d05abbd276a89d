import EventLoop
import LinuxSystem

/// One end of a pair of sockets that keep the bounds of messages (`makeMessagePair`), between two of our own processes: what the
/// other does not take yet waits here.
public final class MessageLink: EventSource {
  private static let turnLimit = 64

  private let loop: EventLoop
  private let socket: FileReference
  private let longest: Int
  private let waitingLimit: Int
  private var registration: Registration?
  private var waiting: [(bytes: [UInt8], file: FileReference?)] = []
  private var waitingBytes = 0
  /// Takes each message, with the descriptor that came with it.
  public var received: ([UInt8], FileReference?) -> Void = { _, _ in }

  /// - Parameters:
  ///   - longest: bytes of a message; what is longer is cut.
  ///   - waitingLimit: bytes that may wait to be sent.
  public init(
    loop: EventLoop, socket: FileReference, longest: Int, waitingLimit: Int = 4 << 20
  ) throws(SystemError) {
    self.loop = loop
    self.socket = socket
    self.longest = longest
    self.waitingLimit = waitingLimit
    super.init()
    registration = try loop.add(socket.rawValue, [.readable], self)
  }

  /// - Returns: false where it is not sent, because too much waits already.
  @discardableResult
  public func send(_ bytes: [UInt8], passing file: FileReference? = nil) -> Bool {
    if waiting.isEmpty {
      switch sendMessage(socket.rawValue, bytes, passing: file) {
      case .bytes: return true
      case .failed: return false
      case .wouldBlock: break
      }
    }
    guard waitingBytes + bytes.count <= waitingLimit else { return false }
    waiting.append((bytes, file))
    waitingBytes += bytes.count
    if waiting.count == 1 { setInterest([.readable, .writable]) }
    return true
  }

  private func flush() {
    var sent = 0
    for message in waiting {
      guard sendMessage(socket.rawValue, message.bytes, passing: message.file) != .wouldBlock else { break }
      sent += 1
      waitingBytes -= message.bytes.count
    }
    waiting.removeFirst(sent)
    if waiting.isEmpty { setInterest([.readable]) }
  }

  private func setInterest(_ interest: EventSet) {
    if let registration { try? loop.modify(registration, interest) }
  }

  override public func ready(_ events: EventSet, tag: Int) {
    if events.contains(.writable) { flush() }
    for _ in 0..<Self.turnLimit {
      let (result, bytes, file) = receiveMessage(socket.rawValue, limit: longest)
      guard case .bytes(1...) = result else { return }
      received(bytes, file)
    }
  }
}
