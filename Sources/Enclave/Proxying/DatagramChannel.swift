import EventLoop
import LinuxSystem
import Packets
import Relaying
import Wire

/// The one stream of datagrams to the host: of the flows that the program begins (`DatagramRelay`), and of those of clients of
/// published ports (`ArrivalRelay`). It is opened for the first message; where ports may be published, from the start.
final class DatagramChannel: EventSource {
  /// Bytes that may wait for the stream while it is being opened.
  private static let waitingLimit = 1 << 20
  private static let firstRetry: Duration = .milliseconds(20)
  private static let lastRetry: Duration = .seconds(2)

  private let loop: EventLoop
  private let target: StreamTarget
  private let token: Token
  private let log: (String) -> Void
  private var stream: MessageStream?
  private var opening = false
  private var waiting: [[UInt8]] = []
  private var waitingBytes = 0
  private var retry = firstRetry
  /// Opened again whenever it is lost.
  private var isKept = false

  /// Takes messages of the host about flows that the program has begun.
  var received: (DatagramMessage) throws(WireError) -> Void = { _ in }
  /// The same about clients of published ports.
  var arrived: (DatagramMessage) throws(WireError) -> Void = { _ in }
  /// The stream is open, to a host that publishes ports.
  var isPublishing: () -> Void = {}
  /// What was sent is lost, and all flows with it; told why.
  var lost: (_ sentence: String, _ hadWaiting: Bool) -> Void = { _, _ in }
  var ended: () -> Void = {}

  init(_ plan: ProxyPlan, loop: EventLoop, log: @escaping (String) -> Void) {
    self.loop = loop
    self.log = log
    target = plan.settings.hostTarget
    token = plan.settings.proxyToken
  }

  /// Opens the stream now, and whenever it is lost, as long as the host publishes ports.
  func keep() {
    isKept = true
    open()
  }

  func send(_ message: [UInt8]) {
    if let stream {
      // Where the host does not keep up it is lost, as on any link.
      stream.send(message)
    } else if waitingBytes + message.count <= Self.waitingLimit {
      waiting.append(message)
      waitingBytes += message.count
      open()
    }
  }

  /// A packet's datagram, or each of a super-packet's.
  func send(_ flow: UInt32, _ packet: FlowPacket, _ frame: UnsafeRawBufferPointer, mayFragment: Bool) {
    for datagram in packet.datagrams {
      send(
        DatagramMessage.encode(
          flow, mayFragment: mayFragment, UnsafeRawBufferPointer(rebasing: frame[datagram])))
    }
  }

  private func open() {
    guard stream == nil, !opening else { return }
    opening = true
    StreamOpening(loop: loop, target: target, hello: Hello(.datagrams, token: token), timeout: .seconds(5)) {
      [unowned self] in
      opening = false
      switch $0 {
      case .opened(let socket, let parameters, let early): adopt(socket, parameters, early)
      case .refused(let status): fail("the host carries no datagrams: \(status)")
      case .failed(let sentence): fail("a stream for datagrams: \(sentence)")
      }
    }.start()
  }

  private func adopt(_ socket: FileReference, _ parameters: [UInt8], _ early: [UInt8]) {
    do throws(SystemError) {
      let made = try MessageStream(loop: loop, socket: socket, early: early) { [unowned self] in
        do throws(WireError) {
          let message = try DatagramMessage($1)
          if message.flow >= DatagramMessage.firstArrival { try arrived(message) } else { try received(message) }
        } catch {
          log("datagrams: the host broke the protocol: \(error)")
          $0.close()
        }
      } closed: { [unowned self] _ in
        stream = nil
        fail("the stream of datagrams to the host was lost")
      }
      stream = made
      retry = Self.firstRetry
      let messages = waiting
      waiting = []
      waitingBytes = 0
      for message in messages { made.send(message) }
      if parameters.starts(with: DatagramMessage.publishing) { isPublishing() } else { isKept = false }
    } catch {
      fail("\(error)")
    }
  }

  private func fail(_ sentence: String) {
    let hadWaiting = !waiting.isEmpty
    waiting = []
    waitingBytes = 0
    ended()
    lost(sentence, hadWaiting)
    guard isKept else { return }
    loop.schedule(after: retry, self)
    retry = min(retry * 2, Self.lastRetry)
  }

  override func timerFired(_ key: Int) { open() }
}
