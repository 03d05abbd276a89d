import CLinux
import LinuxSystem

/// The events of epoll(7) for one descriptor.
public struct EventSet: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let readable = EventSet(rawValue: 0x001)
  /// A TCP socket has urgent data (EPOLLPRI, epoll_ctl(2)).
  public static let priority = EventSet(rawValue: 0x002)
  public static let writable = EventSet(rawValue: 0x004)
  /// Always reported.
  public static let error = EventSet(rawValue: 0x008)
  /// Both directions have ended; always reported.
  public static let hangup = EventSet(rawValue: 0x010)
  /// The peer has shut its sending side.
  public static let readHangup = EventSet(rawValue: 0x2000)
  public static let edgeTriggered = EventSet(rawValue: 1 << 31)
}

/// Something that waits for events of descriptors, timers or its turn.
open class EventSource {
  public init() {}
  /// A descriptor registered with `tag` is ready.
  open func ready(_ events: EventSet, tag: Int) {}
  /// The timer scheduled with `key` has come due.
  open func timerFired(_ key: Int) {}
  /// The turn asked for with `EventLoop.enqueue` has come.
  open func resume() {}
  var queued = false
}

/// A registration of a descriptor; valid until it is removed.
public struct Registration: Equatable, Sendable {
  fileprivate var slot: Int
  fileprivate var generation: UInt32
}

/// A timer that may be cancelled.
public struct TimerToken: Hashable, Sendable {
  fileprivate var id: UInt64
}

/// One thread's loop over epoll(7), timers and a run queue.
///
/// The kernel's event carries a slot and the slot's generation, so that an event for a descriptor closed earlier in
/// the same batch finds nobody. Sources that have more to do than is fair take further turns through `enqueue`.
///
/// A thread that sleeps has to be woken by the one that has the next event for it, and on a virtual machine both pay for that
/// with an exit to the hypervisor. So a loop that carries data may look for events before it sleeps (`spin`), if its last
/// sleep was shorter than that, and lets everybody else run in between (sched_yield). When it has looked in vain it sleeps,
/// and looks no more until a sleep was short again: rare events are never waited for like this. KVM does the same for
/// virtual CPUs that have nothing to do (Documentation/virt/kvm/halt-polling.rst).
public final class EventLoop {
  /// A value for `spin` in loops that carry data.
  public static let dataSpin: UInt64 = 100_000

  private struct Slot {
    var source: EventSource?
    var tag = 0
    var fd: Int32 = -1
    var generation: UInt32 = 0
  }

  private let epoll: OwnedFileDescriptor
  /// Where no descriptor is left, it is given up for one that has to be got rid of.
  private var spare: FileReference?
  private var slots: [Slot] = []
  private var freeSlots: [Int] = []
  private var timers = TimerQueue()
  private var runQueue: [EventSource] = []
  private var stopped = false
  private var isBusy = false
  /// Nanoseconds, less than a millisecond: a timer is late by as much. 0 for sleeping at once.
  private let spin: UInt64
  private let events: UnsafeMutableBufferPointer<epoll_event>

  /// - Parameter spin: nanoseconds to look for events before sleeping, in busy times; with one processor nobody could bring
  ///   any meanwhile, and none are spent.
  public init(spin: UInt64 = 0) throws(SystemError) {
    self.spin = spin > 0 && processorCount() > 1 ? min(spin, 1_000_000) : 0
    epoll = OwnedFileDescriptor(try checkErrno("epoll_create1") { epoll_create1(Int32(CLINUX_EPOLL_CLOEXEC)) })
    events = .allocate(capacity: 256)
    takeSpare()
  }

  private func takeSpare() {
    do throws(SystemError) { spare = FileReference(try epoll.duplicate()) } catch { spare = nil }
  }

  /// For when there are no more descriptors (EMFILE, ENFILE): `body` has one more for its own time.
  /// - Returns: false where there was none to give, and `body` was not called.
  public func withSpareDescriptor(_ body: () -> Void) -> Bool {
    if spare == nil { takeSpare() }
    guard spare != nil else { return false }
    spare = nil
    body()
    takeSpare()
    return true
  }

  deinit { events.deallocate() }

  /// Registers `fd`, which must stay open until `remove`. The C function is `epoll_ctl(EPOLL_CTL_ADD)`.
  public func add(
    _ fd: Int32, _ interest: EventSet, _ source: EventSource, tag: Int = 0
  ) throws(SystemError) -> Registration {
    let index: Int
    if let free = freeSlots.popLast() {
      index = free
    } else {
      index = slots.count
      slots.append(Slot())
    }
    slots[index].source = source
    slots[index].tag = tag
    slots[index].fd = fd
    let registration = Registration(slot: index, generation: slots[index].generation)
    do throws(SystemError) {
      try control(EPOLL_CTL_ADD, fd, interest, registration)
    } catch {
      release(index)
      throw error
    }
    return registration
  }

  /// The C function is `epoll_ctl(EPOLL_CTL_MOD)`.
  public func modify(_ registration: Registration, _ interest: EventSet) throws(SystemError) {
    guard isValid(registration) else { return }
    try control(EPOLL_CTL_MOD, slots[registration.slot].fd, interest, registration)
  }

  /// Call before the descriptor is closed. The C function is `epoll_ctl(EPOLL_CTL_DEL)`.
  public func remove(_ registration: Registration) {
    guard isValid(registration) else { return }
    var none = epoll_event()
    _ = epoll_ctl(epoll.rawValue, EPOLL_CTL_DEL, slots[registration.slot].fd, &none)
    release(registration.slot)
  }

  private func isValid(_ registration: Registration) -> Bool {
    slots.indices.contains(registration.slot) && slots[registration.slot].generation == registration.generation
      && slots[registration.slot].source != nil
  }

  private func release(_ index: Int) {
    slots[index].source = nil
    slots[index].generation &+= 1
    freeSlots.append(index)
  }

  private func control(
    _ operation: Int32, _ fd: Int32, _ interest: EventSet, _ registration: Registration
  ) throws(SystemError) {
    var event = epoll_event()
    event.events = interest.rawValue
    event.data.u64 = UInt64(registration.generation) << 32 | UInt64(UInt32(truncatingIfNeeded: registration.slot))
    let raw = epoll.rawValue
    try checkErrno("epoll_ctl", "descriptor \(fd)") { epoll_ctl(raw, operation, fd, &event) }
  }

  /// Calls `source.timerFired(key)` once, no earlier than `delay` from now.
  @discardableResult
  public func schedule(after delay: Duration, _ source: EventSource, key: Int = 0) -> TimerToken {
    TimerToken(id: timers.add(deadline: monotonicNanoseconds() &+ delay.nanoseconds, source: source, key: key))
  }

  public func cancel(_ timer: TimerToken) { timers.cancel(timer.id) }

  /// Gives `source` a turn after the events at hand; asking twice gives one turn.
  public func enqueue(_ source: EventSource) {
    guard !source.queued else { return }
    source.queued = true
    runQueue.append(source)
  }

  public func stop() { stopped = true }

  /// Lets go of every source, which may hold this loop in turn: for a loop that is not run again.
  public func clear() {
    slots = []
    freeSlots = []
    runQueue = []
    timers = TimerQueue()
  }

  /// Runs until `stop`.
  /// - Throws: only where epoll_wait(2) itself fails, which it does not on a valid descriptor.
  public func run() throws(SystemError) {
    stopped = false
    while !stopped {
      try turn()
    }
  }

  /// - Parameter timeout: in milliseconds; negative for as long as it takes.
  private func wait(_ timeout: Int32) -> Int32 {
    let room = Int32(events.count)
    guard spin > 0, timeout != 0 else { return epoll_wait(epoll.rawValue, events.baseAddress, room, timeout) }
    let start = monotonicNanoseconds()
    if isBusy {
      repeat {
        let count = epoll_wait(epoll.rawValue, events.baseAddress, room, 0)
        if count != 0 { return count }
        yieldProcessor()
      } while monotonicNanoseconds() &- start < spin
    }
    let count = epoll_wait(epoll.rawValue, events.baseAddress, room, timeout)
    // Never after a look in vain, which took that long by itself.
    isBusy = monotonicNanoseconds() &- start < spin
    return count
  }

  private func turn() throws(SystemError) {
    let count = wait(runQueue.isEmpty ? timers.milliseconds(from: monotonicNanoseconds()) : 0)
    if count < 0, errnoValue() != EINTR { throw SystemError("epoll_wait", errno: errnoValue()) }
    for index in 0..<Int(max(count, 0)) {
      let event = events[index]
      let slot = Int(event.data.u64 & 0xffff_ffff)
      let generation = UInt32(truncatingIfNeeded: event.data.u64 >> 32)
      guard slots[slot].generation == generation, let source = slots[slot].source else { continue }
      source.ready(EventSet(rawValue: event.events), tag: slots[slot].tag)
    }
    if !timers.isEmpty {
      let now = monotonicNanoseconds()
      while let due = timers.popDue(now) { due.source.timerFired(due.key) }
    }
    if !runQueue.isEmpty {
      let turn = runQueue
      runQueue.removeAll(keepingCapacity: true)
      for source in turn {
        source.queued = false
        source.resume()
      }
    }
  }
}

extension Duration {
  /// Whole nanoseconds, 0 for negative durations.
  public var nanoseconds: UInt64 {
    let (seconds, attoseconds) = components
    guard seconds >= 0, attoseconds >= 0 else { return 0 }
    return UInt64(seconds) &* 1_000_000_000 &+ UInt64(attoseconds / 1_000_000_000)
  }
}

/// A timer alone: calls once when it comes due.
public final class TimerSource: EventSource {
  private let body: () -> Void
  public init(_ body: @escaping () -> Void) { self.body = body }
  override public func timerFired(_ key: Int) { body() }
}
