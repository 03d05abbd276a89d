/// What has ports.
public enum PortTransport: String, Hashable, Sendable, CaseIterable {
  case tcp, udp
}

/// A set of ports as ranges in order, which neither overlap nor touch.
public struct PortRanges: Hashable, Sendable, CustomStringConvertible {
  public let ranges: [ClosedRange<UInt16>]

  public init(_ ranges: [ClosedRange<UInt16>]) {
    var merged: [ClosedRange<UInt16>] = []
    for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if let last = merged.last, Int(range.lowerBound) <= Int(last.upperBound) + 1 {
        merged[merged.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
      } else {
        merged.append(range)
      }
    }
    self.ranges = merged
  }

  /// `80` or `1024-61439`; nil for anything else, for port 0 and for a range that runs backwards.
  public static func range(_ text: some StringProtocol) -> ClosedRange<UInt16>? {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false)
    guard let first = ends.first.flatMap({ decimalPort($0) }), first > 0 else { return nil }
    guard ends.count > 1 else { return first...first }
    guard ends.count == 2, let last = decimalPort(ends[1]), last >= first else { return nil }
    return first...last
  }

  public func contains(_ port: UInt16) -> Bool { ranges.contains { $0.contains(port) } }

  /// The range with the most ports; of two the first. nil for the empty set.
  public var widest: ClosedRange<UInt16>? {
    var best: ClosedRange<UInt16>?
    for range in ranges where range.count > best?.count ?? 0 { best = range }
    return best
  }

  /// The ports from 1024 on that are not in the set.
  public var rest: PortRanges {
    var free: [ClosedRange<UInt16>] = []
    var next = 1024
    for range in ranges where Int(range.upperBound) >= next {
      if Int(range.lowerBound) > next { free.append(UInt16(clamping: next)...range.lowerBound - 1) }
      next = Int(range.upperBound) + 1
    }
    if next <= 65535 { free.append(UInt16(clamping: next)...65535) }
    return PortRanges(free)
  }

  public var description: String {
    ranges.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }.joined(separator: ", ")
  }
}
