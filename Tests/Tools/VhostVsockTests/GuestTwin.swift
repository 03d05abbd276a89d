import CLinux
import Foundation
import LinuxSystem

@testable import VhostVsock

struct TwinFailure: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// A device under test on a thread of its own, with paths in a directory of its own.
final class RunningDevice: @unchecked Sendable {
  let directory: String
  let socketPath: String
  let hybridPath: String
  private let stopper: Int32
  /// Shared with the thread, which must not keep the whole of this alive.
  private final class Outcome: @unchecked Sendable {
    let finished = DispatchSemaphore(value: 0)
    var error: VhostVsockError?
  }
  private let outcome = Outcome()
  private var ended = false

  init(cid: UInt32 = 4, options: VhostVsockDevice.Options = .init()) throws {
    directory = "/tmp/vv-\(UInt32.random(in: 0...UInt32.max))"
    guard mkdir(directory, 0o700) == 0 else { throw TwinFailure("mkdir \(directory)") }
    socketPath = directory + "/vhost"
    hybridPath = directory + "/uds"
    stopper = clinux_eventfd()
    let device = try VhostVsockDevice(socketPath: socketPath, guestCID: cid, hybridPath: hybridPath, options: options)
    Thread { [outcome, stopper] in
      do throws(VhostVsockError) { try device.run(until: stopper) } catch { outcome.error = error }
      outcome.finished.signal()
    }.start()
  }

  /// How `run` ends by itself; throws where it does not within 5 s.
  func waitForEnd() throws -> VhostVsockError? {
    guard outcome.finished.wait(timeout: .now() + 5) == .success else { throw TwinFailure("the device did not end") }
    ended = true
    return outcome.error
  }

  /// True where the device has ended by itself within `seconds`.
  func hasEnded(within seconds: Double) -> Bool {
    if !ended, outcome.finished.wait(timeout: .now() + seconds) == .success { ended = true }
    return ended
  }

  var error: VhostVsockError? { outcome.error }

  func stop() throws {
    var one: UInt64 = 1
    _ = clinux_write(stopper, &one, 8)
    if !ended { _ = try waitForEnd() }
  }

  deinit {
    try? stop()
    _ = clinux_vhost_close(stopper)
    // The thread lets go of the device, and the device of its paths, just after it has said that it ended.
    for _ in 0..<1000 where FileManager.default.fileExists(atPath: socketPath) { usleep(1000) }
    removeTree(directory)
  }

  /// A listener for the guest's connections to a port.
  func listen(_ port: UInt32, backlog: Int32 = 128) throws -> HostSocket {
    let fd = clinux_vhost_unix_listen("\(hybridPath)_\(port)", backlog)
    guard fd >= 0 else { throw TwinFailure("listen: \(fd)") }
    return HostSocket(fd)
  }

  func connect() throws -> HostSocket {
    let fd = clinux_vhost_unix_stream("")
    guard clinux_vhost_unix_connect(fd, hybridPath) == 0 else { throw TwinFailure("connect") }
    return HostSocket(fd)
  }
}

/// A program's socket on the host's side. Every wait has an end.
final class HostSocket {
  let fd: Int32
  init(_ fd: Int32) { self.fd = fd }
  deinit { close() }
  private var closed = false
  func close() {
    if !closed { _ = clinux_vhost_close(fd) }
    closed = true
  }

  private func wait(_ events: Int32, _ seconds: Double) -> Bool {
    var entry = pollfd(fd: fd, events: Int16(events), revents: 0)
    return poll(&entry, 1, Int32(seconds * 1000)) > 0
  }

  func accept(within seconds: Double = 5) throws -> HostSocket {
    guard wait(POLLIN, seconds) else { throw TwinFailure("nobody connected") }
    let accepted = clinux_accept(fd, nil)
    guard accepted >= 0 else { throw TwinFailure("accept: \(accepted)") }
    return HostSocket(accepted)
  }

  /// Exactly `count` bytes, fewer at end of file.
  func read(_ count: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while bytes.count < count {
      guard wait(POLLIN, 5) else { throw TwinFailure("nothing to read after \(bytes.count) of \(count) bytes") }
      let wanted = min(chunk.count, count - bytes.count)
      let result = chunk.withUnsafeMutableBytes { clinux_read(fd, $0.baseAddress, wanted) }
      guard result >= 0 else { throw TwinFailure("read: \(result)") }
      if result == 0 { return bytes }
      bytes += chunk[..<result]
    }
    return bytes
  }

  /// True where end of file, and nothing else, can be read.
  func isAtEnd() throws -> Bool { try read(1).isEmpty }

  func write(_ bytes: [UInt8]) throws {
    var done = 0
    while done < bytes.count {
      guard wait(POLLOUT, 5) else { throw TwinFailure("no room to write") }
      let result = bytes.withUnsafeBytes { clinux_send(fd, $0.baseAddress.map { $0 + done }, $0.count - done, 0) }
      guard result > 0 else { throw TwinFailure("write: \(result)") }
      done += result
    }
  }

  func shutdownWriting() { _ = clinux_vhost_shutdown(fd, Int32(SHUT_WR)) }
}

/// One packet as the guest sees it.
struct Packet {
  var header: VsockHeader
  var payload: [UInt8] = []
  var operation: UInt16 { header.operation }
}

/// What QEMU and a guest's driver are to the device: shares a memfd, speaks vhost-user, drives the two rings.
final class GuestTwin {
  static let ringSize: UInt16 = 128
  static let half = 8 << 20
  static let userBase: UInt64 = 0x7f00_0000_0000
  /// The second region begins here for the guest, with a hole before it.
  static let highBase: UInt64 = 1 << 32
  /// Offsets in the first region.
  static let rings: [(descriptors: Int, available: Int, used: Int)] = [(0, 0x1000, 0x2000), (0x4000, 0x5000, 0x6000)]
  static let packetArea = 0x10000
  static let bufferSize = 4096

  let fd: Int32
  let memoryFile: Int32
  let memory: UnsafeMutableRawPointer
  let kicks: [Int32]
  let calls: [Int32]
  let features: UInt64
  var next: [UInt16] = [0, 0]
  var seen: [UInt16] = [0, 0]
  var cid: UInt32
  var tables: [Int] = []

  init(_ device: RunningDevice, cid: UInt32 = 4, eventIndex: Bool = true, start: Bool = true, buffers: Int = 128) throws
  {
    self.cid = cid
    fd = clinux_vhost_unix_stream("")
    guard clinux_vhost_unix_connect(fd, device.socketPath) == 0 else { throw TwinFailure("connect to the device") }
    _ = clinux_set_nonblocking(fd, false)
    memoryFile = clinux_vhost_memfd("guest", 2 * Self.half)
    var address: UnsafeMutableRawPointer?
    guard clinux_vhost_map_shared(memoryFile, 2 * Self.half, &address) == 0, let address else {
      throw TwinFailure("mmap")
    }
    memory = address
    kicks = [clinux_eventfd(), clinux_eventfd()]
    calls = [clinux_eventfd(), clinux_eventfd()]
    features = 1 << 32 | 1 << 30 | 1 << 28 | (eventIndex ? 1 << 29 : 0)
    if start {
      try handshake()
      for index in 0..<buffers { addBuffer(UInt16(index)) }
    }
  }

  deinit {
    _ = clinux_vhost_close(fd)
    _ = clinux_vhost_close(memoryFile)
    for each in kicks + calls { _ = clinux_vhost_close(each) }
    _ = clinux_vhost_unmap(memory, 2 * Self.half)
  }

  // MARK: - vhost-user

  func message(_ request: UInt32, _ payload: [UInt8] = [], _ descriptors: [Int32] = [], flags: UInt32 = 1) throws {
    let bytes = little(request) + little(flags) + little(UInt32(payload.count)) + payload
    let sent = bytes.withUnsafeBytes {
      clinux_send_with_descriptors(fd, $0.baseAddress, $0.count, descriptors, Int32(descriptors.count))
    }
    guard sent == bytes.count else { throw TwinFailure("message \(request): \(sent)") }
  }

  func reply() throws -> [UInt8] {
    let socket = HostSocket(clinux_dup_cloexec(fd))
    let header = try socket.read(12)
    guard header.count == 12 else { throw TwinFailure("no answer") }
    return try socket.read(Int(header[8]) | Int(header[9]) << 8)
  }

  /// Asks for an acknowledgement and waits for it, so that the device has handled the message.
  func acknowledged(_ request: UInt32, _ payload: [UInt8], _ descriptors: [Int32] = []) throws {
    try message(request, payload, descriptors, flags: 9)
    guard try reply() == little(UInt64(0)) else { throw TwinFailure("message \(request) was not acknowledged") }
  }

  static func regions(_ file: Int32) -> [UInt8] {
    let size = UInt64(half)
    return little(UInt32(2)) + little(UInt32(0))
      + little(UInt64(0)) + little(size) + little(userBase) + little(UInt64(0))
      + little(highBase) + little(size) + little(userBase + size) + little(size)
  }

  func handshake() throws {
    try message(1)
    guard try reply().count == 8 else { throw TwinFailure("features") }
    try message(15)
    _ = try reply()
    try acknowledged(16, little(UInt64(1 | 8 | 512)))
    try acknowledged(3, [])
    try message(24, little(UInt32(0)) + little(UInt32(8)) + little(UInt32(0)) + [UInt8](repeating: 0, count: 8))
    let configuration = try reply()
    guard configuration.suffix(8) == little(UInt64(cid))[...] else { throw TwinFailure("guest_cid \(configuration)") }
    try acknowledged(2, little(features))
    try acknowledged(5, Self.regions(memoryFile), [memoryFile, memoryFile])
    for queue in 0..<2 { try startRing(queue) }
  }

  func startRing(_ queue: Int, size: UInt32 = UInt32(GuestTwin.ringSize)) throws {
    let index = UInt32(queue)
    let ring = Self.rings[queue]
    try acknowledged(8, little(index) + little(size))
    try acknowledged(10, little(index) + little(UInt32(next[queue])))
    try acknowledged(
      9,
      little(index) + little(UInt32(0)) + little(Self.userBase + UInt64(ring.descriptors))
        + little(Self.userBase + UInt64(ring.used)) + little(Self.userBase + UInt64(ring.available)) + little(UInt64(0))
    )
    try acknowledged(12, little(UInt64(index)), [kicks[queue]])
    try acknowledged(13, little(UInt64(index)), [calls[queue]])
    try acknowledged(18, little(index) + little(UInt32(1)))
  }

  // MARK: - Rings

  /// Writes a descriptor of a queue's table.
  func describe(
    _ queue: Int, _ index: Int, _ address: UInt64, _ length: UInt32, _ flags: UInt16, _ following: UInt16 = 0
  ) {
    describe(at: Self.rings[queue].descriptors, index, address, length, flags, following)
  }

  func describe(at table: Int, _ index: Int, _ address: UInt64, _ length: UInt32, _ flags: UInt16, _ following: UInt16)
  {
    let entry = memory + table + 16 * index
    entry.storeBytes(of: address, as: UInt64.self)
    entry.storeBytes(of: length, toByteOffset: 8, as: UInt32.self)
    entry.storeBytes(of: flags, toByteOffset: 12, as: UInt16.self)
    entry.storeBytes(of: following, toByteOffset: 14, as: UInt16.self)
  }

  func offer(_ queue: Int, head: UInt16) {
    let available = memory + Self.rings[queue].available
    available.storeBytes(
      of: head, toByteOffset: 4 + 2 * Int(next[queue] % Self.ringSize), as: UInt16.self)
    next[queue] &+= 1
    clinux_vhost_store_release_u16(available + 2, next[queue])
    // Asks for an interrupt for each, in either way of asking.
    available.storeBytes(of: seen[queue], toByteOffset: 4 + 2 * Int(Self.ringSize), as: UInt16.self)
    kick(queue)
  }

  func kick(_ queue: Int) {
    var one: UInt64 = 1
    _ = clinux_write(kicks[queue], &one, 8)
  }

  func bufferOffset(_ index: UInt16) -> Int { Self.half + Int(index) * Self.bufferSize }

  func addBuffer(_ index: UInt16) {
    describe(0, Int(index), Self.highBase + UInt64(Int(index) * Self.bufferSize), UInt32(Self.bufferSize), 2)
    offer(0, head: index)
  }

  /// The next used element of a queue.
  func used(_ queue: Int, within seconds: Double = 5) throws -> (head: UInt16, length: Int)? {
    let used = memory + Self.rings[queue].used
    let deadline = Date().addingTimeInterval(seconds)
    while clinux_vhost_load_acquire_u16(used + 2) == seen[queue] {
      let left = deadline.timeIntervalSinceNow
      guard left > 0 else { return nil }
      var entry = pollfd(fd: calls[queue], events: Int16(POLLIN), revents: 0)
      // An interrupt is expected for everything; the short wait only bounds the test.
      _ = poll(&entry, 1, Int32(min(left, 0.05) * 1000))
      var count: UInt64 = 0
      _ = clinux_read(calls[queue], &count, 8)
      (memory + Self.rings[queue].available).storeBytes(
        of: seen[queue], toByteOffset: 4 + 2 * Int(Self.ringSize), as: UInt16.self)
    }
    let slot = used + 4 + 8 * Int(seen[queue] % Self.ringSize)
    seen[queue] &+= 1
    let head = slot.load(as: UInt32.self)
    guard head < UInt32(Self.ringSize) else { throw TwinFailure("used head \(head)") }
    return (UInt16(head), Int(slot.load(fromByteOffset: 4, as: UInt32.self)))
  }

  // MARK: - Packets

  func header(_ operation: UInt16, port: UInt32, from: UInt32, to cid: UInt64 = 3) -> VsockHeader {
    var header = VsockHeader()
    header.sourceCID = UInt64(self.cid)
    header.destinationCID = cid
    header.sourcePort = from
    header.destinationPort = port
    header.operation = operation
    header.bufferSize = 1 << 20
    return header
  }

  /// Sends a packet, its bytes in pieces of at most `piece`, and waits until the device has taken it.
  func send(_ header: VsockHeader, _ payload: [UInt8] = [], piece: Int = 65536, indirect: Bool = false) throws {
    var header = header
    header.length = UInt32(payload.count)
    let area = memory + Self.packetArea
    header.write(to: UnsafeMutableRawBufferPointer(start: area, count: VsockHeader.size))
    payload.withUnsafeBytes {
      (area + VsockHeader.size).copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(area), byteCount: $0.count)
    }
    let table = indirect ? 0x8000 : Self.rings[1].descriptors
    var count = 0
    var offset = 0
    let total = VsockHeader.size + payload.count
    while offset < total {
      let length = min(count == 0 ? VsockHeader.size : piece, total - offset)
      let more = offset + length < total
      describe(
        at: table, count, UInt64(Self.packetArea + offset), UInt32(length), more ? 1 : 0, UInt16(count + 1))
      offset += length
      count += 1
    }
    if indirect { describe(1, 0, 0x8000, UInt32(16 * count), 4) }
    offer(1, head: 0)
    guard let (head, length) = try used(1) else { throw TwinFailure("the packet was not taken") }
    guard head == 0, length == 0 else { throw TwinFailure("used \(head) with \(length)") }
  }

  /// The next packet for the guest; nil where none comes. Its buffer is offered again.
  func receive(within seconds: Double = 5) throws -> Packet? {
    guard let (head, length) = try used(0, within: seconds) else { return nil }
    guard length >= VsockHeader.size else { throw TwinFailure("a packet of \(length) bytes") }
    let place = memory + bufferOffset(head)
    let header = VsockHeader(reading: UnsafeRawBufferPointer(start: place, count: length))
    guard Int(header.length) == length - VsockHeader.size else { throw TwinFailure("length \(header.length)") }
    let payload = Array(UnsafeRawBufferPointer(start: place + VsockHeader.size, count: Int(header.length)))
    addBuffer(head)
    return Packet(header: header, payload: payload)
  }

  func expect(_ operation: UInt16) throws -> Packet {
    guard let packet = try receive() else { throw TwinFailure("no packet; operation \(operation) was expected") }
    guard packet.operation == operation else { throw TwinFailure("\(packet.header), not operation \(operation)") }
    return packet
  }

  /// Connects to a host port that is being listened on.
  /// - Parameter window: what the device must promise to take.
  func connect(
    _ port: UInt32, from: UInt32 = 1000, to cid: UInt64 = 3, _ listener: HostSocket,
    window: ClosedRange<UInt32> = 262_144...262_144
  ) throws -> HostSocket {
    try send(header(VsockOperation.request, port: port, from: from, to: cid))
    let answer = try expect(VsockOperation.response)
    guard answer.header.sourcePort == port, answer.header.destinationPort == from, answer.header.sourceCID == cid,
      answer.header.destinationCID == UInt64(self.cid), window.contains(answer.header.bufferSize)
    else { throw TwinFailure("\(answer.header)") }
    return try listener.accept()
  }

  /// Data for the guest until there are `count` bytes, with credit in between.
  func receiveData(_ count: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < count {
      guard let packet = try receive() else { throw TwinFailure("\(bytes.count) of \(count) bytes") }
      switch packet.operation {
      case VsockOperation.data: bytes += packet.payload
      case VsockOperation.creditUpdate: break
      default: throw TwinFailure("\(packet.header)")
      }
    }
    return bytes
  }
}

func little<T: FixedWidthInteger>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }

func pattern(_ count: Int, _ seed: Int = 0) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 / 251 &+ seed) }
}
