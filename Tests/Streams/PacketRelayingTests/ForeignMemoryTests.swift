import CLinux
import EventLoop
import Foundation
import Inet
import LinuxSystem
import Packets
import Testing

@testable import PacketRelaying

/// What the other side of the memory may do to this one.
@Suite struct ForeignMemoryTests {
  /// A relay between two Unix sockets passes bytes and no descriptors: the enclave must learn of it, and not wait for ever.
  @Test func memoryThatDoesNotArrive() throws {
    let host = try TestQueue(.host, .awaitingMemory)
    #expect(pass([], over: host.farRaw) == 1)
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
    let sealed = FileReference(OwnedFileDescriptor(clinux_sealed_memory("short", length - 4096)))
    let unsealed = FileReference(OwnedFileDescriptor(clinux_vhost_memfd("unsealed", length)))
    let (pipe, _) = try makePipe()
    let directory = FileReference(OwnedFileDescriptor(clinux_open("/", O_RDONLY, 0)))
    for (file, code) in [(sealed, EMSGSIZE), (unsealed, EPERM), (pipe, EINVAL), (directory, EINVAL)] {
      do throws(SystemError) {
        _ = try PacketMemory(file, .host)
        Issue.record("taken for memory: \(file)")
      } catch {
        #expect(error.errno == code)
      }
      let test = try TestQueue(.host, .awaitingMemory)
      #expect(pass([file.rawValue], over: test.farRaw) == 1)
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
      let files = [Int32](repeating: file, count: 1 + round % 5)
      #expect(pass(files, over: test.farRaw) == 1)
      try test.turn()
      if files.count == 1 { #expect(test.losses.isEmpty) } else { #expect(test.losses.count == 1) }
      // With later bells, too.
      #expect(pass([file], over: far.test.farRaw) == 1)
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
    var number = 0
    // For as long as the ringing takes to begin.
    while number < 200 || flood.count <= 100_000 {
      #expect(try far.put(packet(100)))
      try far.test.turn()
      #expect(far.test.drain(far.test.device.rawValue) == packet(100), "packet \(number)")
      number += 1
    }
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
