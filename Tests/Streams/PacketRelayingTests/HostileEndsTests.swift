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
  @Test(.timeLimit(.minutes(10)), arguments: HostileEnd.allCases, [false, true])
  func tenMillionFrames(_ end: HostileEnd, throughMemory: Bool) throws {
    let (reading, writing) = try makePipe()
    let seed = UInt64.random(in: 1...UInt64.max)
    // In a thread of its own, whose network namespace the worker inherits and the kernel removes with them.
    try startThread {
      let outcome: String
      do {
        var attack = try Attack(end, throughMemory, seed: seed)
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
  private let throughMemory: Bool
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

  init(_ kind: HostileEnd, _ throughMemory: Bool, seed: UInt64) throws {
    self.kind = kind
    self.throughMemory = throughMemory
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
    let wire = try open()
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
      try write(wire, bytes)
    }
    try wire.sendNonsense(streams) { try read(wire, wait: false) }
    shutdownSending(wire.stream.rawValue)
    while try read(wire, wait: true) {}
  }

  private mutating func open() throws -> Wire {
    streams += 1
    received = FrameReader(counts: received)
    let stream = try end.open(memory: throughMemory)
    return try throughMemory ? MemoryWire(stream, kind) : StreamWire(stream)
  }

  private mutating func write(_ wire: Wire, _ count: Int) throws {
    var offset = 0
    while offset < count {
      let taken = try wire.send(UnsafeRawBufferPointer(rebasing: buffer[offset..<count]))
      offset += taken
      if taken == 0, try !read(wire, wait: true, orWritable: true) {
        throw Failure("the end closed a stream of good lengths")
      }
    }
  }

  /// - Returns: false at the stream's end.
  private mutating func read(_ wire: Wire, wait: Bool, orWritable: Bool = false) throws -> Bool {
    switch try wire.read(&received, waits: wait ? Self.patience : 0, orWritable: orWritable) {
    case .something: return true
    case .end: return false
    case .nothing where !wait: return true
    case .nothing:
      let counters = try end.counters()
      throw Failure("nothing moved for \(Self.patience) ms after \(passed + sent.reduce(0, +)) frames: \(counters)")
    }
  }

  /// After all that a good packet must pass, and its answer come back.
  private mutating func pings() throws {
    let wire = try open()
    let ping = HostileFrames.ping(kind)
    buffer.storeBytes(of: UInt32(ping.count).bigEndian, as: UInt32.self)
    UnsafeMutableRawBufferPointer(rebasing: buffer[4...]).copyBytes(from: ping)
    try write(wire, 4 + ping.count)
    passed += 1
    try network?.answer()
    while !received.hasPong {
      guard try read(wire, wait: true) else { throw Failure("the stream ended before the answer came") }
    }
  }

  /// What the network brings, to a host that takes some of it for its enclave.
  private mutating func fromNetwork(_ network: SharedNetwork) throws {
    let wire = try open()
    let before = received.packets
    for number in 0..<Self.networkTotal {
      let count = frames.fromNetwork(buffer)
      network.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      guard number & 63 == 0 else { continue }
      _ = try read(wire, wait: false)
      network.drain()
    }
    network.drain()
    shutdownSending(wire.stream.rawValue)
    while try read(wire, wait: true) {}
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
    // A host answers what goes to a denied destination, at most once.
    if received.packets > counters.packetsOut + counters.refusals {
      wrong.append("\(received.packets) frames came, more than were read or answered")
    }
    if counters.refusals > counters.drops(.badDestination) || (!kind.isHost && counters.refusals > 0) {
      wrong.append("\(counters.refusals) packets were answered, more than had a denied destination")
    }
    print(
      "\(kind)\(throughMemory ? ", memory" : ""): \(total) frames in \(seconds) s, \(streams) streams, \(received.packets) frames"
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
