import CLinux
import LinuxSystem
import Packets
import Testing

@testable import PacketRelaying

/// Packets through memory between two sides that keep to what was agreed.
@Suite struct PacketMemoryTests {
  /// The places of docs/protocol.md: an image and a host of different versions must agree on them.
  @Test func layout() throws {
    let memory = try PacketMemory()
    let file = try #require(memory.file)
    let host = try PacketMemory(FileReference(file.descriptor.duplicate()), .host)
    var address: UnsafeMutableRawPointer?
    #expect(clinux_vhost_map_shared(file.rawValue, 1_114_112, &address) == 0)
    let bytes = try #require(address)
    defer { _ = clinux_vhost_unmap(bytes, 1_114_112) }
    for (side, control, ring) in [(memory, 0, 65536), (host, 512, 589_824)] {
      var writer = side.outgoing
      var reader = (side === memory ? host : memory).incoming
      var found = try reader.look()
      #expect(!found)
      #expect(bytes.load(fromByteOffset: control + 136, as: UInt32.self) == 1)
      try #require(try writer.room()).copyMemory(from: [7, 8, 9] as [UInt8], byteCount: 3)
      let sleeps = writer.publish(3)
      #expect(sleeps)
      #expect(bytes.load(fromByteOffset: control + 136, as: UInt32.self) == 0)
      #expect(bytes.load(fromByteOffset: control, as: UInt64.self) == 8)
      #expect(bytes.load(fromByteOffset: ring, as: UInt32.self) == 3)
      #expect((4..<7).map { bytes.load(fromByteOffset: ring + $0, as: UInt8.self) } == [7, 8, 9])
      // Until there is no room any more, which the writer says.
      var written = 1
      while try writer.room() != nil {
        _ = writer.publish(PacketGuard.frameLimit)
        written += 1
      }
      #expect(written == 8)
      #expect(bytes.load(fromByteOffset: control + 8, as: UInt32.self) == 1)
      found = try reader.look()
      #expect(found)
      #expect(try reader.next().map(Array.init) == [7, 8, 9])
      let isRung = reader.release(3)
      #expect(!isRung)
      #expect(bytes.load(fromByteOffset: control + 128, as: UInt64.self) == 8)
      var rings = 0
      while let frame = try reader.next() { rings += reader.release(frame.count) ? 1 : 0 }
      #expect(rings == 1)
      #expect(bytes.load(fromByteOffset: control + 8, as: UInt32.self) == 0)
    }
  }

  /// Every packet once, whole and in order, over the rings' ends many times: anything else is garbage in a program's data,
  /// or an answer that never comes.
  @Test func carriesBothWays() throws {
    let pair = try Pair()
    #expect(pair.enclave.queue?.usesMemory == true)
    var random = SystemRandomNumberGenerator()
    for (from, to, side) in [(pair.enclave, pair.host, PacketGuard.Side.enclave), (pair.host, pair.enclave, .host)] {
      var bytes = 0
      for number in 0..<400 {
        let one = numbered(side, number, 40 + Int(random.next() % 20000))
        try #require(clinux_write(from.device.rawValue, one, one.count) == one.count)
        try pair.turn()
        #expect(to.drain(to.device.rawValue) == one, "packet \(number) of \(one.count) bytes")
        bytes += one.count
      }
      #expect(bytes > 3 * PacketMemory.ring)
      #expect(from.counters.packetsOut == 400)
      #expect(to.counters.packetsIn == 400)
      #expect(to.counters.bytesIn == from.counters.bytesOut)
    }
    #expect(pair.host.losses.isEmpty && pair.enclave.losses.isEmpty)
  }

  /// A slow side must hold the packets back, not lose them, and be told of it when it may go on.
  @Test func backPressure() throws {
    let pair = try Pair()
    var written = 0
    // The host's side does not run meanwhile.
    for _ in 0..<2000 {
      while true {
        let one = numbered(.enclave, written, 1500)
        guard clinux_write(pair.enclave.device.rawValue, one, one.count) == one.count else { break }
        written += 1
      }
      try pair.enclave.turn()
    }
    #expect(clinux_write(pair.enclave.device.rawValue, packet(1500), 1510) == -Int(EAGAIN))
    #expect(written * 1510 > PacketMemory.ring - 2 * PacketGuard.frameLimit)
    var received = 0
    var last = -1
    var idle = 0
    while idle < 3 {
      try pair.host.turn()
      let before = received
      while true {
        let bytes = pair.host.drain(pair.host.device.rawValue)
        guard bytes.count == 1510 else { break }
        let number = bytes.suffix(4).reduce(0) { $0 << 8 | Int($1) }
        #expect(number > last)
        last = number
        received += 1
      }
      try pair.enclave.turn()
      idle = received == before ? idle + 1 : 0
    }
    // The pair of sockets that stands for the device has less room than the ring, and is written to without waiting.
    #expect(received + Int(pair.host.counters.drops(.notTaken)) == written)
    #expect(pair.host.counters.packetsIn == UInt64(received))
    #expect(pair.enclave.counters.packetsOut == UInt64(written))
  }

  /// What was sent before the other side ended still comes, and its end is noticed.
  @Test func theEndComesBehindTheLastPackets() throws {
    let pair = try Pair()
    for number in 0..<3 {
      let one = numbered(.enclave, number, 100)
      #expect(clinux_write(pair.enclave.device.rawValue, one, one.count) == one.count)
    }
    try pair.enclave.turn()
    pair.enclave.queue?.close()
    try pair.host.turn()
    for number in 0..<3 { #expect(pair.host.drain(pair.host.device.rawValue) == numbered(.enclave, number, 100)) }
    #expect(pair.host.losses == [.closed])
    // Its next stream finds a queue that works.
    let (near, far) = try makeSocketPair()
    try pair.host.queue?.attach(near, .awaitingMemory)
    let next = try TestQueue(.enclave, .passing(PacketMemory()), far)
    for _ in 0..<3 {
      try next.turn()
      try pair.host.turn()
    }
    #expect(clinux_write(next.device.rawValue, packet(), 50) == 50)
    try next.turn()
    try pair.host.turn()
    #expect(pair.host.drain(pair.host.device.rawValue) == packet())
  }

  /// A bell and the end may come together, in one event, as in `anEndBehindTheLastBytesIsSeen`.
  @Test func anEndBehindABellIsSeen() throws {
    let far = try FarSide()
    far.ring()
    shutdownSending(far.test.farRaw)
    try far.test.turn()
    #expect(far.test.losses == [.closed])
  }
}
