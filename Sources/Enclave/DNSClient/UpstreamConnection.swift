import DNS
import EventLoop
import LinuxSystem
import Policy

/// One connection to one server: TLS where the server has a certificate, and queries in it.
final class UpstreamConnection: EventSource {
  struct Calls {
    /// Queries may be sent.
    var opened: () -> Void
    var replied: (UpstreamReply) -> Void
    /// Once, and last. The sentence is nil where the server has ended it in order.
    var ended: (String?) -> Void
  }

  private static let readLimit = 65536

  private let loop: EventLoop
  private let socket: FileReference
  private let session: TLSSession?
  private let queries: any UpstreamProtocol
  private let calls: Calls
  private var registration: Registration?
  private var interest: EventSet = [.readable]
  private var output: [UInt8] = []
  private var isEnded = false
  /// The server is the one that it should be.
  private(set) var isOpen = false
  private(set) var hasAnswered = false
  /// When something came last, in nanoseconds.
  private(set) var lastHeard = monotonicNanoseconds()

  /// - Parameter socket: connected already.
  init(
    loop: EventLoop, socket: FileReference, server: UpstreamServer, roots: TLSRoots?, calls: Calls
  ) throws {
    self.loop = loop
    self.socket = socket
    self.calls = calls
    switch (server.identity, roots) {
    case (let identity?, let roots?):
      session = try TLSSession(roots, identity, protocolName: server.way == .https ? "h2" : nil)
    case (nil, _): session = nil
    case (_, nil): throw TLSFailure(reason: "there are no certificates")
    }
    queries = server.way == .https ? try HTTP2Protocol(server) : LengthProtocol()
    super.init()
    registration = try loop.add(socket.rawValue, [.readable], self)
  }

  /// Apart from `init`, so that nothing is called before the caller holds this object.
  func start() {
    guard session != nil else {
      isOpen = true
      return calls.opened()
    }
    perform { () throws(TLSFailure) in try shakeHands() }
  }

  /// - Returns: false where this connection takes no more.
  func submit(_ query: DNSMessage) -> Bool {
    guard isOpen, !isEnded, queries.submit(query) else { return false }
    loop.enqueue(self)
    return true
  }

  /// What was submitted in one turn leaves together.
  override func resume() { perform { () throws(TLSFailure) in } }

  override func ready(_ events: EventSet, tag: Int) {
    guard !isEnded else { return }
    guard !events.isDisjoint(with: [.readable, .hangup, .error]) else { return perform { () throws(TLSFailure) in } }
    let (result, bytes) = readChunk(socket.rawValue, limit: Self.readLimit)
    switch result {
    case .wouldBlock: perform { () throws(TLSFailure) in }
    case .bytes(1...):
      lastHeard = monotonicNanoseconds()
      perform { () throws(TLSFailure) in try take(bytes) }
    case .bytes: end(isOpen ? nil : "the server has ended the connection in its handshake")
    case .failed(let number): end("\(SystemError("read", errno: number))")
    }
  }

  private func take(_ bytes: [UInt8]) throws(TLSFailure) {
    guard let session else { return try reply(queries.feed(bytes)) }
    try session.feed(bytes)
    if !isOpen { try shakeHands() }
    guard isOpen, !isEnded else { return }
    let (plain, ended) = try session.read()
    if !plain.isEmpty { try reply(queries.feed(plain)) }
    if ended { end(nil) }
  }

  private func shakeHands() throws(TLSFailure) {
    guard let session, try session.handshake() else { return }
    isOpen = true
    calls.opened()
  }

  private func reply(_ replies: [UpstreamReply]) {
    for reply in replies where !isEnded {
      if case .response = reply { hasAnswered = true }
      calls.replied(reply)
    }
  }

  /// Does something, and sends what it has led to.
  private func perform(_ work: () throws(TLSFailure) -> Void) {
    guard !isEnded else { return }
    do throws(TLSFailure) {
      try work()
      guard !isEnded else { return }
      let plain = isOpen ? try queries.drain() : []
      if let session {
        if !plain.isEmpty { try session.write(plain) }
        output += session.drain()
      } else {
        output += plain
      }
      flush()
    } catch {
      // The alert that tells the server.
      if let session { output += session.drain() }
      flush()
      end(error.reason)
    }
  }

  private func flush() {
    var sent = 0
    loop: while sent < output.count {
      switch output.withUnsafeBytes({ sendBytes(socket.rawValue, UnsafeRawBufferPointer(rebasing: $0[sent...])) }) {
      case .bytes(let count): sent += count
      case .wouldBlock: break loop
      // What the peer has sent before is read first; then the end shows.
      case .failed: sent = output.count
      }
    }
    output.removeFirst(sent)
    let wanted: EventSet = output.isEmpty ? [.readable] : [.readable, .writable]
    guard wanted != interest, let registration else { return }
    interest = wanted
    try? loop.modify(registration, wanted)
  }

  /// Ends it from our side, without a word.
  func close() {
    guard !isEnded else { return }
    isEnded = true
    if let registration { loop.remove(registration) }
    shutdownBoth(socket.rawValue)
  }

  private func end(_ reason: String?) {
    guard !isEnded else { return }
    close()
    calls.ended(reason)
  }
}
