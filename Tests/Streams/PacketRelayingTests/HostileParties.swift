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
import Wire

@testable import PacketRelaying
@testable import Proxying

struct Failure: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// The product's own thread, loop and queue of an end; only where streams come from differs.
protocol End {
  /// - Parameter memory: whether the frames will go through memory.
  func open(memory: Bool) throws -> FileReference
  func counters() throws -> PacketCounters
  /// A packet that has left through the device though it should not have.
  func stray() -> [UInt8]?
  func stop()
}

extension End {
  func stray() -> [UInt8]? { nil }
}

private struct CounterPipe {
  let reading: FileReference
  let writing: FileReference
  init() throws(SystemError) { (reading, writing) = try makePipe() }

  func read() throws -> PacketCounters {
    var counters = PacketCounters()
    let result = withUnsafeMutableBytes(of: &counters) { readBytes(reading.rawValue, $0) }
    guard result == .bytes(MemoryLayout<PacketCounters>.size) else { throw Failure("counters: \(result)") }
    return counters
  }
}

extension FileReference {
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
struct HostEnd: End {
  private let worker: PacketWorker
  private let pipe: CounterPipe

  init(_ tun: FileReference) throws {
    let pipe = try CounterPipe()
    self.pipe = pipe
    _ = try setTunOffload(tun.rawValue, .all)
    worker = try PacketWorker { (loop) throws(SystemError) in
      let queue = try PacketQueue(loop: loop, tun: tun, packetGuard: packetGuard(.host)) { _ in }
      return .init { stream, awaitingMemory in
        try? queue.attach(stream, awaitingMemory ? .awaitingMemory : .frames())
      } report: {
        pipe.writing.write(queue.counters)
      }
    } failed: {
      print("host end: \($0)")
    }
  }

  func open(memory: Bool) throws -> FileReference {
    let (near, far) = try makeSocketPair()
    try worker.give(near, awaitingMemory: memory)
    return far
  }

  func counters() throws -> PacketCounters {
    worker.report()
    return try pipe.read()
  }

  func stop() { worker.stop() }
}

/// The product's own gateway; streams are given to it.
final class SharedHostEnd: End {
  private let tunnel: SharedAddressGateway
  private let request: PacketsRequest

  init(_ link: String) throws {
    tunnel = try SharedAddressGateway(ports: HostileFrames.share, published: []) { print("shared host: \($0)") }
    guard tunnel.link == link else { throw Failure("the gateway has chosen \(tunnel.link)") }
    request = PacketsRequest(
      queue: 0, queues: 1, mtu: UInt16(HostileFrames.mtu), features: TunOffload.all.rawValue,
      address4: IPPrefix("\(HostileFrames.own4)/32"), address6: IPPrefix("\(HostileFrames.own6)/128"))
    try tunnel.configure(request)
    // In a thread, as it would be in a process.
    nonisolated(unsafe) let keeper = try tunnel.handOver().keeper
    try startThread { keeper?.run() }
  }

  func open(memory: Bool) throws -> FileReference {
    let (near, far) = try makeSocketPair()
    var asked = request
    asked.offersMemory = memory
    try tunnel.serve(near, asked) { _ in }
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
final class SharedNetwork: Sendable {
  private let tun: FileReference
  private let order: (reading: FileReference, writing: FileReference)
  private let result: (reading: FileReference, writing: FileReference)

  init(_ tun: FileReference) throws {
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
final class EnclaveEnd: End {
  private let worker: PacketWorker
  private let pipe: CounterPipe
  private let listener: FileReference
  private let path: String
  private let tun: FileReference

  /// - Parameter captures: takes what leaves by queue, as with the host's own address.
  init(_ queue: TunQueue, captures: Bool) throws {
    let tun = queue.file
    self.tun = tun
    let pipe = try CounterPipe()
    self.pipe = pipe
    let capture = captures ? try Self.startCapture(queue.deviceName) : nil
    path = "/tmp/tombolo-hostile-\(getpid())-\(monotonicNanoseconds()).sock"
    listener = FileReference(try listenStream(.unix(path)))
    let features = try setTunOffload(tun.rawValue, .all)
    let request = PacketsRequest(
      queue: 0, queues: 1, mtu: 1500, features: features.rawValue, address4: IPPrefix("\(HostileFrames.own4)/30"),
      address6: IPPrefix("\(HostileFrames.own6)/64"))
    worker = try PacketWorker { [path] (loop) throws(SystemError) in
      let connector = PacketConnector(
        loop: loop, target: StreamTarget(.unix(path)), token: .none, request: request, tun: tun,
        log: { _ in })
      nonisolated(unsafe) var made: PacketQueue?
      try connector.start { lost throws(SystemError) in
        let device: any PacketDevice =
          if let capture {
            CaptureDevice(
              capture: capture.socket, socket: 0, tun: tun, verdicts: capture.verdicts,
              segments: SegmentSizes(mtu: HostileFrames.mtu))
          } else {
            TunDevice(tun)
          }
        let queue = try PacketQueue(loop: loop, device: device, packetGuard: packetGuard(.enclave), lost: lost)
        made = queue
        return queue
      }
      return .init(stream: { _, _ in _ = connector }, report: { if let made { pipe.writing.write(made.counters) } })
    } failed: {
      print("enclave end: \($0)")
    }
  }

  /// The rules of the boot plan, both queues at one socket, and the keeper of verdicts as a thread.
  private static func startCapture(_ link: String) throws -> (socket: FileReference, verdicts: FileReference) {
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

  func open(memory: Bool) throws -> FileReference {
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
    guard request.offersMemory else { throw Failure("the enclave's end does not offer memory") }
    answer(stream, Answer(.ok, parameters: PacketsAnswer(features: request.features, takesMemory: memory).parameters))
    return stream
  }

  func counters() throws -> PacketCounters {
    worker.report()
    return try pipe.read()
  }

  func stop() { worker.stop() }
}
