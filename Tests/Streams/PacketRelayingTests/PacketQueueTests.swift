import CLinux
import EventLoop
import Inet
import LinuxSystem
import Packets
import Policy
import Testing

@testable import PacketRelaying

/// Addresses for documentation stand for the internet here.
private let documentation = Destinations(
  allowed: ["192.0.2.0/24"].compactMap { IPPrefix($0) }.map { DestinationRule($0) })

/// A queue whose TUN device is a pair of datagram sockets: one read or write is one packet there as well.
final class TestQueue {
  let loop: EventLoop
  let device: FileReference
  /// The other end of the stream, where the test has it.
  private var far: FileReference?
  var queue: PacketQueue?
  var losses: [PacketQueue.Loss] = []

  convenience init(_ side: PacketGuard.Side = .host, _ use: PacketQueue.Use = .frames()) throws {
    let (near, far) = try makeSocketPair()
    try far.descriptor.setNonblocking()
    try self.init(side, use, near, far: far)
  }

  init(_ side: PacketGuard.Side, _ use: PacketQueue.Use, _ near: FileReference, far: FileReference? = nil) throws {
    loop = try EventLoop()
    var pair: [Int32] = [-1, -1]
    try checkErrno("socketpair") {
      socketpair(AF_UNIX, Int32(CLINUX_SOCK_DGRAM | CLINUX_SOCK_CLOEXEC | CLINUX_SOCK_NONBLOCK), 0, &pair)
    }
    device = FileReference(OwnedFileDescriptor(pair[1]))
    self.far = far
    let made = try PacketQueue(
      loop: loop, tun: FileReference(OwnedFileDescriptor(pair[0])),
      packetGuard: PacketGuard(side, address4: IPv4Address(10, 118, 0, 2), address6: nil, destinations: documentation)
    ) { [unowned self] in losses.append($0) }
    queue = made
    try made.attach(near, use)
  }

  /// The loop holds the queue, and the queue the loop.
  deinit { loop.clear() }

  var farRaw: Int32 { far?.rawValue ?? -1 }
  func closeFar() { far = nil }

  var counters: PacketCounters { queue?.counters ?? PacketCounters() }

  func turn() throws {
    let stop = TimerSource { [loop] in loop.stop() }
    loop.schedule(after: .zero, stop)
    try loop.run()
  }

  func drain(_ fd: Int32) -> [UInt8] {
    var buffer = [UInt8](repeating: 0, count: 1 << 20)
    let count = clinux_read(fd, &buffer, buffer.count)
    return count > 0 ? Array(buffer[..<count]) : []
  }
}

func framed(_ bytes: [UInt8]) -> [UInt8] {
  let count = UInt32(bytes.count)
  return [UInt8(count >> 24), UInt8(count >> 16 & 0xff), UInt8(count >> 8 & 0xff), UInt8(count & 0xff)] + bytes
}

func packet(_ count: Int = 40) -> [UInt8] {
  Array(repeating: 0, count: 10) + [0x45, 0, UInt8(count >> 8), UInt8(count & 0xff), 0, 0, 0, 0, 64, 17, 0, 0]
    + [10, 118, 0, 2, 192, 0, 2, 1] + Array(repeating: 5, count: count - 20)
}

@Suite struct PacketQueueTests {
  /// Packets arrive whole, in order and behind their lengths: a program's data would be garbage otherwise.
  @Test func carriesBothWays() throws {
    let test = try TestQueue()
    let packets = [packet(), packet(1500), packet(200)]
    for one in packets { #expect(clinux_write(test.device.rawValue, one, one.count) == one.count) }
    try test.turn()
    #expect(test.drain(test.farRaw) == packets.flatMap(framed))

    // However the stream was cut.
    var rest = packets.flatMap(framed)[...]
    while !rest.isEmpty {
      let piece = Array(rest.prefix(7))
      #expect(clinux_write(test.farRaw, piece, piece.count) == piece.count)
      rest = rest.dropFirst(7)
      try test.turn()
    }
    for one in packets { #expect(test.drain(test.device.rawValue) == one) }
    #expect(test.counters.packetsIn == 3)
    #expect(test.counters.packetsOut == 3)
    #expect(test.counters.bytesOut == 1740)
    #expect(test.counters.drops == 0)
  }

  /// A slow transport must hold the packets back, not lose them: the device keeps what does not fit.
  @Test func backPressure() throws {
    let test = try TestQueue()
    let one = packet(1500)
    var written = 0
    for _ in 0..<2000 {
      while clinux_write(test.device.rawValue, one, one.count) == one.count { written += 1 }
      try test.turn()
    }
    // The kernel's buffers and one of ours are full: nothing moves any more.
    #expect(clinux_write(test.device.rawValue, one, one.count) == -Int(EAGAIN))
    var received = 0
    while true {
      let bytes = test.drain(test.farRaw)
      received += bytes.count
      try test.turn()
      if bytes.isEmpty { break }
    }
    #expect(received == written * (4 + 1510))
    #expect(test.counters.packetsOut == UInt64(written))
  }

  /// Whatever comes: every frame is passed on or counted, nothing traps.
  @Test func everyDropIsCounted() throws {
    let test = try TestQueue()
    var random = SystemRandomNumberGenerator()
    var sent: UInt64 = 0
    for _ in 0..<2000 {
      var bytes: [UInt8] = []
      for _ in 0..<20 {
        var frame = packet(20 + Int(random.next() % 200))
        switch random.next() % 4 {
        case 0: break
        case 1: frame[Int(random.next() % UInt64(frame.count))] = UInt8(truncatingIfNeeded: random.next())
        case 2: frame.removeLast(Int(random.next() % UInt64(frame.count)))
        default: frame = frame.map { _ in UInt8(truncatingIfNeeded: random.next()) }
        }
        bytes += framed(frame)
        sent += 1
      }
      var offset = 0
      while offset < bytes.count {
        let count = bytes[offset...].withUnsafeBytes { clinux_write(test.farRaw, $0.baseAddress, $0.count) }
        if count > 0 { offset += count }
        try test.turn()
        while !test.drain(test.device.rawValue).isEmpty {}
      }
    }
    try test.turn()
    #expect(test.counters.packetsIn + test.counters.drops == sent)
    #expect(test.counters.drops > 0)
    #expect(test.losses.isEmpty)
  }

  /// Bytes that are no frames end the stream and nothing else; another one can follow.
  @Test func badFramesEndTheStream() throws {
    for length: UInt32 in [0, UInt32(PacketGuard.frameLimit + 1), .max] {
      let test = try TestQueue()
      let bytes = withUnsafeBytes(of: length.bigEndian) { Array($0) }
      #expect(clinux_write(test.farRaw, bytes, 4) == 4)
      try test.turn()
      #expect(test.losses == [.badFrame(Int(length))])
      let (near, far) = try makeSocketPair()
      try test.queue?.attach(near, .frames(early: framed(packet())))
      try test.turn()
      #expect(test.drain(test.device.rawValue) == packet())
      #expect(test.counters.reconnects == 0 || test.counters.reconnects == 1)
      withExtendedLifetime(far) {}
    }
  }

  /// The last bytes and the end may come together, in one event: the end must be seen all the same, or an enclave with nothing
  /// to send would wait on a host that has gone, and its published ports with it.
  @Test func anEndBehindTheLastBytesIsSeen() throws {
    let test = try TestQueue()
    try test.turn()
    let bytes = framed(packet()) + [0, 0]
    #expect(clinux_write(test.farRaw, bytes, bytes.count) == bytes.count)
    shutdownSending(test.farRaw)
    try test.turn()
    #expect(test.drain(test.device.rawValue) == packet())
    #expect(test.losses == [.closed])
  }

  /// While the host is away the device is emptied: what waited for minutes must not come out at once.
  @Test func withoutAStreamPacketsAreThrownAway() throws {
    let test = try TestQueue()
    shutdownBoth(test.farRaw)
    try test.turn()
    #expect(test.losses == [.closed])
    for _ in 0..<5 {
      #expect(clinux_write(test.device.rawValue, packet(), 50) == 50)
      try test.turn()
    }
    #expect(test.counters.unsent == 5)
  }
}
