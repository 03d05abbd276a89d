/// The flows that are open. Bounded, however many a program opens: where it is full, those go that nobody has used for as
/// long as their kind may rest, and then some of those that have rested longer than most.
public struct FlowTable {
  /// What a flow is, for how long it may rest.
  enum Kind: UInt32 {
    /// A TCP connection: more than keep-alives are apart (RFC 5382 section 5, RFC 1122 section 4.2.3.6).
    case connection = 7440
    /// One that has not been answered, or has ended at both ends: as long as segments of it can come (RFC 9293 section 3.4.1).
    case half = 240
    /// As conntrack has it (nf_conntrack_udp_timeout_stream).
    case datagrams = 120
    case echo = 60

    /// In seconds.
    var rest: UInt32 { rawValue }
  }

  private struct Entry {
    var used: UInt32
    var kind: Kind
    /// Which ends have said that they send no more: of the enclave's side, of the other.
    var hasEnded = (here: false, there: false)
  }

  private let limit: Int
  private var entries: [UInt64: Entry] = [:]

  init(limit: Int = 1 << 16) { self.limit = limit }

  var count: Int { entries.count }

  /// - Parameter now: seconds of a clock that never goes back.
  mutating func open(_ mark: UInt64, _ kind: Kind, now: UInt32) {
    if entries[mark] == nil, entries.count >= limit { makeRoom(now) }
    entries[mark] = Entry(used: now, kind: kind)
  }

  mutating func close(_ mark: UInt64) { entries[mark] = nil }

  func isOpen(_ mark: UInt64, now: UInt32) -> Bool {
    entries[mark].map { now &- $0.used <= $0.kind.rest } ?? false
  }

  /// A packet of a flow: it stays open.
  /// - Returns: whether it was.
  mutating func use(_ mark: UInt64, now: UInt32) -> Bool {
    guard isOpen(mark, now: now) else {
      entries[mark] = nil
      return false
    }
    entries[mark]?.used = now
    return true
  }

  /// A segment of an open connection, which may end it. A reset from outside may be forged, so that it ends nothing before
  /// the enclave has been silent for a while.
  mutating func note(ends: Bool, resets: Bool, isLeaving: Bool, _ mark: UInt64) {
    guard var entry = entries[mark] else { return }
    if isLeaving, resets { return close(mark) }
    if resets {
      entry.kind = .half
    } else if ends {
      if isLeaving { entry.hasEnded.here = true } else { entry.hasEnded.there = true }
      if entry.hasEnded == (true, true) { entry.kind = .half }
    } else if isLeaving, entry.hasEnded != (true, true) {
      entry.kind = .connection
    }
    entries[mark] = entry
  }

  private mutating func makeRoom(_ now: UInt32) {
    // One of them is at least as old as all are in the middle.
    var oldest: UInt64 = 0
    for (mark, entry) in entries {
      if now &- entry.used > entry.kind.rest { entries[mark] = nil } else { oldest += UInt64(now &- entry.used) }
    }
    guard entries.count >= limit else { return }
    oldest /= UInt64(entries.count)
    var left = limit / 4 + 1
    for (mark, entry) in entries where left > 0 && UInt64(now &- entry.used) >= oldest {
      entries[mark] = nil
      left -= 1
    }
  }
}
