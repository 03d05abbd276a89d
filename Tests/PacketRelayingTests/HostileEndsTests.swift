import CLinux
import EventLoop
import Foundation
import Inet
import LinuxSystem
import Netlink
import Packets
import Testing

@testable import PacketRelaying

/// Each end as the product runs it, with the kernel's own devices and queues, against ten million hostile frames.
@Suite(.serialized) struct HostileEndsTests {
  /// Frames for each end; TOMBOLO_HOSTILE_FRAMES has another number for a quick look.
  static let total = ProcessInfo.processInfo.environment["TOMBOLO_HOSTILE_FRAMES"].flatMap { Int($0) } ?? 10_000_000

  /// An enclave must not be able to end the host side, to stop it or to have packets vanish uncounted; nor the host the
  /// enclave's.
  @Test(.timeLimit(.minutes(10)), arguments: HostileEnd.allCases) func tenMillionFrames(_ end: HostileEnd) throws {
    let (reading, writing) = try makePipe()
    let seed = UInt64.random(in: 1...UInt64.max)
    // In a thread of its own, whose network namespace the worker inherits and the kernel removes with them.
    try startThread {
      let outcome: String
      do {
        var attack = try Attack(end, seed: seed)
        outcome = try attack.run(Self.total)
      } catch {
        outcome = "\(error)"
      }
      _ = try? writeAll(writing.rawValue, Array((outcome.isEmpty ? "ok" : outcome).utf8))
      shutdownBoth(writing.rawValue)
    }
    var text = [UInt8](repeating: 0, count: 65536)
    guard case .bytes(let count) = text.withUnsafeMutableBytes({ readBytes(reading.rawValue, $0) }) else {
      Issue.record("the attack ended without an outcome")
      return
    }
    #expect(String(decoding: text[..<count], as: UTF8.self) == "ok", "seed \(seed)")
  }
}

/// The other side of one end: writes, reads what comes back, and keeps the count.
private struct Attack {
  private static let batch = 1 << 20
  /// Frames between two ends of the stream.
  private static let streamLength = 50_000
  private static let patience: Int32 = 20_000

  /// Packets from the network at a host that shares its address.
  private static let networkTotal = HostileEndsTests.total / 10

  private let kind: HostileEnd
  private var frames: HostileFrames
  private let end: End
  private let network: SharedNetwork?
  private let link: String
  private var sent = [UInt64](repeating: 0, count: 16)
  private var passed: UInt64 = 0
  private var streams = 0
  private var received: FrameReader
  private let buffer = UnsafeMutableRawBufferPointer.allocate(
    byteCount: Self.batch + PacketGuard.frameLimit + 512, alignment: 16)
  private let readBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)

  init(_ kind: HostileEnd, seed: UInt64) throws {
    self.kind = kind
    frames = HostileFrames(kind, seed: seed)
    received = FrameReader(kind)
    guard unshare(CLONE_NEWNET) == 0 else { throw SystemError("unshare", "CLONE_NEWNET", errno: errno) }
    let tun = try TunQueue("hostile%d")
    link = tun.deviceName
    var socket = try RouteSocket()
    try socket.setLink(named: "lo", up: true)
    try socket.setLink(named: link, up: true, mtu: UInt32(HostileFrames.mtu))
    let index = try socket.linkIndex(named: link)
    // The host's side of a TUN device is the enclave's neighbour; all others have the enclave's own address.
    for text in [
      "\(kind == .tunHost ? HostileFrames.beside4 : HostileFrames.own4)/30",
      "\(kind == .tunHost ? HostileFrames.beside6 : HostileFrames.own6)/64",
    ] {
      guard let prefix = IPPrefix(text) else { throw Failure("prefix \(text)") }
      try socket.addAddress(prefix, link: index)
    }
    try socket.addRoute(Route(.ip, link: index), replace: true)
    try socket.addRoute(Route(.ip6, link: index), replace: true)
    network = kind == .sharedHost ? try SharedNetwork(tun.file) : nil
    end =
      switch kind {
      case .tunHost: try HostEnd(tun.file)
      case .sharedHost: try SharedHostEnd(tun.deviceName)
      case .tunEnclave, .sharedEnclave: try EnclaveEnd(tun, captures: kind == .sharedEnclave)
      }
  }

  /// - Returns: what is wrong, or nothing.
  mutating func run(_ total: Int) throws -> String {
    defer {
      buffer.deallocate()
      readBuffer.deallocate()
      end.stop()
      network?.stop()
    }
    let start = monotonicNanoseconds()
    var rest = total
    while rest > 0 {
      let count = min(rest, Self.streamLength)
      try oneStream(count)
      rest -= count
    }
    let seconds = Double(monotonicNanoseconds() &- start) / 1e9
    let fault = try network?.finish() ?? ""
    if let network { try fromNetwork(network) }
    try pings()
    let wrong = try verdict(total, seconds)
    return [fault, wrong].filter { !$0.isEmpty }.joined(separator: "; ")
  }

  private mutating func oneStream(_ count: Int) throws {
    let stream = try end.open()
    try stream.descriptor.setNonblocking()
    streams += 1
    received = FrameReader(counts: received)
    var rest = count
    while rest > 0 {
      var bytes = 0
      while rest > 0, bytes < Self.batch {
        if let reason = frames.append(to: buffer, at: &bytes) {
          sent[Int(reason.rawValue)] += 1
        } else {
          passed += 1
        }
        rest -= 1
      }
      try write(stream, bytes)
    }
    var bytes = 0
    switch streams % 4 {
    case 0: append(length: 0, to: &bytes)
    case 1: append(length: UInt32(PacketGuard.frameLimit + 1), to: &bytes)
    case 2: append(length: .max, to: &bytes)
    default:
      // A frame that never becomes whole.
      append(length: 1000, to: &bytes)
      bytes -= 300
    }
    // Behind a length that no frame can have nothing is read; the end may be gone before it has taken all of it.
    try write(stream, bytes, mayFail: true)
    shutdownSending(stream.rawValue)
    while try read(stream, wait: true) {}
  }

  private func append(length: UInt32, to end: inout Int) {
    buffer.storeBytes(of: length.bigEndian, toByteOffset: end, as: UInt32.self)
    end += 4 + 1000
  }

  private mutating func write(_ stream: FileHandle, _ count: Int, mayFail: Bool = false) throws {
    var offset = 0
    while offset < count {
      let result = sendBytes(stream.rawValue, UnsafeRawBufferPointer(rebasing: buffer[offset..<count]))
      switch result {
      case .bytes(let sent): offset += sent
      case .wouldBlock:
        if try !read(stream, wait: true, orWritable: true) { throw Failure("the end closed a stream of good lengths") }
      case .failed(let code):
        if mayFail { return }
        throw SystemError("send", errno: code)
      }
    }
  }

  /// - Returns: false at the stream's end.
  private mutating func read(_ stream: FileHandle, wait: Bool, orWritable: Bool = false) throws -> Bool {
    var poll = pollfd(fd: stream.rawValue, events: Int16(POLLIN) | (orWritable ? Int16(POLLOUT) : 0), revents: 0)
    let ready = Foundation.poll(&poll, 1, wait ? Self.patience : 0)
    if ready == 0, !wait { return true }
    guard ready > 0 else {
      let counters = try end.counters()
      throw Failure("nothing moved for \(Self.patience) ms after \(passed + sent.reduce(0, +)) frames: \(counters)")
    }
    guard Int32(poll.revents) & (POLLIN | POLLHUP | POLLERR) != 0 else { return true }
    switch readBytes(stream.rawValue, readBuffer) {
    case .bytes(0), .failed: return false
    case .wouldBlock: return true
    case .bytes(let count):
      try received.take(UnsafeRawBufferPointer(rebasing: readBuffer[..<count]))
      return true
    }
  }

  /// After all that a good packet must pass, and its answer come back.
  private mutating func pings() throws {
    let stream = try end.open()
    try stream.descriptor.setNonblocking()
    streams += 1
    received = FrameReader(counts: received)
    let ping = HostileFrames.ping(kind)
    buffer.storeBytes(of: UInt32(ping.count).bigEndian, as: UInt32.self)
    UnsafeMutableRawBufferPointer(rebasing: buffer[4...]).copyBytes(from: ping)
    try write(stream, 4 + ping.count)
    passed += 1
    try network?.answer()
    while !received.hasPong {
      guard try read(stream, wait: true) else { throw Failure("the stream ended before the answer came") }
    }
  }

  /// What the network brings, to a host that takes some of it for its enclave.
  private mutating func fromNetwork(_ network: SharedNetwork) throws {
    let stream = try end.open()
    try stream.descriptor.setNonblocking()
    streams += 1
    received = FrameReader(counts: received)
    let before = received.packets
    for number in 0..<Self.networkTotal {
      let count = frames.fromNetwork(buffer)
      network.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      guard number & 63 == 0 else { continue }
      _ = try read(stream, wait: false)
      network.drain()
    }
    network.drain()
    shutdownSending(stream.rawValue)
    while try read(stream, wait: true) {}
    if received.packets == before { throw Failure("nothing of what the network brought came to the enclave") }
  }

  private func verdict(_ total: Int, _ seconds: Double) throws -> String {
    let counters = try end.counters()
    var wrong: [String] = []
    func expect(_ what: String, _ found: UInt64, _ wanted: UInt64) {
      if found != wanted { wrong.append("\(what): found \(found), expected \(wanted)") }
    }
    expect("delivered and dropped", counters.packetsIn + counters.drops, UInt64(total) + 1)
    expect("delivered, or refused by the kernel", counters.packetsIn + counters.drops(.notTaken), passed)
    for reason in PacketDefect.allCases where reason != .notTaken {
      expect("\(reason)", counters.drops(reason), sent[Int(reason.rawValue)])
      // A reason that never came about would prove nothing.
      if sent[Int(reason.rawValue)] < UInt64(total / 1000), frames.reasons.contains(reason) {
        wrong.append("\(reason): only \(sent[Int(reason.rawValue)]) sent")
      }
    }
    expect("reconnects", counters.reconnects, UInt64(streams - 1))
    // What the kernel itself says of the device: received is what was written to it.
    let device = try kernelCounters()
    switch kind {
    case .tunHost, .tunEnclave:
      expect("packets that the kernel had from the device", device.received, counters.packetsIn)
      expect("packets that the kernel gave the device", device.sent, counters.packetsOut + counters.unsent)
    case .sharedEnclave:
      expect("packets that the kernel had from the device", device.received, counters.packetsIn)
      // The device hands out, to whoever reads it, what the rules have not taken for the queues.
      if let stray = end.stray() { wrong.append("a packet of \(stray.count) bytes went past the queues: \(stray)") }
    case .sharedHost:
      if device.sent < counters.packetsIn {
        wrong.append("\(counters.packetsIn) packets were delivered, and the link had only \(device.sent)")
      }
    }
    if received.packets > counters.packetsOut { wrong.append("\(received.packets) frames came, more than were read") }
    print(
      "\(kind): \(total) frames in \(seconds) s, \(streams) streams, \(received.packets) frames"
        + " back; \(counters)")
    return wrong.joined(separator: "; ")
  }

  /// proc(5), /proc/net/dev: behind the name 8 numbers of receiving, then 8 of sending. Those that the device had no room
  /// for count as sent.
  private func kernelCounters() throws -> (received: UInt64, sent: UInt64) {
    let text = try readText("/proc/thread-self/net/dev")
    for line in text.split(separator: "\n") {
      let words = line.split { $0 == " " || $0 == ":" }
      guard words.first == Substring(link), words.count > 12, let received = UInt64(words[2]),
        let sent = UInt64(words[10]), let dropped = UInt64(words[12])
      else { continue }
      return (received, sent + (kind == .sharedHost ? dropped : 0))
    }
    throw Failure("\(link) is not in /proc/net/dev")
  }
}

/// What comes out of an end: whole frames, each with a length that one can have.
private struct FrameReader {
  private(set) var packets: UInt64 = 0
  private(set) var hasPong = false
  private let end: HostileEnd
  private var rest: [UInt8] = []

  init(_ end: HostileEnd) { self.end = end }

  /// For a new stream: the numbers go on, half a frame of the old one does not.
  init(counts other: FrameReader) {
    end = other.end
    packets = other.packets
    hasPong = other.hasPong
  }

  mutating func take(_ bytes: UnsafeRawBufferPointer) throws {
    rest += bytes
    var offset = 0
    while rest.count - offset >= 4 {
      let length = rest[offset..<offset + 4].reduce(0) { $0 << 8 | Int($1) }
      guard (PacketGuard.offloadHeaderLength + 20...PacketGuard.frameLimit).contains(length) else {
        throw Failure("the end sent a frame of \(length) bytes")
      }
      guard rest.count - offset - 4 >= length else { break }
      rest.withUnsafeBytes {
        if HostileFrames.isPong(end, UnsafeRawBufferPointer(rebasing: $0[(offset + 4)..<(offset + 4 + length)])) {
          hasPong = true
        }
      }
      packets += 1
      offset += 4 + length
    }
    rest.removeFirst(offset)
  }
}
