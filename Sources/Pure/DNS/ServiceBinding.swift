import Inet

/// The data of an HTTPS or SVCB record (RFC 9460 section 2.2): how a service is reached.
struct ServiceBinding {
  static let mandatory: UInt16 = 0
  static let ipv4Hint: UInt16 = 4
  static let ech: UInt16 = 5
  static let ipv6Hint: UInt16 = 6

  private var head: [UInt8]
  private var parameters: [(key: UInt16, value: [UInt8])] = []
  private(set) var hasChanged = false

  /// nil where it is not of that form.
  init?(_ message: DNSMessage, _ record: ResourceRecord) {
    let bytes = message.bytes
    let start = record.data.lowerBound + 2
    // The target is never compressed.
    guard start < record.data.upperBound, let (labels, end) = message.readName(from: start),
      end == start + labels.count + 1, end <= record.data.upperBound
    else { return nil }
    head = Array(bytes[record.data.lowerBound..<end])
    var offset = end
    while offset < record.data.upperBound {
      guard offset + 4 <= record.data.upperBound else { return nil }
      let length = Int(UInt16(at: offset + 2, bytes))
      guard offset + 4 + length <= record.data.upperBound else { return nil }
      parameters.append((UInt16(at: offset, bytes), Array(bytes[(offset + 4)..<(offset + 4 + length)])))
      offset += 4 + length
    }
  }

  /// The addresses of its hints.
  var hints: [IPAddress] {
    parameters.flatMap { parameter in Self.addresses(parameter.key, parameter.value) }
  }

  private static func addresses(_ key: UInt16, _ value: [UInt8]) -> [IPAddress] {
    guard let length = key == ipv4Hint ? 4 : key == ipv6Hint ? 16 : nil, value.count % length == 0 else { return [] }
    return stride(from: 0, to: value.count, by: length).compactMap { IPAddress(bytes: value[$0..<$0 + length]) }
  }

  mutating func removeHints(where isBarred: (IPAddress) -> Bool) {
    for index in parameters.indices {
      let all = Self.addresses(parameters[index].key, parameters[index].value)
      let kept = all.filter { !isBarred($0) }
      guard kept.count < all.count else { continue }
      parameters[index].value = kept.flatMap(\.bytes)
      hasChanged = true
    }
    parameters.removeAll { ($0.key == Self.ipv4Hint || $0.key == Self.ipv6Hint) && $0.value.isEmpty }
  }

  /// Takes out the key with which a client hides the name that it asks a server for.
  mutating func removeHiding() {
    let before = parameters.count
    parameters.removeAll { $0.key == Self.ech }
    if parameters.count < before { hasChanged = true }
  }

  /// nil where a parameter is mandatory that is there no more: then the record means nothing.
  var data: [UInt8]? {
    if let list = parameters.first(where: { $0.key == Self.mandatory })?.value {
      guard list.count % 2 == 0 else { return nil }
      for offset in stride(from: 0, to: list.count, by: 2) {
        let key = UInt16(at: offset, list)
        guard parameters.contains(where: { $0.key == key }) else { return nil }
      }
    }
    return parameters.reduce(into: head) { bytes, parameter in
      bytes += [UInt8(parameter.key >> 8), UInt8(parameter.key & 0xff)]
      bytes += [UInt8(parameter.value.count >> 8), UInt8(parameter.value.count & 0xff)]
      bytes += parameter.value
    }
  }
}
