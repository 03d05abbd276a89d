import CLinux
import EventLoop
import Flows
import Inet
import LinuxSystem
import Packets
import Policy

// Theory of operation.
//
// One queue of a device joined to one path to the other side. A frame is as many bytes as a TUN device gives: virtio-net
// header and packet.
//
//   device ──read, several──▶ path ──frame by frame: checked, one write──▶ device
//
// On a stream data is copied by the kernel alone. While a path has no room the TUN device is not read: so no more than
// the path holds is in flight, and behind it the device's queue (txqueuelen) fills. Writing to a TUN device does not
// block.
//
// Without a path, or one that is not ready, the TUN device is read and what comes is thrown away (and counted): a queue
// that nobody reads would hand minutes-old packets to the next path. TCP sends them again.

/// The way of one queue's packets; everything happens in its loop's thread.
public final class PacketQueue: EventSource {
  public struct Settings: Sendable {
    /// Bytes taken from the device before they are sent on.
    public var batch = 256 * 1024
    /// Bytes read from the stream at once, at most.
    public var readSize = 256 * 1024
    /// SO_SNDBUF of the stream, 0 for the system's own; without CAP_NET_ADMIN at most net.core.wmem_max.
    public var sendBuffer: Int32 = 4 << 20
    public init() {}
  }

  public enum Loss: Error, Equatable, Sendable, CustomStringConvertible {
    case closed
    case failed(SystemError)
    /// A frame's length, which no frame can have.
    case badFrame(Int)
    /// Memory in which the other side has written what cannot be.
    case badRing
    /// There was to be memory with the first byte, and there was none.
    case noMemory
    /// Something else came with it.
    case badMemory(SystemError)
    /// The other side did not take ours.
    case memoryRefused

    /// Whether the other side has ended it, in order or by its own end.
    var isEnd: Bool {
      if case .failed(let error) = self { error.errno == ECONNRESET } else { self == .closed }
    }

    public var description: String {
      switch self {
      case .closed: "it was closed"
      case .failed(let error): "\(error)"
      case .badFrame(let length): "a frame cannot have \(length) bytes"
      case .badRing: "what the shared memory says cannot be"
      case .noMemory: "the memory that was to come did not"
      case .badMemory(let error): "what came is no memory for packets: \(error)"
      case .memoryRefused: "the memory was not taken, so frames go over the stream"
      }
    }
  }

  /// How an attached stream is used.
  public enum Use {
    /// Frames on the stream.
    /// - early: what came behind the handshake.
    case frames(early: [UInt8] = [])
    /// The other side shall have this memory.
    case passing(PacketMemory)
    /// The other side has said that it will pass memory.
    case awaitingMemory
  }

  private static let deviceTag = 0
  private static let pathTag = 1
  /// Rounds of both directions before the loop's other sources have their turn.
  private static let turnLimit = 16
  /// Frames given to the device before it is read again; its queue has 500 (TUN_READQ_SIZE of drivers/net/tun.c).
  private static let frameLimit = 128
  /// Packets taken in one turn that are not sent on.
  private static let skipLimit = 4096
  /// How often connections are looked at of which a hello is awaited.
  private static let helloInterval: Duration = .seconds(1)

  private let loop: EventLoop
  private let device: any PacketDevice
  private var packetGuard: PacketGuard
  /// On the enclave's side: where what comes out of the device may go.
  private let outgoing: DestinationGuard?
  /// Instead of it, where there are rules; on the host's side as well, of what comes from the enclave.
  private var gate: FlowGate?
  private let denied: ((String) -> Void)?
  private var denials = DenialBudget()
  private let settings: Settings
  private let lost: (Loss) -> Void
  private var confirmed: (() -> Void)?
  public private(set) var counters = PacketCounters()
  /// For packets that go nowhere, or must be looked at first.
  private let scratch: UnsafeMutableRawBufferPointer
  /// For what answers a denied packet.
  private let refusal: UnsafeMutableRawBufferPointer

  private var deviceRegistration: Registration?
  private var path: (any FramePath)?
  private var pathRegistration: Registration?
  private var deviceReadable = true
  private var isTimed = false

  /// - Parameter lost: the stream has ended and is closed; `attach` may give another.
  public convenience init(
    loop: EventLoop, tun: FileReference, packetGuard: PacketGuard, settings: Settings = Settings(),
    lost: @escaping (Loss) -> Void
  ) throws(SystemError) {
    try self.init(loop: loop, device: TunDevice(tun), packetGuard: packetGuard, settings: settings, lost: lost)
  }

  /// - Parameters:
  ///   - outgoing: judges what the device gives; nil where that is not to be judged, as on the host's side.
  ///   - gate: judges flows instead, both what the device gives and what comes for it.
  ///   - denied: takes sentences about denied destinations, of either direction, not more than a few a second.
  ///   - lost: the stream has ended and is closed; `attach` may give another.
  public init(
    loop: EventLoop, device: any PacketDevice, packetGuard: PacketGuard, outgoing: DestinationGuard? = nil,
    gate: FlowGate? = nil, settings: Settings = Settings(), denied: ((String) -> Void)? = nil,
    lost: @escaping (Loss) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.device = device
    self.packetGuard = packetGuard
    self.lost = lost
    self.settings = settings
    self.outgoing = outgoing
    self.gate = gate
    self.denied = denied
    scratch = .allocate(byteCount: PacketGuard.frameLimit, alignment: 16)
    refusal = .allocate(byteCount: Refusal.frameLimit, alignment: 16)
    super.init()
    try device.file.descriptor.setNonblocking()
    deviceRegistration = try loop.add(device.file.rawValue, [.readable, .edgeTriggered], self, tag: Self.deviceTag)
  }

  deinit {
    scratch.deallocate()
    refusal.deallocate()
  }

  /// From here on the other side's packets may go to these.
  public func change(_ wanted: LockedDestinations.Value) {
    packetGuard = packetGuard.with(wanted.destinations)
    if gate?.flows !== wanted.flows { gate = wanted.flows.map { FlowGate($0) } }
  }

  /// Takes over a stream whose handshake is done; an earlier one is closed.
  /// - Parameter confirmed: called once, when packets can be sent and are not lost.
  /// - Throws: EBADF and the like of the stream; ETOOMANYREFS and others where memory could not be passed (unix(7)).
  public func attach(
    _ stream: FileReference, _ use: Use = .frames(), confirmed: (() -> Void)? = nil
  ) throws(SystemError) {
    renew()
    try stream.descriptor.setNonblocking()
    let made: any FramePath =
      switch use {
      case .frames(let early): StreamPath(stream, early: early, settings)
      case .passing(let memory): try MemoryPath(stream, passing: memory)
      case .awaitingMemory: MemoryPath(stream)
      }
    try take(made, confirmed)
  }

  /// Takes over a path; an earlier one is let go.
  /// - Parameter confirmed: as above.
  public func attach(_ path: any FramePath, confirmed: (() -> Void)? = nil) throws(SystemError) {
    renew()
    try take(path, confirmed)
  }

  private func renew() {
    if path != nil || counters.packetsOut &+ counters.packetsIn > 0 { counters.reconnects &+= 1 }
    detach()
    // Also where this fails: the device may be full, and will not tell of that again.
    loop.enqueue(self)
  }

  private func take(_ made: any FramePath, _ confirmed: (() -> Void)?) throws(SystemError) {
    pathRegistration = try loop.add(made.file.rawValue, made.interest, self, tag: Self.pathTag)
    path = made
    self.confirmed = confirmed
  }

  public var isAttached: Bool { path != nil }
  /// Whether packets go through memory.
  public var usesMemory: Bool { path.map { $0.isExposed && $0.isReady } ?? false }

  private func detach() {
    if let pathRegistration { loop.remove(pathRegistration) }
    pathRegistration = nil
    path = nil
    confirmed = nil
  }

  public func close() {
    detach()
    if let deviceRegistration { loop.remove(deviceRegistration) }
    deviceRegistration = nil
  }

  private func lose(_ loss: Loss) {
    detach()
    // The device may be full, and will not tell of that again.
    loop.enqueue(self)
    lost(loss)
  }

  override public func ready(_ events: EventSet, tag: Int) {
    if tag == Self.deviceTag {
      deviceReadable = true
    } else {
      path?.note(events)
    }
    resume()
  }

  override public func resume() {
    do throws(Loss) {
      for _ in 0..<Self.turnLimit {
        guard let path else { return discard() }
        let received = try receive(path)
        if path.isConfirmed, let confirmed {
          self.confirmed = nil
          confirmed()
        }
        guard path.isReady else { return discard() }
        let sent = try send(path)
        if !received, !sent { return }
      }
      loop.enqueue(self)
    } catch {
      lose(error)
    }
  }

  // MARK: device to path

  /// - Returns: whether anything moved.
  private func send(_ path: any FramePath) throws(Loss) -> Bool {
    let filled = deviceReadable || device.hasAnswers ? try fill(path) : false
    return try path.flush() || filled
  }

  /// - Returns: whether anything was taken from the device.
  private func fill(_ path: any FramePath) throws(Loss) -> Bool {
    var taken = 0
    var skipped = 0
    defer { if taken > 0 || skipped > 0 { device.settle() } }
    let apart = path.isExposed && device.looksInside ? scratch.baseAddress : nil
    gate?.tick()
    while taken < settings.batch, skipped < Self.skipLimit, let room = try path.room() {
      let result = device.read(apart ?? room)
      guard result >= 0 else {
        deviceReadable = false
        break
      }
      guard result > 0 else {
        skipped += 1
        countDefect()
        continue
      }
      let frame = UnsafeRawBufferPointer(start: apart ?? room, count: result)
      if packetGuard.judgesDestinations {
        gate?.entering(frame)
      } else if let gate {
        switch gate.leaving(frame) {
        case .pass, .open: break
        case .release(let held):
          // The packet may lie where the first of them goes.
          for frame in held + [Array(frame)] { taken += try send(frame, path) }
          continue
        case let verdict:
          skipped += 1
          let stopped = DeviceFrame(start: apart ?? room, length: result)
          let (answer, sequence) = stop(stopped, verdict)
          if let answer { _ = device.write(answer) }
          // The other end is told in the place of the packet.
          if let sequence, let reset = resetOnward(stopped, sequence) {
            room.copyMemory(from: reset.start, byteCount: reset.length)
            path.commit(reset.length)
            taken += reset.length
          }
          continue
        }
      } else if let outgoing, outgoing.denies(frame) {
        skipped += 1
        counters.drop(.badDestination)
        if let answer = refuse(DeviceFrame(start: apart ?? room, length: result), outgoing) { _ = device.write(answer) }
        continue
      }
      if let apart { room.copyMemory(from: apart, byteCount: result) }
      path.commit(result)
      taken += result
      counters.packetsOut &+= 1
      counters.bytesOut &+= UInt64(truncatingIfNeeded: result - PacketGuard.offloadHeaderLength)
    }
    return taken > 0 || skipped > 0
  }

  /// A frame that was kept; without room it is lost.
  /// - Returns: its length.
  private func send(_ frame: [UInt8], _ path: any FramePath) throws(Loss) -> Int {
    guard let room = try path.room() else {
      counters.drop(.heldBack)
      return 0
    }
    frame.withUnsafeBytes { if let base = $0.baseAddress { room.copyMemory(from: base, byteCount: $0.count) } }
    path.commit(frame.count)
    counters.packetsOut &+= 1
    counters.bytesOut &+= UInt64(truncatingIfNeeded: frame.count - PacketGuard.offloadHeaderLength)
    return frame.count
  }

  private func countDefect() {
    guard let defect = device.defect else { return }
    counters.drop(defect)
    device.defect = nil
  }

  private func discard() {
    guard let base = scratch.baseAddress else { return }
    for _ in 0..<Self.skipLimit where deviceReadable {
      let result = device.read(base)
      if result > 0 {
        counters.unsent &+= 1
      } else if result == 0 {
        countDefect()
      } else {
        deviceReadable = false
      }
    }
    device.settle()
    if deviceReadable { loop.enqueue(self) }
  }

  // MARK: path to device

  /// - Returns: whether anything moved.
  private func receive(_ path: any FramePath) throws(Loss) -> Bool {
    guard try path.fetch() else { return false }
    var taken = 0
    var frames = 0
    gate?.tick()
    // No more at once: the answers to all of it would not fit into the device's queue.
    while taken < settings.batch, frames < Self.frameLimit, var frame = try path.next(whole: device.looksInside) {
      if let defect = packetGuard.defect(in: frame.bytes) {
        counters.drop(defect)
        if defect == .badDestination { try answer(refuse(frame, packetGuard.destinations), path) }
      } else {
        switch verdict(on: &frame) {
        case nil: deliver(frame)
        case .release(let held):
          for earlier in held {
            earlier.withUnsafeBytes {
              if let start = $0.baseAddress { deliver(DeviceFrame(start: start, length: $0.count)) }
            }
          }
          deliver(frame)
        case let verdict?: try answer(stop(frame, verdict).answer, path)
        }
      }
      taken += frame.length
      frames += 1
      path.release()
    }
    watchHellos()
    return true
  }

  // MARK: hellos that do not come

  private func watchHellos() {
    guard !isTimed, let gate, gate.isWaiting else { return }
    isTimed = true
    loop.schedule(after: Self.helloInterval, self)
  }

  override public func timerFired(_ key: Int) {
    isTimed = false
    guard deviceRegistration != nil, let gate else { return }
    for (headers, verdict) in gate.overdue() {
      headers.withUnsafeBytes {
        guard let start = $0.baseAddress else { return }
        let frame = DeviceFrame(start: start, length: $0.count)
        let (answer, sequence) = stop(frame, verdict)
        if let answer { _ = device.write(answer) }
        // Without a path, or room on it, the other end learns it when it sends something.
        guard let sequence, let path, path.isReady, let reset = resetOnward(frame, sequence),
          let room = try? path.room()
        else { return }
        room.copyMemory(from: reset.start, byteCount: reset.length)
        path.commit(reset.length)
      }
    }
    watchHellos()
    loop.enqueue(self)
  }

  private func deliver(_ frame: DeviceFrame) {
    if let defect = device.write(frame) { return counters.drop(defect) }
    counters.packetsIn &+= 1
    counters.bytesIn &+= UInt64(truncatingIfNeeded: frame.length - PacketGuard.offloadHeaderLength)
  }

  /// - Parameter frame: whole afterwards, where more than its headers was looked at.
  /// - Returns: nil for a packet that passes.
  private func verdict(on frame: inout DeviceFrame) -> FlowVerdict? {
    guard let gate else { return nil }
    guard packetGuard.judgesDestinations else {
      // Before the program can answer it.
      gate.entering(frame.bytes)
      return nil
    }
    let verdict = gate.leaving(frame.bytes) { frame.complete() }
    switch verdict {
    case .open, .pass: return nil
    default: return verdict
    }
  }

  // MARK: denied destinations

  /// A packet of the program that does not pass.
  /// - Returns: what tells its sender; and what its other end waits for, where that is to be told as well.
  private func stop(_ frame: DeviceFrame, _ verdict: FlowVerdict) -> (answer: DeviceFrame?, sequence: UInt32?) {
    let denial: FlowDenial
    var sequence: UInt32?
    switch verdict {
    case .open, .pass, .release: return (nil, nil)
    case .drop:
      counters.drop(.heldBack)
      return (nil, nil)
    case .refuse(let found): denial = found
    case .end(let found, let number): (denial, sequence) = (found, number)
    }
    counters.drop(.badDestination)
    if let denied, denial.isWorthALine, let more = denials.admit(at: monotonicNanoseconds()) {
      denied("\(denial)\(more)")
    }
    guard let place = refusal.baseAddress else { return (nil, nil) }
    let length = Refusal.answer(to: frame.bytes, copied: frame.copied, isOfFlow: true, place)
    return (length > 0 ? DeviceFrame(start: UnsafeRawPointer(place), length: length) : nil, sequence)
  }

  private func resetOnward(_ frame: DeviceFrame, _ sequence: UInt32) -> DeviceFrame? {
    guard let place = refusal.baseAddress else { return nil }
    let length = Refusal.resetOnward(frame.bytes, sequence: sequence, place)
    return length > 0 ? DeviceFrame(start: UnsafeRawPointer(place), length: length) : nil
  }

  /// Tells the other side at once, where it asked for what it may not have.
  private func answer(_ answer: DeviceFrame?, _ path: any FramePath) throws(Loss) {
    guard packetGuard.judgesDestinations, let answer, let room = try path.room() else { return }
    room.copyMemory(from: answer.start, byteCount: answer.length)
    path.commit(answer.length)
    counters.refusals &+= 1
  }

  /// - Returns: the frame that answers it; nil where there is to be none.
  private func refuse(_ frame: DeviceFrame, _ destinations: DestinationGuard) -> DeviceFrame? {
    // The kernel's own multicast (IGMP, MLD, router solicitations) is nothing that anybody would want to read of.
    if let denied, let denial = destinations.denial(of: frame.bytes), !denial.rule.contains(.multicast),
      let more = denials.admit(at: monotonicNanoseconds())
    {
      denied("\(DestinationGuard.endpoint(frame.bytes) ?? "\(denial.destination)") denied: \(denial)\(more)")
    }
    guard let place = refusal.baseAddress else { return nil }
    let length = Refusal.answer(to: frame.bytes, copied: frame.copied, place)
    return length > 0 ? DeviceFrame(start: UnsafeRawPointer(place), length: length) : nil
  }
}
