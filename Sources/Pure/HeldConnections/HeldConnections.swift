import Inet
import Packets

// Theory of operation.
//
// The enclave's default route leads to a TUN device. A SYN of the program is held here while the host connects:
//
//   program ──SYN──▶ held ──the host: connected──▶ SYN to the proxy's own listening socket, as from a virtual address
//                      ├──refused────────────────▶ RST to the program
//                      ├──unreachable, denied────▶ ICMP to the program
//                      └──nothing came───────────▶ nothing: the program's own time runs out
//
// Afterwards every segment passes with other addresses, in both directions:
//
//   program  A:p ▶ D:q        becomes    V:k ▶ L       for the listening socket
//   listener L ▶ V:k          becomes    D:q ▶ A:p     for the program
//
// So the enclave's kernel is the TCP at both ends: retransmission, windows, options, half-close and resets are its own. V:k
// is an entry's slot, and tells the proxy which connection it has accepted. An entry that was open keeps its slot for as
// long as either kernel's end may be in TIME_WAIT, and gets the same one again when the program opens the same
// connection again: then the kernel judges the new SYN by its own rules for that state.
//
// What belongs to no entry is answered with a reset, as by a host that was started anew.

/// The TCP connections between the program and the proxy's listening sockets. A pure state machine: packets, the host's
/// answers and seconds go in, rewritten packets and questions for the host come out.
public struct HeldConnections: Sendable {
  public struct Settings: Sendable, Equatable {
    /// What the listening sockets are bound to.
    public var listener4: IPv4Address?
    public var listener6: IPv6Address?
    public var listenerPort: UInt16
    /// The first of the virtual addresses, which the device's route leads to and nobody has.
    public var virtual4: IPv4Address
    public var virtual6: IPv6Address
    /// How many virtual addresses there are of each family.
    public var virtualCount = 4
    /// The ports that are used of each.
    public var ports: ClosedRange<UInt16> = 1024...65535
    /// SYNs held at a time; further ones are dropped, as by a listener with a full backlog.
    public var heldLimit = 16384

    public init(
      listener4: IPv4Address?, listener6: IPv6Address?, listenerPort: UInt16, virtual4: IPv4Address,
      virtual6: IPv6Address
    ) {
      self.listener4 = listener4
      self.listener6 = listener6
      self.listenerPort = listenerPort
      self.virtual4 = virtual4
      self.virtual6 = virtual6
    }
  }

  /// One life of an entry.
  public struct ID: Hashable, Sendable {
    var slot: UInt32
    var generation: UInt32
  }

  /// What is to be done with a frame of the device.
  public enum Verdict: Equatable, Sendable {
    /// It has got other addresses: give it back to the device.
    case pass
    /// The same; the program has given the connection up before it was accepted: the host's stream ends.
    case passAndCancel(ID)
    /// Answer its sender with a reset.
    case reset
    case drop
    /// A SYN that is held now: ask the host, and give its answer to `answer`.
    case ask(ID, from: IPEndpoint, to: IPEndpoint)
  }

  /// What the host has said.
  public enum Answer: Equatable, Sendable {
    case connected
    case refused
    case unreachable(UnreachableAnswer.Reason)
    /// Nothing came from there: neither does anything go to the program.
    case silence
  }

  /// What is to be given to the device after an answer.
  public enum Reply: Equatable, Sendable {
    /// A whole frame.
    case frame([UInt8])
    /// A reset, made of this frame with the program's SYN.
    case reset([UInt8])
    case nothing
  }

  /// Seconds from the host's answer to accept(2): what the kernel tries for (tcp_synack_retries), and more.
  static let acceptTime: UInt32 = 150
  /// A SYN with options and little data; longer ones are none that a kernel sends.
  static let synLimit = 2048
  /// Slots looked at for one that can be used again.
  private static let searchLimit = 64

  private let settings: Settings
  private let listener4: SegmentEnd?
  private let listener6: SegmentEnd?
  private var entries: [HeldEntry] = []
  private var index: [HeldKey: UInt32] = [:]
  private var slots: SlotReserve
  /// Entries that a clock has to look at: held ones, and open ones that were not accepted yet.
  private var waiting: [UInt32] = []
  public private(set) var heldCount = 0

  public init(_ settings: Settings) {
    self.settings = settings
    listener4 = settings.listener4.map { SegmentEnd(.v4($0), settings.listenerPort) }
    listener6 = settings.listener6.map { SegmentEnd(.v6($0), settings.listenerPort) }
    slots = SlotReserve(capacity: max(settings.virtualCount, 1) * settings.ports.count)
  }

  /// Entries that were made so far; an entry is some 200 bytes with its place in the index.
  public var entryCount: Int { entries.count }

  // MARK: slots and virtual addresses

  private func virtual(_ slot: UInt32, is6: Bool) -> SegmentEnd {
    let span = UInt32(settings.ports.count)
    let port = settings.ports.lowerBound &+ UInt16(truncatingIfNeeded: slot % span)
    let number = UInt64(slot / span)
    return is6
      ? SegmentEnd(high: settings.virtual6.high, low: settings.virtual6.low &+ number, port: port)
      : SegmentEnd(high: 0, low: UInt64(settings.virtual4.rawValue) &+ number, port: port)
  }

  private func isVirtual(_ end: SegmentEnd, is6: Bool) -> Bool {
    let first = is6 ? settings.virtual6.low : UInt64(settings.virtual4.rawValue)
    return (!is6 || end.high == settings.virtual6.high) && end.low >= first
      && end.low &- first < UInt64(settings.virtualCount)
  }

  private func slot(_ end: SegmentEnd, is6: Bool) -> Int? {
    guard isVirtual(end, is6: is6), settings.ports.contains(end.port) else { return nil }
    let first = is6 ? settings.virtual6.low : UInt64(settings.virtual4.rawValue)
    let slot = Int(end.low &- first) * settings.ports.count + Int(end.port &- settings.ports.lowerBound)
    return slot < entries.count ? slot : nil
  }

  /// The entry of this life, if it is still that.
  private func place(_ id: ID) -> Int? {
    let slot = Int(id.slot)
    return slot < entries.count && entries[slot].generation == id.generation ? slot : nil
  }

  // MARK: packets

  /// Takes a frame that the device has given: a virtio-net header and a packet.
  /// - Parameters:
  ///   - frame: is changed in place where the verdict is to pass it.
  ///   - now: seconds of a clock that never goes back.
  @inline(__always)
  public mutating func take(_ frame: UnsafeMutableRawBufferPointer, now: UInt32) -> Verdict {
    guard let segment = Segment(UnsafeRawBufferPointer(frame)) else { return .drop }
    let listener = segment.is6 ? listener6 : listener4
    guard let listener else { return segment.flags & Segment.reset == 0 ? .reset : .drop }
    if segment.source == listener { return fromListener(segment, frame, now) }
    return fromProgram(segment, frame, listener, now)
  }

  private mutating func fromListener(
    _ segment: Segment, _ frame: UnsafeMutableRawBufferPointer, _ now: UInt32
  ) -> Verdict {
    let stranger: Verdict = segment.flags & Segment.reset == 0 ? .reset : .drop
    guard let slot = slot(segment.destination, is6: segment.is6) else { return stranger }
    let key = entries[slot].key
    guard entries[slot].isMapped, key.is6 == segment.is6 else { return stranger }
    entries[slot].lastSeen = now
    if segment.flags & Segment.reset != 0 {
      // A listener whose backlog overflows may reset what the host has connected.
      end(slot, isFinished: true)
    } else if segment.flags & Segment.fin != 0 {
      entries[slot].finished.insert(.listener)
    }
    segment.rewrite(frame, from: key.remote, to: key.local)
    return .pass
  }

  private mutating func fromProgram(
    _ segment: Segment, _ frame: UnsafeMutableRawBufferPointer, _ listener: SegmentEnd, _ now: UInt32
  ) -> Verdict {
    let key = HeldKey(segment)
    guard let found = index[key], Int(found) < entries.count else {
      if segment.opens, !isVirtual(key.remote, is6: key.is6) { return hold(segment, key, frame, now) }
      return segment.flags & Segment.reset == 0 ? .reset : .drop
    }
    let slot = Int(found)
    entries[slot].lastSeen = now
    switch entries[slot].state {
    case .held:
      if segment.opens {
        entries[slot].syn = Self.copied(frame)
        return .drop
      }
      // A program that has given up sends nothing; only one that makes its own packets does.
      return segment.flags & Segment.reset == 0 ? .reset : .drop
    case .ended where segment.opens:
      // The same connection once more, in the same slot.
      return ask(slot, frame, now)
    case .free: return .drop
    case .open, .ended: break
    }
    var verdict = Verdict.pass
    if segment.flags & Segment.reset != 0 {
      if entries[slot].state == .open, !entries[slot].isAccepted, !entries[slot].isEstablished {
        verdict = .passAndCancel(ID(slot: found, generation: entries[slot].generation))
      }
      end(slot, isFinished: true)
    } else {
      if segment.flags & Segment.acknowledgement != 0 { entries[slot].isEstablished = true }
      if segment.flags & Segment.fin != 0 { entries[slot].finished.insert(.program) }
    }
    segment.rewrite(frame, from: virtual(found, is6: key.is6), to: listener)
    return verdict
  }

  private static func copied(_ frame: UnsafeMutableRawBufferPointer) -> [UInt8] { Array(frame.prefix(synLimit)) }

  private mutating func hold(
    _ segment: Segment, _ key: HeldKey, _ frame: UnsafeMutableRawBufferPointer, _ now: UInt32
  ) -> Verdict {
    guard heldCount < settings.heldLimit, frame.count <= Self.synLimit, let slot = reserve(now) else { return .drop }
    if Int(slot) == entries.count {
      entries.append(HeldEntry(key))
    } else {
      if entries[Int(slot)].state != .free { index[entries[Int(slot)].key] = nil }
      entries[Int(slot)].key = key
    }
    index[key] = slot
    return ask(Int(slot), frame, now)
  }

  /// A slot that is free, whose connection has long ended, or that was never used; without any of them the one whose
  /// connection ended first.
  private mutating func reserve(_ now: UInt32) -> UInt32? {
    if let slot = slots.takeFree() { return slot }
    if let slot = reserveEnded(now, resting: true) { return slot }
    if entries.count < slots.capacity { return UInt32(truncatingIfNeeded: entries.count) }
    return reserveEnded(now, resting: false)
  }

  private mutating func reserveEnded(_ now: UInt32, resting: Bool) -> UInt32? {
    for _ in 0..<Self.searchLimit {
      guard let slot = slots.first, Int(slot) < entries.count else { return nil }
      let entry = entries[Int(slot)]
      if entry.state == .ended, !entry.isAccepted, resting, !entry.hasRested(now) { return nil }
      slots.removeFirst()
      // Its end came before the proxy's: it waits once more.
      if entry.state == .ended, entry.isAccepted {
        slots.ended(slot)
        continue
      }
      entries[Int(slot)].isQueued = false
      if entry.state == .ended { return slot }
    }
    return nil
  }

  private mutating func ask(_ slot: Int, _ frame: UnsafeMutableRawBufferPointer, _ now: UInt32) -> Verdict {
    guard heldCount < settings.heldLimit, frame.count <= Self.synLimit else { return .drop }
    entries[slot].wasOpen = entries[slot].state == .ended
    entries[slot].state = .held
    entries[slot].generation &+= 1
    entries[slot].isAccepted = false
    entries[slot].isEstablished = false
    entries[slot].isFinished = false
    entries[slot].isOver = false
    entries[slot].finished = []
    entries[slot].syn = Self.copied(frame)
    entries[slot].since = now
    entries[slot].lastSeen = now
    heldCount += 1
    waiting.append(UInt32(truncatingIfNeeded: slot))
    let key = entries[slot].key
    return .ask(
      ID(slot: UInt32(truncatingIfNeeded: slot), generation: entries[slot].generation),
      from: key.local.endpoint(is6: key.is6), to: key.remote.endpoint(is6: key.is6))
  }

  // MARK: answers

  /// The host has answered, or the proxy for it.
  public mutating func answer(_ id: ID, _ answer: Answer, now: UInt32) -> Reply {
    guard let slot = place(id), entries[slot].state == .held else { return .nothing }
    var syn = entries[slot].syn
    entries[slot].syn = []
    heldCount -= 1
    guard answer == .connected else {
      release(slot)
      switch answer {
      case .connected, .silence: return .nothing
      case .refused: return .reset(syn)
      case .unreachable(let reason): return .frame(syn.withUnsafeBytes { UnreachableAnswer.make($0, reason) })
      }
    }
    let key = entries[slot].key
    guard let listener = key.is6 ? listener6 : listener4 else {
      release(slot)
      return .reset(syn)
    }
    entries[slot].state = .open
    entries[slot].since = now
    let source = virtual(id.slot, is6: key.is6)
    syn.withUnsafeMutableBytes { bytes in
      Segment(UnsafeRawBufferPointer(bytes))?.rewrite(bytes, from: source, to: listener)
    }
    return .frame(syn)
  }

  /// Which connection has been accepted from this virtual address, and where its program wanted to go; nil where that is
  /// none that waits for it. Once for each.
  public mutating func accepted(from peer: IPEndpoint) -> (id: ID, source: IPEndpoint, destination: IPEndpoint)? {
    let is6 = if case .v6 = peer.address { true } else { false }
    guard let slot = slot(SegmentEnd(peer.address, peer.port), is6: is6), entries[slot].key.is6 == is6,
      entries[slot].isMapped, entries[slot].state != .held, !entries[slot].isAccepted, !entries[slot].isOver
    else { return nil }
    entries[slot].isAccepted = true
    let key = entries[slot].key
    return (
      ID(slot: UInt32(truncatingIfNeeded: slot), generation: entries[slot].generation),
      key.local.endpoint(is6: is6), key.remote.endpoint(is6: is6)
    )
  }

  /// The proxy has closed its end of a connection. The kernel may still send and receive for it.
  public mutating func closed(_ id: ID) {
    guard let slot = place(id), entries[slot].isMapped else { return }
    entries[slot].isAccepted = false
    entries[slot].isOver = true
    end(slot, isFinished: entries[slot].finished == [.program, .listener])
  }

  private mutating func end(_ slot: Int, isFinished: Bool) {
    guard entries[slot].isMapped, entries[slot].state != .held else { return }
    entries[slot].state = .ended
    if isFinished { entries[slot].isFinished = true }
    if !entries[slot].isQueued {
      entries[slot].isQueued = true
      slots.ended(UInt32(truncatingIfNeeded: slot))
    }
  }

  /// What never got through. Its slot is as good as new, unless an earlier connection had it.
  private mutating func release(_ slot: Int) {
    if entries[slot].wasOpen {
      entries[slot].state = .ended
      entries[slot].isOver = true
      end(slot, isFinished: true)
      return
    }
    index[entries[slot].key] = nil
    entries[slot].state = .free
    slots.free(UInt32(truncatingIfNeeded: slot))
  }

  // MARK: time

  /// Whether `tick` has anything to look at.
  public var isWaiting: Bool { !waiting.isEmpty }

  /// - Returns: those whose question or stream to the host is to be given up.
  public mutating func tick(now: UInt32) -> [ID] {
    var given: [ID] = []
    var kept: [UInt32] = []
    kept.reserveCapacity(waiting.count)
    for slot in waiting {
      let place = Int(slot)
      guard place < entries.count else { continue }
      let entry = entries[place]
      let id = ID(slot: slot, generation: entry.generation)
      switch entry.state {
      case .held where entry.isGivenUp(now):
        heldCount -= 1
        entries[place].syn = []
        release(place)
        given.append(id)
      case .held: kept.append(slot)
      case .open where !entry.isAccepted:
        if now &- entry.since < Self.acceptTime {
          kept.append(slot)
        } else {
          entries[place].isOver = true
          end(place, isFinished: true)
          given.append(id)
        }
      case .open, .ended, .free: break
      }
    }
    waiting = kept
    return given
  }
}
