import FoundationEssentials

/// The forms in which documents are passed on: as they are (CBOR), in base64 (also base64url, with or without padding), in
/// hexadecimal digits; white space does not count in the latter two. Which one it is, is told by how it begins: a document's
/// first byte is 0x84, or 0xd2 with COSE's tag.
public enum DocumentText {
  /// Twice as long as the longest document in hexadecimal digits.
  public static let maximumSize = 4 * SignedDocument.maximumSize

  /// - Returns: CBOR, which still can be anything.
  public static func decode(_ input: [UInt8]) throws(AttestationError) -> [UInt8] {
    guard !input.isEmpty else { throw .malformed("it is empty") }
    guard input.count <= maximumSize else { throw .malformed("it has more than \(maximumSize) bytes") }
    if input[0] == 0x84 || input[0] == 0xd2 { return input }
    let text = input.filter {
      ![UInt8(ascii: " "), UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "\t")].contains($0)
    }
    if text.starts(with: "84".utf8) || String(decoding: text.prefix(2), as: UTF8.self).lowercased() == "d2",
      let bytes = bytes(hex: String(decoding: text, as: UTF8.self))
    {
      return bytes
    }
    if let bytes = bytes(base64: text), let first = bytes.first, first == 0x84 || first == 0xd2 { return bytes }
    throw .malformed("it is neither CBOR, as a Nitro Secure Module gives it, nor that in base64 or hexadecimal digits")
  }

  /// - Returns: nil for an odd number of digits, and for anything else than digits.
  public static func bytes(hex text: String) -> [UInt8]? {
    let digits = Array(text.utf8)
    guard digits.count.isMultiple(of: 2) else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(digits.count / 2)
    for index in stride(from: 0, to: digits.count, by: 2) {
      guard let high = value(digits[index]), let low = value(digits[index + 1]) else { return nil }
      bytes.append(high << 4 | low)
    }
    return bytes
  }

  private static func value(_ digit: UInt8) -> UInt8? {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
    default: nil
    }
  }

  private static func bytes(base64 text: [UInt8]) -> [UInt8]? {
    var text = text.map {
      $0 == UInt8(ascii: "-") ? UInt8(ascii: "+") : $0 == UInt8(ascii: "_") ? UInt8(ascii: "/") : $0
    }
    while text.last == UInt8(ascii: "=") { text.removeLast() }
    text += [UInt8](repeating: UInt8(ascii: "="), count: (4 - text.count % 4) % 4)
    return Data(base64Encoded: Data(text)).map(Array.init)
  }
}

/// The registers of an image as nitro-cli prints them: `{"Measurements": {"HashAlgorithm": …, "PCR0": "…", …}}`, or the inner
/// object alone.
public enum MeasurementsText {
  private struct Outer: Decodable {
    var measurements: [String: String]
    enum CodingKeys: String, CodingKey { case measurements = "Measurements" }
  }

  /// - Returns: registers by number; nil where the text is something else, or names none.
  public static func registers(_ json: [UInt8]) -> [Int: [UInt8]]? {
    let decoder = JSONDecoder()
    let fields =
      (try? decoder.decode(Outer.self, from: Data(json)).measurements)
      ?? (try? decoder.decode([String: String].self, from: Data(json)))
    guard let fields else { return nil }
    var registers: [Int: [UInt8]] = [:]
    for (name, value) in fields where name.hasPrefix("PCR") {
      guard let register = register(name: name, value: value) else { return nil }
      registers[register.number] = register.value
    }
    return registers.isEmpty ? nil : registers
  }

  /// - Parameters: `PCR16` or `16`, and the digest in hexadecimal digits.
  public static func register(name: String, value: String) -> (number: Int, value: [UInt8])? {
    let digits = name.hasPrefix("PCR") ? name.dropFirst(3) : name[...]
    guard let number = Int(digits), (0..<32).contains(number), String(number) == digits,
      let bytes = DocumentText.bytes(hex: value), [32, 48, 64].contains(bytes.count)
    else { return nil }
    return (number, bytes)
  }
}
