import CBORCodec

/// For how long a document can be verified, and when it is to be made anew. The certificate that a document is signed with ends
/// three hours after it was made, or earlier: the module makes another one only some minutes before.
public enum DocumentLife {
  /// In seconds.
  static let shortestDelay: Int64 = 10
  static let longestDelay: Int64 = 3600
  static let longestRetry: Int64 = 300

  /// Seconds from when the document says that it was made until its certificate ends; nil where there is no certificate, as in
  /// documents that nobody has signed. Both times are the module's: the enclave's clock may be wrong.
  public static func remaining(_ document: [UInt8]) -> Int64? {
    guard var value = try? CBOR(document) else { return nil }
    if case .tagged(_, let inner) = value { value = inner }
    guard case .array(let parts) = value, parts.count == 4, case .bytes(let payload) = parts[2],
      let fields = try? CBOR(payload), case .unsigned(let milliseconds)? = fields["timestamp"],
      case .bytes(let certificate)? = fields["certificate"], let end = CertificateDates.end(certificate)
    else { return nil }
    return end - Int64(clamping: milliseconds / 1000)
  }

  /// After half of what is left: so the file's document has always some life, also where the module gives one certificate for
  /// hours. At least every hour, so that it is not old.
  public static func delay(remaining: Int64?) -> Int64 {
    guard let remaining else { return longestDelay }
    return min(max(remaining / 2, shortestDelay), longestDelay)
  }

  /// - Parameter failures: in a row.
  public static func retryDelay(failures: Int) -> Int64 { min(1 << Int64(min(max(failures, 1) - 1, 16)), longestRetry) }
}

/// When a certificate (RFC 5280, in DER) ends. Nothing else of it is read, and nothing is verified.
public enum CertificateDates {
  /// Seconds since 1970; nil for what is no certificate.
  public static func end(_ certificate: [UInt8]) -> Int64? {
    var outer = DERReader(rest: certificate[...])
    guard var whole = outer.sequence(), var fields = whole.sequence() else { return nil }
    // [0] version, serial number, signature's algorithm, issuer, validity
    if fields.rest.first == 0xa0 { guard fields.element() != nil else { return nil } }
    guard fields.element()?.tag == 0x02, fields.sequence() != nil, fields.sequence() != nil,
      var validity = fields.sequence(), validity.element() != nil, let end = validity.element()
    else { return nil }
    return time(end.tag, Array(end.contents))
  }

  /// UTCTime and GeneralizedTime as RFC 5280 has them: to the second, in UTC.
  private static func time(_ tag: UInt8, _ text: [UInt8]) -> Int64? {
    let yearDigits: Int
    switch (tag, text.count) {
    case (0x17, 13): yearDigits = 2
    case (0x18, 15): yearDigits = 4
    default: return nil
    }
    guard text.last == UInt8(ascii: "Z"), text.dropLast().allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
    func number(_ range: Range<Int>) -> Int64 { text[range].reduce(0) { $0 * 10 + Int64($1 - 0x30) } }
    var year = number(0..<yearDigits)
    if yearDigits == 2 { year += year < 50 ? 2000 : 1900 }
    let parts = (0..<5).map { number(yearDigits + 2 * $0..<yearDigits + 2 * $0 + 2) }
    let (month, day, hour, minute, second) = (parts[0], parts[1], parts[2], parts[3], parts[4])
    guard (1...12).contains(month), (1...31).contains(day), hour < 24, minute < 60, second < 61 else { return nil }
    // Days since 1970, years beginning in March.
    let shifted = month > 2 ? year : year - 1
    let dayOfYear = (153 * ((month + 9) % 12) + 2) / 5 + day - 1
    let days = 365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + dayOfYear - 719_468
    return days * 86400 + hour * 3600 + minute * 60 + second
  }
}

/// DER's elements, one after the other, of tags of one byte and of less than 16 MiB.
private struct DERReader {
  var rest: ArraySlice<UInt8>

  mutating func element() -> (tag: UInt8, contents: ArraySlice<UInt8>)? {
    guard let tag = rest.popFirst(), tag & 0x1f != 0x1f, let first = rest.popFirst() else { return nil }
    var length = Int(first)
    if first >= 0x80 {
      let count = Int(first & 0x7f)
      guard (1...3).contains(count), rest.count >= count else { return nil }
      length = rest.prefix(count).reduce(0) { $0 << 8 | Int($1) }
      rest = rest.dropFirst(count)
    }
    guard rest.count >= length else { return nil }
    let contents = rest.prefix(length)
    rest = rest.dropFirst(length)
    return (tag, contents)
  }

  mutating func sequence() -> DERReader? {
    guard let element = element(), element.tag == 0x30 else { return nil }
    return DERReader(rest: element.contents)
  }
}
