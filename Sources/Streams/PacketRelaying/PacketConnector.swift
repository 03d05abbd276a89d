import CLinux
import EventLoop
import LinuxSystem
import Relaying
import Wire

/// The enclave's half of a queue: keeps a stream to the host open, with growing pauses while there is none.
public final class PacketConnector: EventSource {
  private static let timeout: Duration = .seconds(10)
  private static let firstPause: Duration = .milliseconds(20)
  private static let longestPause: Duration = .seconds(2)

  private let loop: EventLoop
  private let target: StreamTarget
  private let token: Token
  private var request: PacketsRequest
  private let tun: FileReference
  private let log: (String) -> Void
  private var queue: PacketQueue?
  private var opening: StreamOpening?
  private var pause = PacketConnector.firstPause
  private var complained = false
  private var connected: (() -> Void)?
  /// Made for one stream, and offered with its hello.
  private var memory: PacketMemory?
  /// The last memory could not be passed or was not taken: something may stand between the two Unix sockets.
  private var memoryFailed = false

  /// - Parameters:
  ///   - token: opens the streams to the host.
  ///   - connected: called once, when the first stream stands.
  public init(
    loop: EventLoop, target: StreamTarget, token: Token, request: PacketsRequest, tun: FileReference,
    log: @escaping (String) -> Void,
    connected: (() -> Void)? = nil
  ) {
    self.loop = loop
    self.target = target
    self.token = token
    self.request = request
    self.tun = tun
    self.log = log
    self.connected = connected
  }

  /// - Parameter makeQueue: gets what is to be called when a stream is lost.
  public func start(_ makeQueue: (@escaping (PacketQueue.Loss) -> Void) throws(SystemError) -> PacketQueue)
    throws(SystemError)
  {
    queue = try makeQueue { [unowned self] loss in
      log("packets, queue \(request.queue): the stream to the host was lost: \(loss)")
      memoryFailed = loss == .memoryRefused
      retry()
    }
    open()
  }

  public func report() {
    log("packets, queue \(request.queue): \(queue.map { "\($0.counters)" } ?? "not open")")
  }

  /// Memory that can be passed, where the host is on this machine. Without it frames go over the stream.
  private func offer() {
    let isLocal = if case .unix = target.address { target.hybridPort == nil } else { false }
    memory = isLocal && !memoryFailed ? try? PacketMemory() : nil
    request.offersMemory = memory != nil
  }

  private func open() {
    offer()
    let made = StreamOpening(loop: loop, target: target, hello: request.hello.proven(by: token), timeout: Self.timeout)
    {
      [unowned self] outcome in
      opening = nil
      switch outcome {
      case .opened(let stream, let parameters, let early): opened(stream, parameters, early)
      case .refused(let status): complain("the host refused: \(status)")
      case .failed(let sentence): complain(sentence)
      }
    }
    opening = made
    made.start()
  }

  private func opened(_ stream: FileReference, _ parameters: [UInt8], _ early: [UInt8]) {
    do {
      let answer = try PacketsAnswer(parameters: parameters)
      // What the host's kernel cannot take, ours must not leave undone.
      _ = try setTunOffload(tun.rawValue, TunOffload.all.intersection(TunOffload(rawValue: answer.features)))
      let passed = answer.takesMemory ? memory : nil
      memoryFailed = passed != nil
      try queue?.attach(stream, passed.map { .passing($0) } ?? .frames(early: early)) { [unowned self] in stands() }
      memoryFailed = false
      memory = nil
    } catch {
      complain("\(error)")
    }
  }

  private func stands() {
    if complained { log("packets, queue \(request.queue): connected to the host") }
    complained = false
    pause = Self.firstPause
    connected?()
    connected = nil
  }

  /// Once for each time without a host; then quietly again and again.
  private func complain(_ sentence: String) {
    if !complained { log("packets, queue \(request.queue): \(sentence); trying again") }
    complained = true
    retry()
  }

  private func retry() {
    loop.schedule(after: pause, self)
    pause = min(pause * 2, Self.longestPause)
  }

  override public func timerFired(_ key: Int) { if opening == nil { open() } }
}
