import CLinux
import EventLoop
import LinuxSystem
import Wire

/// Where the other side's one port is.
public struct StreamTarget: Hashable, Sendable, CustomStringConvertible {
  public var address: SocketAddress
  /// The guest's port behind a hybrid-vsock socket: `CONNECT port` is said first (Firecracker's docs/vsock.md).
  public var hybridPort: UInt32?

  public init(_ address: SocketAddress, hybridPort: UInt32? = nil) {
    self.address = address
    self.hybridPort = hybridPort
  }

  public var description: String { hybridPort.map { "\(address) port \($0)" } ?? address.description }
}

/// Opens a stream: connect, hello, answer; or a plain one, on which neither is said. Ends with the connected descriptor or a status, once, within its time.
public final class StreamOpening: EventSource {
  public enum Outcome {
    /// The stream, the answer's parameters, and bytes that came behind the answer.
    case opened(FileReference, parameters: [UInt8], early: [UInt8])
    /// The other side said no.
    case refused(Status)
    /// The transport could not be reached, or what came was no answer; the sentence says which.
    case failed(String)
  }

  private static let deadlineKey = 0
  private static let retryKey = 1
  private static let hybridLineLimit = 64

  private let loop: EventLoop
  private let target: StreamTarget
  /// What is said first.
  private let first: [UInt8]
  /// No answer is waited for.
  private let isPlain: Bool
  private let connect: (() throws(SystemError) -> FileReference)?
  private let completion: (Outcome) -> Void
  private var stream: FileReference?
  private var registration: Registration?
  private var deadline: TimerToken?
  private var retry: TimerToken?
  private var connected = false
  private var awaitsHybridLine = false
  private var received: [UInt8] = []
  private var finished = false

  /// - Parameters:
  ///   - timeout: for the whole of it; the other side's own connect is part of that.
  ///   - connect: gives a connected, non-blocking socket, for a process that may not connect to `target` itself.
  public convenience init(
    loop: EventLoop, target: StreamTarget, hello: Hello, timeout: Duration,
    connect: (() throws(SystemError) -> FileReference)? = nil,
    completion: @escaping (Outcome) -> Void
  ) {
    self.init(loop, target, hello.encoded(), isPlain: false, timeout, connect, completion)
  }

  /// - Parameter plain: the stream's first bytes, for a side that speaks nothing of ours.
  convenience init(
    loop: EventLoop, target: StreamTarget, plain first: [UInt8], timeout: Duration,
    connect: (() throws(SystemError) -> FileReference)?, completion: @escaping (Outcome) -> Void
  ) {
    self.init(loop, target, first, isPlain: true, timeout, connect, completion)
  }

  private init(
    _ loop: EventLoop, _ target: StreamTarget, _ first: [UInt8], isPlain: Bool, _ timeout: Duration,
    _ connect: (() throws(SystemError) -> FileReference)?, _ completion: @escaping (Outcome) -> Void
  ) {
    self.loop = loop
    self.target = target
    self.first = first
    self.isPlain = isPlain
    self.connect = connect
    self.completion = completion
    super.init()
    deadline = loop.schedule(after: timeout, self, key: Self.deadlineKey)
  }

  /// Apart from `init`, so that `completion` is never called before the caller holds this object.
  public func start() {
    do throws(SystemError) {
      let made: FileReference
      var progress = ConnectProgress.connected
      if let connect {
        made = try connect()
      } else {
        made = FileReference(try makeSocket(target.address.family, .stream))
        progress = try connectStream(made.rawValue, target.address)
      }
      stream = made
      registration = try loop.add(made.rawValue, [.readable, .writable, .edgeTriggered], self)
      if progress == .connected { sendFirst() }
    } catch {
      if error.errno == EAGAIN, error.call == "connect" {
        // The listener's backlog is full: Unix sockets do not queue the connect.
        retry = loop.schedule(after: .milliseconds(5), self, key: Self.retryKey)
      } else {
        finish(.failed(error.description))
      }
    }
  }

  private func sendFirst() {
    connected = true
    if let port = target.hybridPort {
      awaitsHybridLine = true
      send(Array("CONNECT \(port)\n".utf8))
    } else {
      sayFirst()
    }
  }

  private func sayFirst() {
    if !first.isEmpty { send(first) }
    if isPlain, !finished, let stream { finish(.opened(stream, parameters: [], early: [])) }
  }

  /// A fresh socket takes these few bytes whole.
  private func send(_ bytes: [UInt8]) {
    guard let stream else { return }
    switch bytes.withUnsafeBytes({ sendBytes(stream.rawValue, $0) }) {
    case .bytes(bytes.count): break
    case .failed(let code): finish(.failed(SystemError("send", target.description, errno: code).description))
    default: finish(.failed("\(target): the transport did not take the hello"))
    }
  }

  override public func ready(_ events: EventSet, tag: Int) {
    guard !finished, let stream else { return }
    if !connected {
      let code = socketError(stream.rawValue)
      guard code == 0 else {
        finish(.failed(SystemError("connect", target.description, errno: code).description))
        return
      }
      guard events.contains(.writable) else { return }
      sendFirst()
      guard !finished else { return }
    }
    readAnswer(stream)
  }

  private func readAnswer(_ stream: FileReference) {
    // Behind the line of a hybrid socket a plain stream begins, which is its next owner's.
    var chunk = [UInt8](repeating: 0, count: isPlain ? 1 : 4096)
    while !finished {
      switch chunk.withUnsafeMutableBytes({ readBytes(stream.rawValue, $0) }) {
      case .bytes(0):
        finish(.failed("\(target): closed without an answer"))
      case .bytes(let count):
        received += chunk[..<count]
        parse(stream)
      // What follows the answer stays in the socket for the next owner of the stream.
      case .wouldBlock: return
      case .failed(let code):
        finish(.failed(SystemError("read", target.description, errno: code).description))
      }
    }
  }

  private func parse(_ stream: FileReference) {
    if awaitsHybridLine {
      guard let newline = received.firstIndex(of: UInt8(ascii: "\n")) else {
        if received.count > Self.hybridLineLimit { finish(.failed("\(target): no OK line came")) }
        return
      }
      guard received.starts(with: "OK ".utf8) else {
        finish(.failed("\(target): found \"\(String(decoding: received[..<newline], as: UTF8.self))\", expected OK"))
        return
      }
      received.removeFirst(newline + 1)
      awaitsHybridLine = false
      sayFirst()
      guard !finished else { return }
    }
    do throws(WireError) {
      guard let (answer, length) = try Answer.decode(received) else { return }
      if answer.status == .ok {
        finish(.opened(stream, parameters: answer.parameters, early: Array(received[length...])))
      } else {
        finish(.refused(answer.status))
      }
    } catch {
      finish(.failed("\(target): \(error)"))
    }
  }

  override public func timerFired(_ key: Int) {
    if key == Self.retryKey { start() } else { finish(.refused(.timedOut)) }
  }

  /// Closes the stream, if there is one already; the completion is not called any more.
  public func cancel() {
    finished = true
    cleanUp()
  }

  private func finish(_ outcome: Outcome) {
    guard !finished else { return }
    finished = true
    cleanUp()
    completion(outcome)
  }

  private func cleanUp() {
    if let registration { loop.remove(registration) }
    if let deadline { loop.cancel(deadline) }
    if let retry { loop.cancel(retry) }
    registration = nil
    stream = nil
  }
}
