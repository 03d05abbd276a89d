/// RFC 3339 in UTC with milliseconds, `2026-11-21T00:00:00.000Z`. Most times of a log are in the second of the one before,
/// so the text is kept and only its milliseconds are written anew.
struct Timestamp {
  static let length = 24
  private var second = UInt64.max
  private var digits: [UInt8] = []

  mutating func append(_ nanoseconds: UInt64, to line: inout [UInt8]) {
    let second = nanoseconds / 1_000_000_000
    if second != self.second {
      digits = Self.digits(second)
      self.second = second
    }
    line += digits
    let milliseconds = nanoseconds / 1_000_000 % 1000
    let place = line.count - 4
    line[place] = 0x30 + UInt8(milliseconds / 100)
    line[place + 1] = 0x30 + UInt8(milliseconds / 10 % 10)
    line[place + 2] = 0x30 + UInt8(milliseconds % 10)
  }

  /// The days are counted as in the civil calendar's 400-year cycle.
  private static func digits(_ seconds: UInt64) -> [UInt8] {
    let time = seconds % 86400
    // Days since 0000-03-01, so that the leap day is the last of its year.
    let days = seconds / 86400 + 719_468
    let era = days / 146_097
    let dayOfEra = days % 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shifted = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shifted + 2) / 5 + 1
    let month = shifted < 10 ? shifted + 3 : shifted - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    var text: [UInt8] = []
    func put(_ number: UInt64, _ width: Int, _ end: UInt8) {
      var rest = number
      var digits: [UInt8] = []
      for _ in 0..<width {
        digits.append(0x30 + UInt8(rest % 10))
        rest /= 10
      }
      text += digits.reversed()
      text.append(end)
    }
    put(year, 4, 0x2d)
    put(month, 2, 0x2d)
    put(day, 2, 0x54)
    put(time / 3600, 2, 0x3a)
    put(time / 60 % 60, 2, 0x3a)
    put(time % 60, 2, 0x2e)
    put(0, 3, 0x5a)
    return text
  }
}
