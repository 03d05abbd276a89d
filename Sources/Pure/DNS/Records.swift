import Inet

/// A record of a message (RFC 1035 section 4.1.3).
public struct ResourceRecord: Equatable, Sendable {
  public var section: DNSMessage.Section
  /// Where it begins.
  var nameOffset: Int
  public var name: DomainName
  /// The name's labels as they came.
  var labels: [UInt8]
  public var type: UInt16
  public var networkClass: UInt16
  /// In seconds; of an OPT record something else.
  public var ttl: UInt32
  /// Where the TTL's four bytes are.
  var ttlOffset: Int
  /// The data's place in the message.
  public var data: Range<Int>
}

extension ResourceRecord {
  /// The names in its data that may be compressed, which are those of RFC 1035 and of RFC 3597 section 4: how many bytes stand
  /// before them, how many they are, and how many bytes stand behind. nil for data without any.
  var namesInData: (before: Int, count: Int, after: Int)? {
    switch type {
    // NS, MD, MF, CNAME, MB, MG, MR, PTR, NXT, DNAME.
    case 2, 3, 4, 5, 7, 8, 9, 12, 39: (0, 1, 0)
    case RecordType.soa: (0, 2, 20)
    // MINFO, RP.
    case 14, 17: (0, 2, 0)
    // MX, AFSDB, RT, KX.
    case 15, 18, 21, 36: (2, 1, 0)
    // PX.
    case 26: (2, 2, 0)
    // SRV.
    case 33: (6, 1, 0)
    default: nil
    }
  }
}

extension DNSMessage {
  /// The offset behind all questions; nil where they cannot be read.
  var endOfQuestions: Int? {
    var offset = Self.headerLength
    for _ in 0..<count(of: .question) {
      guard let end = endOfName(from: offset), end + 4 <= bytes.count else { return nil }
      offset = end + 4
    }
    return offset
  }

  /// All records behind the questions, in their order; nil where one cannot be read, or where bytes are left over.
  public var records: [ResourceRecord]? {
    guard var offset = endOfQuestions else { return nil }
    var records: [ResourceRecord] = []
    // A record has 11 bytes at least.
    records.reserveCapacity(
      min(count(of: .answer) + count(of: .authority) + count(of: .additional), (bytes.count - offset) / 11))
    for section in [Section.answer, .authority, .additional] {
      for _ in 0..<count(of: section) {
        guard let (labels, end) = readName(from: offset), let name = DomainName(labels: labels), end + 10 <= bytes.count
        else { return nil }
        let start = end + 10
        let length = Int(UInt16(at: end + 8, bytes))
        guard start + length <= bytes.count else { return nil }
        records.append(
          ResourceRecord(
            section: section, nameOffset: offset, name: name, labels: labels, type: UInt16(at: end, bytes),
            networkClass: UInt16(at: end + 2, bytes), ttl: UInt32(at: end + 4, bytes), ttlOffset: end + 4,
            data: start..<start + length))
        offset = start + length
      }
    }
    return offset == bytes.count ? records : nil
  }

  /// The address of an A or AAAA record; nil for other types, and for data of another length.
  public func address(_ record: ResourceRecord) -> IPAddress? {
    guard record.networkClass == 1 else { return nil }
    switch (record.type, record.data.count) {
    case (RecordType.a, 4): return .v4(IPv4Address(rawValue: UInt32(at: record.data.lowerBound, bytes)))
    case (RecordType.aaaa, 16): return IPAddress(bytes: bytes[record.data])
    default: return nil
    }
  }

  /// The name that is a CNAME's data; nil where it cannot be read, or is followed by something.
  func alias(_ record: ResourceRecord) -> DomainName? {
    guard record.type == RecordType.cname, let (labels, end) = readName(from: record.data.lowerBound),
      end == record.data.upperBound
    else { return nil }
    return DomainName(labels: labels)
  }

  /// A message of the same header and questions with other records.
  /// - Parameter data: the new data of those records that have changed; nil drops the record.
  /// - Returns: nil where it became too long, or a name in it could not be read.
  func rewritten(_ records: [ResourceRecord], data: (ResourceRecord) -> [UInt8]?) -> DNSMessage? {
    guard let start = endOfQuestions else { return nil }
    var made = Array(bytes[..<start])
    var counts = [0, 0, 0, 0]
    let asked = question
    for record in records {
      guard let value = data(record) else { continue }
      guard value.count <= Int(UInt16.max) else { return nil }
      if let asked, asked.labels == record.labels, !record.labels.isEmpty {
        made += [0xc0, UInt8(Self.headerLength)]
      } else {
        made += record.labels + [0]
      }
      made += bytes[(record.ttlOffset - 4)..<(record.ttlOffset + 4)]
      made += [UInt8(value.count >> 8), UInt8(value.count & 0xff)]
      made += value
      counts[record.section.rawValue] += 1
    }
    for section in 1...3 {
      made[4 + section * 2] = UInt8(counts[section] >> 8)
      made[5 + section * 2] = UInt8(counts[section] & 0xff)
    }
    return DNSMessage(made)
  }

  /// A record's data without compression, so that it can stand at another place; nil where it is not what its type has.
  func plainData(_ record: ResourceRecord) -> [UInt8]? {
    guard let names = record.namesInData else { return Array(bytes[record.data]) }
    var offset = record.data.lowerBound + names.before
    guard offset <= record.data.upperBound else { return nil }
    var made = Array(bytes[record.data.lowerBound..<offset])
    for _ in 0..<names.count {
      guard let (labels, end) = readName(from: offset), end <= record.data.upperBound else { return nil }
      made += labels + [0]
      offset = end
    }
    guard record.data.upperBound - offset == names.after else { return nil }
    return made + bytes[offset..<record.data.upperBound]
  }
}
