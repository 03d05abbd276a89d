import CLinux
import EventLoop
import LinuxSystem

/// Asks every host side that can be found, all at once.
public final class StatusQuery {
  public struct Outcome {
    /// By process id.
    public var found: [HostStatus] = []
    /// Sentences on host sides that did not say anything useful.
    public var problems: [String] = []
  }

  private static let patience: Duration = .seconds(3)

  /// - Throws: only where there is no epoll.
  public static func run() throws(SystemError) -> Outcome {
    let loop = try EventLoop()
    var outcome = Outcome()
    var asking: [Question] = []
    for path in StatusDirectory.sockets() {
      do throws(SystemError) {
        asking.append(try Question(loop, path))
      } catch {
        switch error.errno {
        // The process was killed, and its socket stayed.
        case ECONNREFUSED: if StatusDirectory.mayRemove(path) { removeFile(path) }
        case ENOENT: break
        default: outcome.problems.append("\(error)")
        }
      }
    }
    let limit = TimerSource { loop.stop() }
    loop.schedule(after: patience, limit)
    var open = asking.count
    for question in asking {
      question.finished = {
        open -= 1
        if open == 0 { loop.stop() }
      }
    }
    if open > 0 { try loop.run() }
    for question in asking {
      switch question.result() {
      case .success(let status?): outcome.found.append(status)
      case .success(nil): break
      case .failure(let problem): outcome.problems.append(problem.sentence)
      }
    }
    outcome.found.sort { $0.pid < $1.pid }
    return outcome
  }
}

/// One connection to a host side: whatever it sends, to the end.
private final class Question: EventSource {
  struct Problem: Error { var sentence: String }

  private static let limit = 1 << 20

  private let loop: EventLoop
  private let path: String
  private let socket: FileReference
  private var registration: Registration?
  private var received: [UInt8] = []
  private var problem: String? = "did not answer in time"
  var finished: () -> Void = {}

  init(_ loop: EventLoop, _ path: String) throws(SystemError) {
    self.loop = loop
    self.path = path
    socket = FileReference(try makeSocket(AF_UNIX, .stream))
    super.init()
    _ = try connectStream(socket.rawValue, .unix(path))
    registration = try loop.add(socket.rawValue, [.readable], self)
  }

  override func ready(_ events: EventSet, tag: Int) {
    var chunk = [UInt8](repeating: 0, count: 65536)
    switch chunk.withUnsafeMutableBytes({ readBytes(socket.rawValue, $0) }) {
    case .bytes(0): end(nil)
    case .bytes(let count):
      received += chunk[..<count]
      if received.count > Self.limit { end("said more than \(Self.limit) bytes") }
    case .wouldBlock: break
    case .failed(let code): end(SystemError("read", errno: code).description)
    }
  }

  private func end(_ problem: String?) {
    guard let registration else { return }
    loop.remove(registration)
    self.registration = nil
    self.problem = problem
    finished()
  }

  /// nil where it ended while it was asked.
  func result() -> Result<HostStatus?, Problem> {
    func failure(_ sentence: String) -> Result<HostStatus?, Problem> {
      .failure(Problem(sentence: "\(HostStatus.printable(path)): \(sentence)"))
    }
    if let problem { return failure(problem) }
    if received.isEmpty { return .success(nil) }
    do {
      return .success(try HostStatus(json: received))
    } catch {
      return failure("said something that is no status; another version of tombolo?")
    }
  }
}
