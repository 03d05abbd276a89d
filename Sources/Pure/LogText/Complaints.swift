/// How often the same complaint may be written: a few at once, and then the number of those that were not. What causes
/// them is foreign, and must not fill a disk with them. The time is passed in.
public struct Complaints<Kind: Hashable> {
  /// So many of one kind are said in a window.
  public static var budget: Int { 5 }
  /// Nanoseconds from the first of a window to its end.
  public static var window: UInt64 { 10_000_000_000 }

  private struct Window {
    var end: UInt64
    var said: Int
    var unsaid: UInt64
  }
  private var windows: [Kind: Window] = [:]

  /// What was not said in a window.
  public struct Remainder: Equatable {
    public var kind: Kind
    public var count: UInt64

    /// "… and 812 more like it in 10 s".
    public var sentence: String { "… and \(count) more like it in \(Complaints.window / 1_000_000_000) s" }
  }

  public init() {}

  /// When the next window ends that has something unsaid.
  public var due: UInt64? { windows.values.filter { $0.unsaid > 0 }.map(\.end).min() }

  /// Whether one more of this kind is to be said. Call `end` first.
  public mutating func admits(_ kind: Kind, at now: UInt64) -> Bool {
    var current = windows[kind] ?? Window(end: now &+ Self.window, said: 0, unsaid: 0)
    defer { windows[kind] = current }
    guard current.said < Self.budget else {
      current.unsaid += 1
      return false
    }
    current.said += 1
    return true
  }

  /// Ends the windows whose time is over.
  /// - Returns: what was not said in them.
  public mutating func end(at now: UInt64) -> [Remainder] {
    var remainders: [Remainder] = []
    for (kind, window) in windows where window.end <= now {
      windows[kind] = nil
      if window.unsaid > 0 { remainders.append(Remainder(kind: kind, count: window.unsaid)) }
    }
    return remainders
  }
}
