import EventLoop
import LinuxSystem
import Relaying
import Testing
import Wire

/// Connections of one enclave that nobody reads.
@Suite(.serialized) struct RelayPressureTests {
  private func pair() throws -> (FileReference, FileReference) {
    let (one, other) = try makeSocketPair()
    try one.descriptor.setNonblocking()
    try other.descriptor.setNonblocking()
    return (one, other)
  }

  /// A hundred of them may not fill this process's memory; and who reads gets everything, meanwhile and afterwards.
  @Test func slowReadersTogetherHoldLittle() throws {
    let loop = try EventLoop()
    defer { loop.clear() }
    let buffer = RelayBuffer()
    let limit = 1 << 20
    let pressure = RelayPressure(limit: limit)
    func relay() throws -> (plain: FileReference, framed: FileReference) {
      let (plain, nearPlain) = try pair()
      let (framed, nearFramed) = try pair()
      _ = try Relay(loop: loop, buffer: buffer, plain: nearPlain, framed: nearFramed, pressure: pressure) { _, _ in }
      return (plain, framed)
    }
    func turn() throws {
      loop.schedule(after: .milliseconds(5), TimerSource { loop.stop() })
      try loop.run()
    }
    let chunk = [UInt8](repeating: 0x61, count: 200_000)
    var frame: [UInt8] = [0, 0x03, 0x0d, 0x40]
    frame += chunk
    var unread: [(plain: FileReference, framed: FileReference)] = []
    for _ in 0..<100 { unread.append(try relay()) }
    // Both directions, until nothing is taken any more: the sockets take the same of every frame.
    var taken = [Int](repeating: 0, count: unread.count)
    for _ in 0..<20 {
      for (index, (plain, framed)) in unread.enumerated() {
        _ = chunk.withUnsafeBytes { sendBytes(plain.rawValue, $0) }
        let start = taken[index] % frame.count
        if case .bytes(let count) = frame.withUnsafeBytes({
          sendBytes(framed.rawValue, UnsafeRawBufferPointer(rebasing: $0[start...]))
        }) {
          taken[index] += count
        }
      }
      try turn()
    }
    #expect(pressure.held > limit / 2 && pressure.held < limit + 200 * 4096, "\(pressure.held)")
    // A connection with a reader.
    let (plain, framed) = try relay()
    var sent = 0
    var received = 0
    var into = [UInt8](repeating: 0, count: 65536)
    for _ in 0..<2000 where received < frame.count - 4 {
      if case .bytes(let count) = frame.withUnsafeBytes({
        sendBytes(framed.rawValue, UnsafeRawBufferPointer(rebasing: $0[sent...]))
      }), sent < frame.count {
        sent += count
      }
      try turn()
      while case .bytes(let count) = into.withUnsafeMutableBytes({ readBytes(plain.rawValue, $0) }), count > 0 {
        received += count
      }
    }
    #expect(received == frame.count - 4)
    // Connections that end give back what they held.
    unread = []
    for _ in 0..<200 where pressure.held > 0 { try turn() }
    #expect(pressure.held == 0)
  }
}
