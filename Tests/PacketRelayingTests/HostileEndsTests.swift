import CLinux
import EventLoop
import Foundation
import Inet
import LinuxSystem
import Netlink
import Packets
import Relaying
import Testing
import Wire

@testable import PacketRelaying

private typealias FileHandle = LinuxSystem.FileHandle

/// Each end as the product runs it, with a real TUN device, against ten million hostile frames.
@Suite(.serialized) struct HostileEndsTests {
  /// Frames for each end; TOMBOLO_HOSTILE_FRAMES has another number for a quick look.
  static let total = ProcessInfo.processInfo.environment["TOMBOLO_HOSTILE_FRAMES"].flatMap { Int($0) } ?? 10_000_000

  /// An enclave must not be able to end the host side, to stop it or to have packets vanish uncounted; nor the host the
  /// enclave's.
  @Test(.timeLimit(.minutes(5)), arguments: [true, false]) func tenMillionFrames(host: Bool) throws {
    let (reading, writing) = try makePipe()
    let seed = UInt64.random(in: 1...UInt64.max)
    // In a thread of its own, whose network namespace the worker inherits and the kernel removes with them.
    try startThread {
      let outcome: String
      do {
        var attack = try Attack(host: host, seed: seed)
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

  private let isHost: Bool
  private var frames: HostileFrames
  private let end: End
  private let link: String
  private var sent = [UInt64](repeating: 0, count: 16)
  private var passed: UInt64 = 0
  private var streams = 0
  private var received = FrameReader()
  private let buffer = UnsafeMutableRawBufferPointer.allocate(
    byteCount: Self.batch + PacketGuard.frameLimit + 512, alignment: 16)
  private let readBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)

  init(host: Bool, seed: UInt64) throws {
    isHost = host
    frames = HostileFrames(host: host, seed: seed)
    guard unshare(CLONE_NEWNET) == 0 else { throw SystemError("unshare", "CLONE_NEWNET", errno: errno) }
    let tun = try TunQueue("hostile%d")
    link = tun.deviceName
    var socket = try RouteSocket()
    try socket.setLink(named: "lo", up: true)
    try socket.setLink(named: link, up: true, mtu: 1500)
    let index = try socket.linkIndex(named: link)
    for text in [
      "\(host ? HostileFrames.beside4 : HostileFrames.own4)/30",
      "\(host ? HostileFrames.beside6 : HostileFrames.own6)/64",
    ] {
      guard let prefix = IPPrefix(text) else { throw Failure("prefix \(text)") }
      try socket.addAddress(prefix, link: index)
    }
    try socket.addRoute(Route(.ip, link: index), replace: true)
    try socket.addRoute(Route(.ip6, link: index), replace: true)
    end = try host ? HostEnd(tun.file) : EnclaveEnd(tun.file)
  }

  /// - Returns: what is wrong, or nothing.
  mutating func run(_ total: Int) throws -> String {
    defer {
      buffer.deallocate()
      readBuffer.deallocate()
      end.stop()
    }
    let start = monotonicNanoseconds()
    var rest = total
    while rest > 0 {
      let count = min(rest, Self.streamLength)
      try oneStream(count)
      rest -= count
    }
    let seconds = Double(monotonicNanoseconds() &- start) / 1e9
    try pings()
    return try verdict(total, seconds)
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
    let ready = Foundation.poll(&poll, 1, Self.patience)
    guard ready > 0 else {
      throw Failure("nothing moved for \(Self.patience) ms after \(passed + sent.reduce(0, +)) frames")
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
    let ping = HostileFrames.ping(host: isHost)
    buffer.storeBytes(of: UInt32(ping.count).bigEndian, as: UInt32.self)
    UnsafeMutableRawBufferPointer(rebasing: buffer[4...]).copyBytes(from: ping)
    try write(stream, 4 + ping.count)
    passed += 1
    while !received.hasPong {
      guard try read(stream, wait: true) else { throw Failure("the stream ended before the answer came") }
    }
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
      if sent[Int(reason.rawValue)] < UInt64(total / 1000), !(isHost && reason == .unpublishedPort) {
        wrong.append("\(reason): only \(sent[Int(reason.rawValue)]) sent")
      }
    }
    expect("reconnects", counters.reconnects, UInt64(streams - 1))
    // What the kernel itself says of the device: received is what was written to it.
    let device = try kernelCounters()
    expect("packets that the kernel had from the device", device.received, counters.packetsIn)
    expect("packets that the kernel gave the device", device.sent, counters.packetsOut + counters.unsent)
    if received.packets > counters.packetsOut { wrong.append("\(received.packets) frames came, more than were read") }
    print(
      "\(isHost ? "host" : "enclave"): \(total) frames in \(seconds) s, \(streams) streams, \(received.packets) frames"
        + " back; \(counters)")
    return wrong.joined(separator: "; ")
  }

  /// proc(5), /proc/net/dev: behind the name 8 numbers of receiving, then 8 of sending.
  private func kernelCounters() throws -> (received: UInt64, sent: UInt64) {
    let text = try readText("/proc/thread-self/net/dev")
    for line in text.split(separator: "\n") {
      let words = line.split { $0 == " " || $0 == ":" }
      guard words.first == Substring(link), words.count > 10, let received = UInt64(words[2]),
        let sent = UInt64(words[10])
      else { continue }
      return (received, sent)
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
  private var rest: [UInt8] = []

  init() {}

  /// For a new stream: the numbers go on, half a frame of the old one does not.
  init(counts other: FrameReader) {
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
        if HostileFrames.isPong(UnsafeRawBufferPointer(rebasing: $0[(offset + 4)..<(offset + 4 + length)])) {
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
  func stop()
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

/// As the proxy makes it; it opens its streams itself, again and again.
private final class EnclaveEnd: End {
  private let worker: PacketWorker
  private let pipe: CounterPipe
  private let listener: FileHandle
  private let path: String

  init(_ tun: FileHandle) throws {
    let pipe = try CounterPipe()
    self.pipe = pipe
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
        let queue = try PacketQueue(loop: loop, tun: tun, packetGuard: packetGuard(.enclave), lost: lost)
        made = queue
        return queue
      }
      return .init(stream: { _ in _ = connector }, report: { if let made { pipe.writing.write(made.counters) } })
    } failed: {
      print("enclave end: \($0)")
    }
  }

  deinit { removeFile(path) }

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
