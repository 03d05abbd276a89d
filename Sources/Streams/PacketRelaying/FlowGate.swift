import Flows
import Inet
import LinuxSystem
import Packets
import Policy

// Theory of operation.
//
//   packet ▶ is its flow one that this thread knows to be open? ▶ passes
//          ▶ what all queues share, behind a lock: `FlowJudge`, and the names of addresses ▶ `FlowVerdict`
//
// A flow's packets may change their queue (the device chooses by what came last), so what is open is shared; and a lock for
// each packet would cost more than a packet. So each queue has a memory of its own, of two seconds (`FlowCache`).

/// What the gates of all queues share.
public final class SharedFlows: Sendable {
  private let judge: Locked<FlowJudge>
  private let names: @Sendable (IPAddress) -> [DomainName]
  private let used: @Sendable (String) -> Void

  /// - Parameters:
  ///   - names: for which an address is the answer; called in any thread.
  ///   - used: takes sentences about destinations in use; called in any thread.
  public init(
    _ judge: FlowJudge, used: @escaping @Sendable (String) -> Void = { _ in },
    names: @escaping @Sendable (IPAddress) -> [DomainName]
  ) {
    self.judge = Locked(judge)
    self.names = names
    self.used = used
  }

  func leaving(_ packet: FlowPacket, _ mark: UInt64, _ frame: UnsafeRawBufferPointer, _ now: UInt32) -> FlowVerdict {
    let (verdict, uses) = judge.with { ($0.leaving(packet, mark, frame, now: now, names), $0.takeUses()) }
    for sentence in uses { used(sentence) }
    return verdict
  }

  func overdue(_ now: UInt32) -> (ended: [(headers: [UInt8], verdict: FlowVerdict)], isWaiting: Bool) {
    judge.with { $0.overdue(now: now) }
  }

  func entering(_ packet: FlowPacket, _ mark: UInt64, _ now: UInt32) -> Bool {
    judge.with { $0.entering(packet, mark, now: now) }
  }

  public func change(_ destinations: Destinations) { judge.with { $0.change(destinations) } }

  /// Which packets for the program are to be shown; it never changes.
  var watch: FlowWatch { judge.with { $0.watch } }
}

/// The check on each flow of one queue; one thread uses it.
public final class FlowGate {
  let flows: SharedFlows
  private let watch: FlowWatch
  private var cache = FlowCache()
  /// In seconds.
  private var now: UInt32 = 0
  /// Somebody must ask `overdue` from time to time.
  private(set) var isWaiting = false

  public init(_ flows: SharedFlows) {
    self.flows = flows
    watch = flows.watch
  }

  /// To be called before some packets: they all count as of now.
  public func tick() { now = UInt32(truncatingIfNeeded: monotonicNanoseconds() / 1_000_000_000) }

  /// A packet of the program.
  /// - Parameters:
  ///   - frame: of which the headers are there, and with `sni` all.
  ///   - complete: to be called before more than the headers is read.
  public func leaving(_ frame: UnsafeRawBufferPointer, complete: () -> Void = {}) -> FlowVerdict {
    guard let packet = FlowPacket(frame, isLeaving: true) else { return .drop }
    let mark = packet.mark
    if watch.reads(packet) { complete() }
    if packet.isPlain, cache.isOpen(mark, now: now), !watch.mayBegin(packet, frame) { return .pass }
    let verdict = flows.leaving(packet, mark, frame, now)
    if case .open = verdict { cache.open(mark, now: now) }
    return verdict
  }

  /// A packet for the program, which has passed `PacketGuard`.
  /// - Parameter frame: of which the headers are there.
  func entering(_ frame: UnsafeRawBufferPointer) {
    guard let packet = FlowPacket(frame, isLeaving: false), watch.isWanted(packet) else { return }
    let mark = packet.mark
    if packet.isPlain, cache.isOpen(mark, now: now) { return }
    if watch.beginsHello(packet) { isWaiting = true }
    if flows.entering(packet, mark, now) { cache.open(mark, now: now) }
  }

  /// Ends what has had its time, as of now. Whichever queue asks, it is told of the connections of all.
  func overdue() -> [(headers: [UInt8], verdict: FlowVerdict)] {
    tick()
    let found = flows.overdue(now)
    isWaiting = found.isWaiting
    return found.ended
  }
}
