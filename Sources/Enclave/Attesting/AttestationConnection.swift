import EventLoop
import HTTP
import LinuxSystem

/// One client. Its next request is read when the answer to the one before it is on its way.
final class AttestationConnection: EventSource {
  private static let readLimit = 16384
  /// What is read ahead of a request that waits for its turn.
  private static let heldLimit = HTTPParser.headLimit + HTTPParser.bodyLimit
  /// What a client still sends behind its last answer is read and thrown away: closing over it would reset the connection, and
  /// the answer would be lost.
  private static let wasteLimit = 1 << 20

  let caller: UInt32
  /// When it is closed unless something happens, in nanoseconds.
  private(set) var deadline: UInt64

  private let loop: EventLoop
  private let socket: FileReference
  private let answer: (HTTPRequest) -> HTTPResponse
  private let ended: (AttestationConnection) -> Void
  private var registration: Registration?
  private var interest: EventSet = [.readable]
  private var parser = HTTPParser()
  private var output: [UInt8] = []
  private var sent = 0
  /// The client has said that it sends nothing more.
  private var hasEnded = false
  /// Nothing is answered any more once the output is gone.
  private var isLast = false
  private var hasShutDown = false
  private var wasted = 0

  init(
    loop: EventLoop, socket: FileReference, caller: UInt32, answer: @escaping (HTTPRequest) -> HTTPResponse,
    ended: @escaping (AttestationConnection) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.socket = socket
    self.caller = caller
    self.answer = answer
    self.ended = ended
    deadline = monotonicNanoseconds() &+ AttestationServer.patience.nanoseconds
    super.init()
    registration = try loop.add(socket.rawValue, [.readable], self)
  }

  private func extend() { deadline = monotonicNanoseconds() &+ AttestationServer.patience.nanoseconds }

  override func ready(_ events: EventSet, tag: Int) {
    guard registration != nil else { return }
    if !events.isDisjoint(with: [.readable, .hangup, .error]), wantsInput { read() }
    resume()
  }

  private var wantsInput: Bool { !hasEnded && (isLast || parser.held < Self.heldLimit) }

  private func read() {
    let (result, bytes) = readChunk(socket.rawValue, limit: Self.readLimit)
    switch result {
    case .wouldBlock: break
    case .bytes(1...) where isLast:
      wasted += bytes.count
      if wasted > Self.wasteLimit { close() }
    case .bytes(1...):
      if !parser.isAmidRequest { extend() }
      parser.feed(bytes)
    case .bytes: hasEnded = true
    case .failed: close()
    }
  }

  /// One request, and what there is to send.
  override func resume() {
    guard registration != nil else { return }
    if output.isEmpty, !isLast { serve() }
    flush()
  }

  private func serve() {
    do throws(HTTPDefect) {
      if let request = try parser.next() {
        let response = answer(request)
        isLast = !request.keepsAlive
        output = response.bytes(closes: isLast)
        if request.method == "HEAD" { output.removeLast(response.body.count) }
        extend()
      } else if parser.awaitsContinue {
        parser.continued()
        output = HTTPResponse.goOn
      } else if hasEnded {
        isLast = true
      }
    } catch {
      isLast = true
      output = HTTPResponse(error.status, error.sentence).bytes(closes: true)
      extend()
    }
  }

  private func flush() {
    loop: while sent < output.count {
      switch output.withUnsafeBytes({ sendBytes(socket.rawValue, UnsafeRawBufferPointer(rebasing: $0[sent...])) }) {
      case .bytes(let count): sent += count
      case .wouldBlock: break loop
      case .failed: return close()
      }
    }
    if sent == output.count {
      // What was read meanwhile has its turn; the kernel says nothing of it any more.
      if sent > 0, !isLast { loop.enqueue(self) }
      output = []
      sent = 0
      if isLast {
        if hasEnded { return close() }
        if !hasShutDown { shutdownSending(socket.rawValue) }
        hasShutDown = true
      }
    }
    var wanted: EventSet = []
    if wantsInput { wanted.insert(.readable) }
    if !output.isEmpty { wanted.insert(.writable) }
    guard wanted != interest, let registration else { return }
    interest = wanted
    try? loop.modify(registration, wanted)
  }

  /// Its time is over: one that has sent a part of a request hears why.
  func expire() {
    guard !isLast, output.isEmpty, parser.isAmidRequest else { return close() }
    isLast = true
    output = HTTPResponse(408, "the request was not whole within \(AttestationServer.patience)").bytes(closes: true)
    extend()
    flush()
  }

  func close() {
    guard let registration else { return }
    loop.remove(registration)
    self.registration = nil
    shutdownBoth(socket.rawValue)
    ended(self)
  }
}
