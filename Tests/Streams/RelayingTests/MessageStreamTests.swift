import CLinux
import EventLoop
import Inet
import LinuxSystem
import Relaying
import Testing

/// Queries and answers on their stream: none may be lost because several go together.
@Suite(.serialized) struct MessageStreamTests {
  private func run(_ loop: EventLoop, until done: () -> Bool) throws {
    let end = monotonicNanoseconds() + 10_000_000_000
    while !done(), monotonicNanoseconds() < end {
      loop.schedule(after: .milliseconds(1), TimerSource { loop.stop() })
      try loop.run()
    }
    #expect(done())
  }

  private func nonBlockingPair() throws -> (FileReference, FileReference) {
    let (a, b) = try makeSocketPair()
    for socket in [a, b] { try checkErrno("fcntl") { clinux_set_nonblocking(socket.rawValue, true) } }
    return (a, b)
  }

  @Test func messagesOfOneTurnGoTogetherAndInOrder() throws {
    let loop = try EventLoop()
    let (a, b) = try nonBlockingPair()
    let sender = try MessageStream(loop: loop, socket: a) { _, _ in
    } closed: { _ in
    }
    for number in 0..<3 { #expect(sender.send([UInt8](repeating: 7, count: number))) }
    var expected: [UInt8] = []
    for number in 0..<3 { expected += [0, UInt8(number)] + [UInt8](repeating: 7, count: number) }
    var bytes: [UInt8] = []
    try run(loop) {
      if bytes.isEmpty { bytes = readChunk(b.rawValue, limit: 1000).bytes }
      return !bytes.isEmpty
    }
    #expect(bytes == expected)
  }

  /// What is sent right before the end of the stream arrives.
  @Test func theLastMessageArrives() throws {
    let loop = try EventLoop()
    let (a, b) = try nonBlockingPair()
    let sender = try MessageStream(loop: loop, socket: a) { _, _ in
    } closed: { _ in
    }
    sender.send([1, 2, 3])
    sender.close()
    #expect(readChunk(b.rawValue, limit: 1000).bytes == [0, 3, 1, 2, 3])
    #expect(!sender.send([4]))
  }

  /// A side that answers takes no more queries than its reader takes answers, and goes on when that reads again.
  @Test func aReaderThatIsSlow() throws {
    let loop = try EventLoop()
    let (a, b) = try nonBlockingPair()
    var taken = 0
    var answered: [Int] = []
    let answer = [UInt8](repeating: 9, count: 20_000)
    let server = try MessageStream(loop: loop, socket: a, outputLimit: 256 * 1024, readsWhileItWrites: false) {
      taken += 1
      #expect($0.send(answer))
      #expect($1.count == 4)
    } closed: { _ in
    }
    var queries = [UInt8](repeating: 0, count: 0)
    for number in 0..<500 { queries += [0, 4, 0, 0, UInt8(number >> 8), UInt8(number & 0xff)] }
    guard case .bytes(let written) = queries.withUnsafeBytes({ sendBytes(b.rawValue, $0) }) else {
      Issue.record("not written")
      return
    }
    #expect(written == queries.count)
    var turns = 0
    try run(loop) {
      turns += 1
      return turns > 50
    }
    #expect(taken > 0 && taken < 500)

    var input: [UInt8] = []
    try run(loop) {
      input += readChunk(b.rawValue, limit: 1 << 20).bytes
      return input.count >= 500 * (answer.count + 2)
    }
    for start in stride(from: 0, to: input.count - 1, by: answer.count + 2) {
      answered.append(Int(input[start]) << 8 | Int(input[start + 1]))
    }
    #expect(answered == [Int](repeating: answer.count, count: 500))
    server.close()
  }

  /// Each client gets the answer to its own query, however many come at once.
  @Test func datagramsTogether() throws {
    let server = try bindDatagram(.init(.v4(.loopback), 0))
    let endpoint = try #require(localEndpoint(server.rawValue))
    var clients: [FileReference] = []
    for number in 0..<70 {
      let client = FileReference(try connectDatagram(endpoint))
      sendDatagram(client.rawValue, [UInt8(number)], to: nil)
      clients.append(client)
    }
    sendDatagram(clients[0].rawValue, [UInt8](repeating: 5, count: 60_000), to: nil)
    let room = DatagramRoom()
    var answers = DatagramQueue()
    var counts: [Int] = []
    var long = 0
    while case let count = room.receive(server.rawValue), count > 0 {
      counts.append(count)
      for index in 0..<count {
        let (bytes, peer) = room[index]
        if bytes.count == 1 { answers.append([bytes[0], 77], to: peer) } else { long = bytes.count }
      }
    }
    #expect(counts == [32, 32, 7] && long == 60_000 && answers.isFull)
    answers.send(server.rawValue)
    #expect(answers.isEmpty)
    for (number, client) in clients.enumerated() {
      #expect(readChunk(client.rawValue, limit: 100).bytes == [UInt8(number), 77])
    }
  }

  /// The host's resolv.conf is read again when it has changed, and only then.
  @Test func aFileThatHasChanged() throws {
    let path = "/tmp/tombolo-test-stamp-\(monotonicNanoseconds())"
    #expect(FileStamp(path) == nil)
    try writeFile(path, "nameserver 1.1.1.1\n")
    defer { removeFile(path) }
    let stamp = FileStamp(path)
    #expect(stamp != nil && stamp == FileStamp(path))
    removeFile(path)
    try writeFile(path, "nameserver 1.1.1.11\n")
    #expect(stamp != FileStamp(path))
  }
}
