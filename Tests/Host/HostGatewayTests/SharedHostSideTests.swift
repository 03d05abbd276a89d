import EventLoop
import HostStatus
import Inet
import LinuxSystem
import LogText
import Policy
import Relaying
import Testing
import Wire

@testable import HostGateway

/// Two enclaves at one host side: what one of them does is its own harm.
@Suite(.serialized) struct SharedHostSideTests {
  /// An enclave as the host sees it, over one end of a socket pair for each stream.
  private final class Enclave {
    let side: HostSide
    let peer: PeerKey
    let secrets = BootSecrets(
      session: Enclave.token(1), proxy: Enclave.token(2), host: Enclave.token(3))
    var streams: [FileReference] = []

    static func token(_ byte: UInt8) -> Token {
      Token([UInt8](repeating: byte, count: Token.length)) ?? .none
    }

    init(_ side: HostSide, _ peer: PeerKey) throws {
      self.side = side
      self.peer = peer
      let report = StartReport(
        boot: BootID(high: 1, low: UInt64(peer)), proxyToken: secrets.proxy, hostToken: secrets.host,
        configurationDigest: [UInt8](repeating: 0, count: StartReport.digestLength), version: "1")
      _ = try open(Hello(.session, token: secrets.session, parameters: report.parameters))
    }

    /// - Parameter hello: nil for a stream that says nothing.
    @discardableResult
    func open(_ hello: Hello?) throws -> FileReference {
      let (ours, theirs) = try makeSocketPair()
      try ours.descriptor.setNonblocking()
      try theirs.descriptor.setNonblocking()
      side.dispatcher.accept(theirs, from: peer)
      if let hello { _ = hello.encoded().withUnsafeBytes { sendBytes(ours.rawValue, $0) } }
      streams.append(ours)
      return ours
    }

    func open(_ channel: Channel, _ parameters: [UInt8] = []) throws -> FileReference {
      try open(Hello(channel, token: secrets.token(for: channel), parameters: parameters))
    }
  }

  private func read(_ stream: FileReference) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: 65536)
    switch bytes.withUnsafeMutableBytes({ readBytes(stream.rawValue, $0) }) {
    case .bytes(let count): return Array(bytes[..<count])
    case .wouldBlock: return []
    case .failed: return nil
    }
  }

  private func status(_ stream: FileReference) throws -> Status? {
    try Answer.decode(read(stream) ?? [])?.answer.status
  }

  private func turn(_ loop: EventLoop, _ milliseconds: Int = 20) throws {
    loop.schedule(after: .milliseconds(milliseconds), TimerSource { loop.stop() })
    try loop.run()
  }

  /// - Parameter body: gets a server's address, where connections are accepted and kept.
  private func withSide(openFiles: Int, _ body: (EventLoop, HostSide, IPEndpoint, () -> [String]) throws -> Void) throws
  {
    let directory = try makeTemporaryDirectory("/tmp/tombolo-test-")
    defer { removeTree(directory) }
    let loop = try EventLoop()
    defer { loop.clear() }
    var settings = HostSettings()
    settings.destinations.allowed = [try DestinationRule("127.0.0.1")]
    settings.nameServer = IPAddress("127.0.0.1")
    settings.limits = HostLimits(openFiles: openFiles)
    var place = HostPlace(
      listen: .unix("\(directory)/host"), enclave: StreamTarget(.unix("\(directory)/enclave")), transport: "a test")
    place.peers = .any
    var sentences: [String] = []
    let side = try HostSide(
      settings, command: "host", place: place, loop: loop, transport: try place.open(), published: []
    ) { sentences.append($0) }
    defer { side.close() }
    let server = FileReference(try listenStream(.ip(IPEndpoint(.v4(.loopback), 0))))
    var kept: [FileReference] = []
    let listener = try Listener(loop: loop, socket: server, report: { _ in }) { connection, _ in kept.append(connection)
    }
    try body(loop, side, try #require(localEndpoint(server.rawValue)), { sentences })
    listener.close()
    kept = []
  }

  private func connect(_ endpoint: IPEndpoint) -> [UInt8] { ConnectRequest(.endpoint(endpoint)).hello.parameters }

  /// Connections without end, and streams that say nothing: the second enclave connects as before.
  @Test func connectionsAndSilentStreams() throws {
    try withSide(openFiles: 400) { loop, side, endpoint, sentences in
      let (greedy, modest) = (try Enclave(side, 3), try Enclave(side, 4))
      try turn(loop)
      var answers: [Status: Int] = [:]
      for _ in 0..<300 {
        let stream = try greedy.open(.connect, connect(endpoint))
        try turn(loop, 1)
        try turn(loop, 1)
        if let status = try status(stream) { answers[status, default: 0] += 1 }
      }
      #expect(answers[.ok] ?? 0 > 50 && answers[.noResources] ?? 0 > 50, "\(answers)")
      for _ in 0..<600 {
        try greedy.open(nil)
      }
      try turn(loop)
      for _ in 0..<10 {
        let stream = try modest.open(.connect, connect(endpoint))
        try turn(loop)
        #expect(try status(stream) == .ok)
      }
      var counted: HostStatus?
      side.complete(HostStatus(pid: 1, command: "host", name: "", version: "", transport: "", published: [])) {
        counted = $0
      }
      #expect(counted?.overLimit?["outgoing"] ?? 0 > 50 && counted?.overLimit?["hellos"] ?? 0 > 50)
      // Said, and not six hundred times.
      let said = sentences().filter { $0.contains("CID 3 has too many at a time") }
      #expect((2...20).contains(said.count), "\(sentences())")
      // What is closed can be had again.
      greedy.streams.removeAll()
      try turn(loop, 100)
      let stream = try greedy.open(.connect, connect(endpoint))
      #expect(stream.rawValue >= 0)
    }
  }

  /// Queries without end from an enclave that does not read the answers: memory stays, and the second one gets its own.
  @Test func queriesWhoseAnswersNobodyReads() throws {
    try withSide(openFiles: 1024) { loop, side, _, _ in
      let (greedy, modest) = (try Enclave(side, 3), try Enclave(side, 4))
      try turn(loop)
      // One question for a long name.
      var query: [UInt8] = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
      for _ in 0..<4 { query += [60] + [UInt8](repeating: 0x61, count: 60) }
      query += [0, 0, 1, 0, 1]
      let message = [UInt8(query.count >> 8), UInt8(query.count & 0xff)] + query
      let many = [[UInt8]](repeating: message, count: 200).flatMap { $0 }
      var open: [FileReference] = []
      for _ in 0..<60 { open.append(try greedy.open(.resolve)) }
      try turn(loop)
      let before = try residentBytes()
      var refused = 0
      for stream in open where try status(stream) == .noResources { refused += 1 }
      #expect(refused == 52)
      for _ in 0..<150 {
        for stream in open { _ = many.withUnsafeBytes { sendBytes(stream.rawValue, $0) } }
        try turn(loop, 2)
      }
      #expect(try residentBytes() - before < 32 << 20)
      let stream = try modest.open(.resolve)
      _ = message.withUnsafeBytes { sendBytes(stream.rawValue, $0) }
      var got = 0
      for _ in 0..<100 where got < 8 + message.count {
        try turn(loop)
        got += read(stream)?.count ?? 0
      }
      #expect(got == 8 + message.count)
    }
  }

  private func residentBytes() throws -> Int {
    let pages = try readText("/proc/self/statm").split(separator: " ")
    return (Int(pages[1]) ?? 0) * 4096
  }
}
