import CLinux
import EventLoop
import LinuxSystem
import Wire

extension SocketAddress {
  /// The same side at another port: a vsock port, or the number behind the last "_" of a Unix socket's name. nil where it
  /// has none.
  public func atPort(_ port: UInt32) -> SocketAddress? {
    switch self {
    case .vsock(let cid, _): return .vsock(cid: cid, port: port)
    case .unix(let path): return path.lastIndex(of: "_").map { .unix("\(path[...$0])\(port)") }
    case .ip: return nil
    }
  }
}

extension StreamTarget {
  /// The same side at another port.
  public func atPort(_ port: UInt32) -> StreamTarget? {
    hybridPort == nil ? address.atPort(port).map { StreamTarget($0) } : StreamTarget(address, hybridPort: port)
  }
}

/// Opens a plain stream, on which nothing of ours is said but `header`. A side where nobody listens is asked again for a
/// little: it may be starting.
public final class PlainOpening: EventSource {
  public struct Failure: Error, CustomStringConvertible {
    public var description: String
  }

  /// How long nobody may listen, as long as a daemon that is started again.
  static let patience: Duration = .seconds(2)
  private static let pause: Duration = .milliseconds(50)
  private static let timeout: Duration = .seconds(10)

  private let loop: EventLoop
  private let target: StreamTarget
  private let header: [UInt8]
  private let connect: (() throws(SystemError) -> FileReference)?
  private let completion: (Result<FileReference, Failure>) -> Void
  private let last: UInt64

  /// - Parameters:
  ///   - header: the stream's first bytes.
  ///   - connect: as `StreamOpening`'s.
  public init(
    loop: EventLoop, target: StreamTarget, header: [UInt8] = [],
    connect: (() throws(SystemError) -> FileReference)? = nil,
    completion: @escaping (Result<FileReference, Failure>) -> Void
  ) {
    self.loop = loop
    self.target = target
    self.header = header
    self.connect = connect
    self.completion = completion
    last = monotonicNanoseconds() &+ Self.patience.nanoseconds
  }

  public func start() {
    StreamOpening(loop: loop, target: target, plain: header, timeout: Self.timeout, connect: connect) {
      [self] outcome in
      switch outcome {
      case .opened(let stream, _, _): completion(.success(stream))
      case .refused(let status): completion(.failure(Failure(description: "\(target): \(status)")))
      case .failed(let sentence):
        guard monotonicNanoseconds() < last else { return completion(.failure(Failure(description: sentence))) }
        loop.schedule(after: Self.pause, self)
      }
    }.start()
  }

  override public func timerFired(_ key: Int) { start() }
}
