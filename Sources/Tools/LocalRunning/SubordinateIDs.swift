/// The ids of a user namespace: ours as 0, and behind it those that the machine has set aside for this user (subuid(5),
/// subgid(5)), without a gap.
struct SubordinateIDs: Equatable {
  struct Range: Equatable {
    var start: UInt32
    var count: UInt32
  }

  var own: UInt32
  var ranges: [Range]

  /// - Parameters:
  ///   - text: of /etc/subuid or /etc/subgid: lines of a user's name or uid, a first id and how many.
  ///   - uid: the user's, in both files.
  init(own: UInt32, text: String, name: String?, uid: UInt32) {
    self.own = own
    ranges = []
    var total: UInt64 = 1
    for line in text.utf8.split(separator: UInt8(ascii: "\n")) {
      let fields = line.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false).map {
        String(Substring($0))
      }
      guard fields.count == 3, fields[0] == name || fields[0] == "\(uid)", let start = UInt32(fields[1]),
        let count = UInt32(fields[2]), count > 0, UInt64(start) + UInt64(count) < UInt64(UInt32.max)
      else { continue }
      let (sum, overflow) = total.addingReportingOverflow(UInt64(count))
      guard !overflow, sum < UInt64(UInt32.max) else { continue }
      total = sum
      ranges.append(Range(start: start, count: count))
    }
  }

  /// How many ids there are inside, with 0.
  var total: UInt32 { ranges.reduce(1) { $0 + $1.count } }

  /// The words of newuidmap(1) and newgidmap(1) behind the process: inside, outside and how many, again and again.
  var mapping: [UInt32] {
    var words: [UInt32] = [0, own, 1]
    var next: UInt32 = 1
    for range in ranges {
      words += [next, range.start, range.count]
      next += range.count
    }
    return words
  }
}
