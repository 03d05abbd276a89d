import CLinux
import EventLoop
import Foundation
import Inet
import LinuxSystem
import Packets
import Synchronization
import Testing

@testable import PacketRelaying

/// The product's enclave side and its host's, with memory between them.
private struct Pair {
  let host: TestQueue
  let enclave: TestQueue

  init() throws {
    let (near, far) = try makeSocketPair()
    host = try TestQueue(.host, .awaitingMemory, near)
    enclave = try TestQueue(.enclave, .passing(PacketMemory()), far)
    try turn()
  }

  func turn() throws {
    for _ in 0..<3 {
      try enclave.turn()
      try host.turn()
    }
  }
}

/// The test itself as the enclave's side: it may write what it likes.
private final class FarSide {
  let test: TestQueue
  let memory: PacketMemory
  var writer: RingWriter
  var reader: RingReader

  init() throws {
    test = try TestQueue(.host, .awaitingMemory)
    memory = try PacketMemory()
    writer = memory.outgoing
    reader = memory.incoming
    try #require(pass(memory.file?.rawValue) == 1)
    try test.turn()
  }

  func pass(_ file: Int32?) -> Int {
    withUnsafePointer(to: 1 as UInt8) { byte in
      guard var file else { return clinux_send(test.farRaw, byte, 1, 0) }
      return clinux_send_with_descriptors(test.farRaw, byte, 1, &file, 1)
    }
  }

  func ring() { _ = pass(nil) }

  /// - Returns: whether there was room.
  func put(_ frame: [UInt8]) throws -> Bool {
    guard let room = try writer.room() else { return false }
    room.copyMemory(from: frame, byteCount: frame.count)
    if writer.publish(frame.count) { ring() }
    return true
  }
}

private func numbered(_ side: PacketGuard.Side, _ number: Int, _ count: Int) -> [UInt8] {
  var one = packet(count)
  // The enclave's side gets what the host's sends.
  if side == .host {
    one.replaceSubrange(22..<26, with: [192, 0, 2, 1])
    one.replaceSubrange(26..<30, with: [10, 118, 0, 2])
  }
  for (place, shift) in [(one.count - 4, 24), (one.count - 3, 16), (one.count - 2, 8), (one.count - 1, 0)] {
    one[place] = UInt8(truncatingIfNeeded: number >> shift)
  }
  return one
}

@Suite struct PacketMemoryTests {
  /// The places of docs/protocol-raw.md: an image and a host of different versions must agree on them.
  @Test func layout() throws {
    let memory = try PacketMemory()
    let file = try #require(memory.file)
    let host = try PacketMemory(LinuxSystem.FileHandle(file.descriptor.duplicate()), .host)
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
    #expect(pair.enclave.queue?.sharesMemory == true)
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

  /// A relay between two Unix sockets passes bytes and no descriptors: the enclave must learn of it, and not wait for ever.
  @Test func memoryThatDoesNotArrive() throws {
    let host = try TestQueue(.host, .awaitingMemory)
    #expect([UInt8(1)].withUnsafeBytes { sendBytes(host.farRaw, $0) } == .bytes(1))
    try host.turn()
    #expect(host.losses == [.noMemory])
    let enclave = try TestQueue(.enclave, .passing(PacketMemory()))
    shutdownBoth(enclave.farRaw)
    try enclave.turn()
    #expect(enclave.losses == [.memoryRefused])
  }

  /// Memory that can shrink would end the host with SIGBUS at the enclave's pleasure; anything else is no memory at all.
  @Test func whatIsNoSealedMemory() throws {
    let length = PacketMemory.size
    let sealed = LinuxSystem.FileHandle(OwnedFileDescriptor(clinux_sealed_memory("short", length - 4096)))
    let unsealed = LinuxSystem.FileHandle(OwnedFileDescriptor(clinux_vhost_memfd("unsealed", length)))
    let (pipe, _) = try makePipe()
    let directory = LinuxSystem.FileHandle(OwnedFileDescriptor(clinux_open("/", O_RDONLY, 0)))
    for (file, code) in [(sealed, EMSGSIZE), (unsealed, EPERM), (pipe, EINVAL), (directory, EINVAL)] {
      do throws(SystemError) {
        _ = try PacketMemory(file, .host)
        Issue.record("taken for memory: \(file)")
      } catch {
        #expect(error.errno == code)
      }
      let test = try TestQueue(.host, .awaitingMemory)
      var descriptor = file.rawValue
      let sent = withUnsafePointer(to: 1 as UInt8) {
        clinux_send_with_descriptors(test.farRaw, $0, 1, &descriptor, 1)
      }
      #expect(sent == 1)
      try test.turn()
      guard case .badMemory(let error) = test.losses.first else {
        Issue.record("\(test.losses)")
        continue
      }
      #expect(error.errno == code)
    }
    let own = try PacketMemory()
    let raw = try #require(own.file?.rawValue)
    #expect(ftruncate(raw, 0) == -1, "memory of ours can be cut short")
  }

  /// More descriptors than are asked for must not stay open: with enough of them the host could open nothing any more.
  @Test func descriptorsThatNobodyAskedFor() throws {
    func open() throws -> Int {
      try #require(try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")).count
    }
    let far = try FarSide()
    let before = try open()
    for round in 0..<200 {
      let test = try TestQueue(.host, .awaitingMemory)
      let memory = try PacketMemory()
      let file = try #require(memory.file?.rawValue)
      var files = [Int32](repeating: file, count: 1 + round % 5)
      let sent = withUnsafePointer(to: 1 as UInt8) {
        clinux_send_with_descriptors(test.farRaw, $0, 1, &files, Int32(files.count))
      }
      #expect(sent == 1)
      try test.turn()
      if files.count == 1 { #expect(test.losses.isEmpty) } else { #expect(test.losses.count == 1) }
      // With later bells, too.
      #expect(far.pass(file) == 1)
      try far.test.turn()
    }
    #expect(try open() == before)
    #expect(far.test.losses.isEmpty)
  }

  /// A side that rings without end is heard once a turn: else it could keep the queue's thread from everything else, from
  /// stopping as well.
  @Test(.timeLimit(.minutes(1))) func ringingWithoutEnd() throws {
    let far = try FarSide()
    let flood = Flood()
    try flood.start(far.test.farRaw)
    defer { flood.stop() }
    for number in 0..<200 {
      #expect(try far.put(packet(100)))
      try far.test.turn()
      #expect(far.test.drain(far.test.device.rawValue) == packet(100), "packet \(number)")
    }
    #expect(flood.count > 100_000)
  }

  /// A killed side has not read all that it was sent, which makes its end a reset: what it had written still comes.
  @Test func theEndOfASideThatDidNotHear() throws {
    let far = try FarSide()
    _ = try far.reader.look()
    #expect(clinux_write(far.test.device.rawValue, packet(), 50) == 50)
    try far.test.turn()
    for size in [300, 200, 100] { #expect(try far.put(packet(size))) }
    far.test.closeFar()
    try far.test.turn()
    for size in [300, 200, 100] { #expect(far.test.drain(far.test.device.rawValue) == packet(size)) }
    #expect(far.test.losses == [.closed])
    // The same before the host has the memory.
    let enclave = try TestQueue(.enclave, .passing(PacketMemory()))
    enclave.closeFar()
    try enclave.turn()
    #expect(enclave.losses == [.memoryRefused])
  }

  /// Positions and lengths that cannot be end the stream, at once and without a look at what lies there.
  @Test func positionsThatCannotBe() throws {
    let ring = UInt64(PacketMemory.ring)
    let heads: [UInt64] = [ring + 8, ring + 1, .max, 1 << 63, 3, .max - 7]
    for head in heads {
      let far = try FarSide()
      clinux_store_release_u64(far.writer.control + RingField.head, head)
      far.ring()
      try far.test.turn()
      #expect(far.test.losses == [.badRing], "head \(head)")
    }
    // One that the ring could have is a lie at the liar's expense: its own frames are overwritten.
    for tail in [ring + 8, 1 << 63, .max - ring] as [UInt64] {
      let far = try FarSide()
      // It is read when the ring seems to be full.
      clinux_store_release_u64(far.reader.control + RingField.tail, tail)
      let one = packet(60000)
      for _ in 0..<9 {
        #expect(clinux_write(far.test.device.rawValue, one, one.count) == one.count)
        try far.test.turn()
      }
      #expect(far.test.losses == [.badRing], "tail \(tail)")
    }
    for length in [0, UInt32(PacketGuard.frameLimit) + 1, 1 << 31, .max, 100] {
      let far = try FarSide()
      let room = try #require(try far.writer.room())
      clinux_store_u32(room - 4, length)
      clinux_store_release_u64(far.writer.control + RingField.head, 64)
      far.ring()
      try far.test.turn()
      #expect(far.test.losses == [.badRing], "length \(length)")
    }
  }

  /// Both control blocks and the rings written over with anything, again and again: the host's side goes on or ends the
  /// stream, and never reads or writes anywhere else.
  @Test func anythingAnywhere() throws {
    var random = SystemRandomNumberGenerator()
    var ended = 0
    for _ in 0..<3000 {
      let far = try FarSide()
      for _ in 0..<20 {
        switch random.next() % 4 {
        case 0:
          let control = random.next() & 1 == 0 ? far.writer.control : far.reader.control
          let field =
            [RingField.head, RingField.tail, RingField.writerWaits, RingField.readerWaits].randomElement() ?? 0
          let values: [UInt64] = [
            random.next(), random.next() % 4096, random.next() % UInt64(PacketMemory.ring) & ~7, 0,
          ]
          clinux_store_release_u64(control + field, values.randomElement() ?? 0)
        case 1:
          let ring = random.next() & 1 == 0 ? far.writer.ring : far.reader.ring
          (ring + Int(random.next() % UInt64(PacketMemory.ring - 8))).storeBytes(of: random.next(), as: UInt64.self)
        case 2: _ = try? far.put(packet(20 + Int(random.next() % 3000)))
        default: _ = clinux_write(far.test.device.rawValue, packet(), 50)
        }
        far.ring()
        try far.test.turn()
        while !far.test.drain(far.test.device.rawValue).isEmpty {}
        if !far.test.losses.isEmpty { break }
      }
      if !far.test.losses.isEmpty { ended += 1 }
    }
    #expect(ended > 1000)
  }

  /// Of what it takes from its network the host decides too: with a shared address a packet is the enclave's, the host's own,
  /// or answered with a reset. An enclave that could change it meanwhile would have the host send resets to anybody.
  @Test func devicesLookAtTheirOwnMemoryAlone() throws {
    let (near, far) = try makeSocketPair()
    let memory = try PacketMemory()
    let device = LookingDevice(try makePipe().reading)
    let loop = try EventLoop()
    let queue = try PacketQueue(
      loop: loop, device: device, packetGuard: PacketGuard(.enclave, address4: .init(10, 118, 0, 2), address6: nil)
    ) { _ in }
    device.shared = [memory.outgoing.ring, memory.incoming.ring].map { $0..<$0 + 2 * PacketMemory.ring }
    try queue.attach(near, .passing(memory))
    let host = try TestQueue(.host, .awaitingMemory, far)
    for size in [1500, 600, 50] {
      device.next = numbered(.enclave, size, size)
      loop.schedule(after: .zero, TimerSource { loop.stop() })
      queue.ready([.readable], tag: 0)
      try loop.run()
      try host.turn()
      #expect(host.drain(host.device.rawValue) == numbered(.enclave, size, size))
      let back = numbered(.host, size, size)
      #expect(clinux_write(host.device.rawValue, back, back.count) == back.count)
      try host.turn()
      loop.schedule(after: .zero, TimerSource { loop.stop() })
      try loop.run()
      #expect(device.written == back)
    }
    #expect(!device.hasSeenSharedMemory)
  }

  /// The enclave's own memory may change while the host looks at it. What was judged is what the kernel gets: else an enclave
  /// could send from an address that is not its own, by writing another one between the look and the write.
  @Test func whatWasJudgedIsWhatIsWritten() throws {
    let far = try FarSide()
    let scribbler = Scribbler()
    try scribbler.start(far.writer.ring)
    defer { scribbler.stop() }
    var passed = 0
    var refused: UInt64 = 0
    let deadline = monotonicNanoseconds() + 60_000_000_000
    while passed < 20_000 || refused < 1000, monotonicNanoseconds() < deadline {
      // Records of 1024 bytes, so that they begin at multiples of it for ever.
      for _ in 0..<64 { if try !far.put(packet(1010)) { break } }
      try far.test.turn()
      while true {
        let bytes = far.test.drain(far.test.device.rawValue)
        guard !bytes.isEmpty else { break }
        try #require(Array(bytes[22..<26]) == [10, 118, 0, 2], "a packet from \(bytes[22..<26]) has passed")
        try #require(bytes.count == 1020)
        passed += 1
      }
      refused = far.test.counters.drops(.badSource)
    }
    #expect(passed >= 20_000 && refused >= 1000, "passed \(passed), refused \(refused)")
  }
}

/// A device that looks at packets, and at where they are.
private final class LookingDevice: PacketDevice {
  var shared: [Range<UnsafeMutableRawPointer>] = []
  var next: [UInt8] = []
  var written: [UInt8] = []
  var hasSeenSharedMemory = false

  override var looksInside: Bool { true }

  override func read(_ frame: UnsafeMutableRawPointer) -> Int {
    look(frame)
    guard !next.isEmpty else { return -Int(EAGAIN) }
    frame.copyMemory(from: next, byteCount: next.count)
    defer { next = [] }
    return next.count
  }

  override func write(_ frame: UnsafeRawBufferPointer) -> PacketDefect? {
    if let start = frame.baseAddress { look(UnsafeMutableRawPointer(mutating: start)) }
    written = Array(frame)
    return nil
  }

  private func look(_ place: UnsafeMutableRawPointer) {
    if shared.contains(where: { $0.contains(place) }) { hasSeenSharedMemory = true }
  }
}

/// A thread that sends as many bytes as the socket takes.
private final class Flood: Sendable {
  private let ends = Atomic(false)
  private let hasEnded = Atomic(false)
  private let sent = Atomic(0)
  var count: Int { sent.load(ordering: .relaxed) }

  func start(_ socket: Int32) throws {
    try startThread { [self] in
      let bells = [UInt8](repeating: 1, count: 65536)
      while !ends.load(ordering: .relaxed) {
        sent.add(max(0, clinux_send(socket, bells, bells.count, 0)), ordering: .relaxed)
      }
      hasEnded.store(true, ordering: .releasing)
    }
  }

  func stop() {
    ends.store(true, ordering: .relaxed)
    while !hasEnded.load(ordering: .acquiring) { yieldProcessor() }
  }
}

/// A thread that changes the source address of every record of 1024 bytes to and fro.
private final class Scribbler: Sendable {
  private let ends = Atomic(false)
  private let hasEnded = Atomic(false)

  func start(_ ring: UnsafeMutableRawPointer) throws {
    nonisolated(unsafe) let ring = ring
    try startThread { [self] in
      while !ends.load(ordering: .relaxed) {
        for record in stride(from: 0, to: PacketMemory.ring, by: 1024) {
          // Length, virtio-net header, and 12 bytes of the packet are before it.
          let address = ring + record + 4 + 10 + 12
          address.storeBytes(of: address.load(as: UInt8.self) ^ 1, as: UInt8.self)
        }
      }
      hasEnded.store(true, ordering: .releasing)
    }
  }

  func stop() {
    ends.store(true, ordering: .relaxed)
    while !hasEnded.load(ordering: .acquiring) { yieldProcessor() }
  }
}
