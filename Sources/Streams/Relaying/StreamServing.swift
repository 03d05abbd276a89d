import CLinux
import EventLoop
import LinuxSystem
import Wire

/// Reads the hello of an accepted stream, bounded in time and length; hands the stream over with what it asks for.
public final class StreamServing: EventSource {
  public enum Outcome {
    case hello(FileReference, Hello, early: [UInt8])
    /// The sentence says what came instead.
    case failed(String)
    /// Closed before a single byte: somebody looked whether we are there.
    case probed
  }

  /// From accept to the whole hello.
  public static let timeout: Duration = .seconds(10)

  private let loop: EventLoop
  private let completion: (StreamServing, Outcome) -> Void
  private let timeout: Duration
  private var stream: FileReference?
  private var registration: Registration?
  private var deadline: TimerToken?
  private var received: [UInt8] = []

  /// - Parameter timeout: for the whole hello.
  public init(
    loop: EventLoop, stream: FileReference, timeout: Duration = StreamServing.timeout,
    completion: @escaping (StreamServing, Outcome) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.timeout = timeout
    self.stream = stream
    self.completion = completion
    super.init()
    registration = try loop.add(stream.rawValue, [.readable], self)
    deadline = loop.schedule(after: timeout, self)
  }

  override public func ready(_ events: EventSet, tag: Int) {
    guard let stream else { return }
    var chunk = [UInt8](repeating: 0, count: 4096)
    switch chunk.withUnsafeMutableBytes({ readBytes(stream.rawValue, $0) }) {
    case .bytes(0):
      finish(received.isEmpty ? .probed : .failed("closed in the middle of its hello"))
    case .bytes(let count):
      received += chunk[..<count]
      do throws(WireError) {
        guard let (hello, length) = try Hello.decode(received) else { return }
        finish(.hello(stream, hello, early: Array(received[length...])))
      } catch {
        answer(stream, Answer(.badRequest))
        finish(.failed(error.description))
      }
    case .wouldBlock: break
    case .failed(let code): finish(.failed(SystemError("read", errno: code).description))
    }
  }

  override public func timerFired(_ key: Int) { finish(.failed("no hello within \(timeout)")) }

  /// Closes the stream without a word to anybody.
  public func cancel() { cleanUp() }

  private func cleanUp() {
    if let registration { loop.remove(registration) }
    if let deadline { loop.cancel(deadline) }
    registration = nil
    deadline = nil
    stream = nil
  }

  private func finish(_ outcome: Outcome) {
    guard stream != nil else { return }
    cleanUp()
    completion(self, outcome)
  }
}

/// Sends an answer on a fresh stream, which takes it whole; a peer that is already gone finds out by itself.
public func answer(_ stream: FileReference, _ answer: Answer) {
  _ = answer.encoded().withUnsafeBytes { sendBytes(stream.rawValue, $0) }
}

/// A connect(2) with a limit in time; ends with a connected socket or the status of its failure.
public final class PlainConnecting: EventSource {
  private let loop: EventLoop
  private let completion: (PlainConnecting, Result<FileReference, SystemError>) -> Void
  private let address: SocketAddress
  private var socket: FileReference?
  private var registration: Registration?
  private var deadline: TimerToken?
  private var finished = false

  public init(
    loop: EventLoop, address: SocketAddress, timeout: Duration,
    completion: @escaping (PlainConnecting, Result<FileReference, SystemError>) -> Void
  ) {
    self.loop = loop
    self.address = address
    self.completion = completion
    super.init()
    deadline = loop.schedule(after: timeout, self)
  }

  /// Apart from `init`, so that `completion` is never called before the caller holds this object.
  public func start() {
    do throws(SystemError) {
      let made = FileReference(try makeSocket(address.family, .stream))
      socket = made
      switch try connectStream(made.rawValue, address) {
      case .connected: finish(.success(made))
      case .inProgress: registration = try loop.add(made.rawValue, [.writable], self)
      }
    } catch {
      finish(.failure(error))
    }
  }

  override public func ready(_ events: EventSet, tag: Int) {
    guard let socket else { return }
    let code = socketError(socket.rawValue)
    finish(code == 0 ? .success(socket) : .failure(SystemError("connect", address.description, errno: code)))
  }

  override public func timerFired(_ key: Int) {
    finish(.failure(SystemError("connect", address.description, errno: ETIMEDOUT)))
  }

  public func cancel() {
    finished = true
    cleanUp()
  }

  private func finish(_ result: Result<FileReference, SystemError>) {
    guard !finished else { return }
    finished = true
    cleanUp()
    completion(self, result)
  }

  private func cleanUp() {
    if let registration { loop.remove(registration) }
    if let deadline { loop.cancel(deadline) }
    registration = nil
    socket = nil
  }
}
