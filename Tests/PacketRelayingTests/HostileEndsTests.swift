import CLinux
import EventLoop
import Foundation
import HostNetwork
import Inet
import LinuxSystem
import Netfilter
import Netlink
import Packets
import Relaying
import Testing
import Wire

@testable import PacketRelaying
@testable import Proxying

private typealias FileHandle = LinuxSystem.FileHandle

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

private struct Failure: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
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

// MARK: The ends

/// The product's own thread, loop and queue of an end; only where streams come from differs.
private protocol End {
  func open() throws -> FileHandle
  func counters() throws -> PacketCounters
  /// A packet that has left through the device though it should not have.
  func stray() -> [UInt8]?
  func stop()
}

extension End {
  func stray() -> [UInt8]? { nil }
}

private struct CounterPipe {
  let reading: FileHandle
  let writing: FileHandle
  init() throws(SystemError) { (reading, writing) = try makePipe() }

  func read() throws -> PacketCounters {
    var counters = PacketCounters()
    let result = withUnsafeMutableBytes(of: &counters) { readBytes(reading.rawValue, $0) }
    guard result == .bytes(MemoryLayout<PacketCounters>.size) else { throw Failure("counters: \(result)") }
    return counters
  }
}

extension LinuxSystem.FileHandle {
  fileprivate func write(_ counters: PacketCounters) {
    _ = withUnsafeBytes(of: counters) { clinux_write(rawValue, $0.baseAddress, $0.count) }
  }
}

private func packetGuard(_ side: PacketGuard.Side) -> PacketGuard {
  PacketGuard(
    side, address4: IPv4Address(HostileFrames.own4), address6: IPv6Address(HostileFrames.own6),
    ports: side == .enclave ? HostileFrames.ports : nil)
}

/// As `HostTunnel` makes it; streams are given to it.
private struct HostEnd: End {
  private let worker: PacketWorker
  private let pipe: CounterPipe

  init(_ tun: FileHandle) throws {
    let pipe = try CounterPipe()
    self.pipe = pipe
    _ = try setTunOffload(tun.rawValue, .all)
    worker = try PacketWorker { (loop) throws(SystemError) in
      let queue = try PacketQueue(loop: loop, tun: tun, packetGuard: packetGuard(.host)) { _ in }
      return .init { stream in
        try? queue.attach(stream, early: [])
      } report: {
        pipe.writing.write(queue.counters)
      }
    } failed: {
      print("host end: \($0)")
    }
  }

  func open() throws -> FileHandle {
    let (near, far) = try makeSocketPair()
    try worker.give(near)
    return far
  }

  func counters() throws -> PacketCounters {
    worker.report()
    return try pipe.read()
  }

  func stop() { worker.stop() }
}

/// The product's own gateway; streams are given to it.
private final class SharedHostEnd: End {
  private let tunnel: SharedTunnel
  private let request: PacketsRequest

  init(_ link: String) throws {
    tunnel = try SharedTunnel(ports: HostileFrames.share, published: []) { print("shared host: \($0)") }
    guard tunnel.link == link else { throw Failure("the gateway has chosen \(tunnel.link)") }
    request = PacketsRequest(
      queue: 0, queues: 1, mtu: UInt16(HostileFrames.mtu), features: TunOffload.all.rawValue,
      address4: IPPrefix("\(HostileFrames.own4)/32"), address6: IPPrefix("\(HostileFrames.own6)/128"))
    try tunnel.configure(request)
  }

  func open() throws -> FileHandle {
    let (near, far) = try makeSocketPair()
    try tunnel.serve(near, request) { _ in }
    return far
  }

  func counters() throws -> PacketCounters {
    let loop = try EventLoop()
    nonisolated(unsafe) var found: PacketCounters?
    tunnel.count(in: loop) { counts in
      found = counts.first?.counters
      loop.stop()
    }
    try loop.run()
    guard let found else { throw Failure("the gateway did not say its counters") }
    return found
  }

  func stop() { tunnel.close() }
}

/// The network of a host that shares its address: reads and judges all that the host sends, until it is finished.
private final class SharedNetwork: Sendable {
  private let tun: FileHandle
  private let order: (reading: FileHandle, writing: FileHandle)
  private let result: (reading: FileHandle, writing: FileHandle)

  init(_ tun: FileHandle) throws {
    self.tun = tun
    order = try makePipe()
    result = try makePipe()
    try tun.descriptor.setNonblocking()
    try startThread { [self] in
      _ = try? writeAll(result.writing.rawValue, Array("\(watch())\n".utf8))
    }
  }

  /// - Returns: what was wrong, or nothing.
  private func watch() -> String {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: PacketGuard.frameLimit, alignment: 16)
    defer { buffer.deallocate() }
    var packets = 0
    while true {
      var polls = [
        pollfd(fd: tun.rawValue, events: Int16(POLLIN), revents: 0),
        pollfd(fd: order.reading.rawValue, events: Int16(POLLIN), revents: 0),
      ]
      _ = Foundation.poll(&polls, 2, -1)
      while case .bytes(let count) = readBytes(tun.rawValue, buffer), count > 10 {
        packets += 1
        if let leak = HostileFrames.leak(UnsafeRawBufferPointer(rebasing: buffer[10..<count])) {
          return "the host sent \(leak), packet \(packets) on its link"
        }
      }
      if polls[1].revents != 0 { return packets > 0 ? "" : "nothing came out of the host" }
    }
  }

  /// Ends the thread, wherever the test has ended.
  func stop() { _ = try? writeAll(order.writing.rawValue, [1]) }

  /// Once; after it the network is the caller's.
  func finish() throws -> String {
    _ = try writeAll(order.writing.rawValue, [1])
    var text = [UInt8](repeating: 0, count: 4096)
    guard case .bytes(let count) = text.withUnsafeMutableBytes({ readBytes(result.reading.rawValue, $0) }) else {
      throw Failure("the network has gone")
    }
    return String(decoding: text[..<max(0, count - 1)], as: UTF8.self)
  }

  /// Takes away what the host has answered, so that there is room for what it sends.
  func drain() {
    var frame = [UInt8](repeating: 0, count: PacketGuard.frameLimit)
    while case .bytes = frame.withUnsafeMutableBytes({ readBytes(tun.rawValue, $0) }) {}
  }

  func write(_ frame: UnsafeRawBufferPointer) {
    // The kernel refuses what is no packet at all.
    _ = writeBytes(tun.rawValue, frame)
  }

  /// Waits for the marked datagram and answers it.
  func answer() throws {
    var frame = [UInt8](repeating: 0, count: PacketGuard.frameLimit)
    let deadline = monotonicNanoseconds() + 20_000_000_000
    while monotonicNanoseconds() < deadline {
      var poll = pollfd(fd: tun.rawValue, events: Int16(POLLIN), revents: 0)
      _ = Foundation.poll(&poll, 1, 1000)
      guard case .bytes(let count) = frame.withUnsafeMutableBytes({ readBytes(tun.rawValue, $0) }) else { continue }
      if frame.withUnsafeBytes({ HostileFrames.isMarked(UnsafeRawBufferPointer(rebasing: $0[..<count])) }) {
        HostileFrames.networkAnswer.withUnsafeBytes { write($0) }
        return
      }
    }
    throw Failure("a good datagram did not reach the network")
  }
}

/// As the proxy makes it; it opens its streams itself, again and again.
private final class EnclaveEnd: End {
  private let worker: PacketWorker
  private let pipe: CounterPipe
  private let listener: FileHandle
  private let path: String
  private let tun: FileHandle

  /// - Parameter captures: takes what leaves by queue, as with the host's own address.
  init(_ queue: TunQueue, captures: Bool) throws {
    let tun = queue.file
    self.tun = tun
    let pipe = try CounterPipe()
    self.pipe = pipe
    let capture = captures ? try Self.startCapture(queue.deviceName) : nil
    path = "/tmp/tombolo-hostile-\(getpid())-\(monotonicNanoseconds()).sock"
    listener = FileHandle(try listenStream(.unix(path)))
    let features = try setTunOffload(tun.rawValue, .all)
    let request = PacketsRequest(
      queue: 0, queues: 1, mtu: 1500, features: features.rawValue, address4: IPPrefix("\(HostileFrames.own4)/30"),
      address6: IPPrefix("\(HostileFrames.own6)/64"))
    worker = try PacketWorker { [path] (loop) throws(SystemError) in
      let connector = PacketConnector(
        loop: loop, target: StreamTarget(.unix(path)), request: request, tun: tun, log: { _ in })
      nonisolated(unsafe) var made: PacketQueue?
      try connector.start { lost throws(SystemError) in
        let device =
          if let capture {
            CaptureDevice(
              capture: capture.socket, socket: 0, tun: tun, verdicts: capture.verdicts,
              segments: SegmentSizes(mtu: HostileFrames.mtu))
          } else {
            PacketDevice(tun)
          }
        let queue = try PacketQueue(loop: loop, device: device, packetGuard: packetGuard(.enclave), lost: lost)
        made = queue
        return queue
      }
      return .init(stream: { _ in _ = connector }, report: { if let made { pipe.writing.write(made.counters) } })
    } failed: {
      print("enclave end: \($0)")
    }
  }

  /// The rules of the boot plan, both queues at one socket, and the keeper of verdicts as a thread.
  private static func startCapture(_ link: String) throws -> (socket: FileHandle, verdicts: FileHandle) {
    let first: UInt16 = 7766
    let socket = try CaptureSocket.open([
      .init(first, takesSuperPackets: false), .init(first + 1, takesSuperPackets: true),
    ])
    try PacketFilter.install(.capture(link: link, firstQueue: first, queues: 1, ipv6: true))
    let (reading, writing) = try makePipe()
    try startThread {
      withExtendedLifetime((reading, socket)) {
        VerdictKeeper.run(pipe: reading.rawValue, sockets: [socket.rawValue])
      }
    }
    return (socket, writing)
  }

  deinit { removeFile(path) }

  /// The kernel's own solicitations and reports, to link-local groups, may be from before there were rules.
  func stray() -> [UInt8]? {
    var frame = [UInt8](repeating: 0, count: PacketGuard.frameLimit)
    while case .bytes(let count) = frame.withUnsafeMutableBytes({ readBytes(tun.rawValue, $0) }), count > 50 {
      if frame[10] >> 4 != 6 || frame[34] != 0xff || frame[35] != 2 { return Array(frame[..<count]) }
    }
    return nil
  }

  func open() throws -> FileHandle {
    var poll = pollfd(fd: listener.rawValue, events: Int16(POLLIN), revents: 0)
    guard Foundation.poll(&poll, 1, 20_000) == 1, let stream = try acceptStream(listener.rawValue)?.descriptor else {
      throw Failure("the enclave's end did not come back")
    }
    try stream.descriptor.setNonblocking(false)
    var bytes = [UInt8](repeating: 0, count: 1024)
    guard case .bytes(let count) = bytes.withUnsafeMutableBytes({ readBytes(stream.rawValue, $0) }),
      let (hello, length) = try Hello.decode(Array(bytes[..<count])), length == count
    else { throw Failure("no hello") }
    let request = try PacketsRequest(parameters: hello.parameters)
    answer(stream, Answer(.ok, parameters: PacketsAnswer(features: request.features).parameters))
    return stream
  }

  func counters() throws -> PacketCounters {
    worker.report()
    return try pipe.read()
  }

  func stop() { worker.stop() }
}
