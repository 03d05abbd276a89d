// Theory of operation.
//
// For Linux, arguments, variables and file names are bytes; a Swift String holds Unicode only, and decoding would put U+FFFD
// where a byte is not UTF-8. So at the border a byte that is part of no character becomes a scalar of its own, U+10FE00 plus
// the byte, out of a private-use plane, and at the other border it becomes the byte again. A character of that range that
// is really there is written as its own four bytes in the same way, so that every byte sequence has exactly one text and
// comes back from it. Python does the same with surrogates (PEP 383), which a String cannot hold.

/// The scalars that stand for the bytes 0x80 to 0xFF. All are written with 0xF4 as their first byte.
private let escapes: ClosedRange<UInt32> = 0x10_fe80...0x10_feff
private let base: UInt32 = 0x10_fe00
private let lead: UInt8 = 0xf4

/// The text that stands for these bytes; `systemBytes` gives them back.
@inlinable
public func systemText(_ bytes: some Collection<UInt8>) -> String { systemText(Array(bytes)) }

/// The same for an array: code that is generic at run time would look through every conformance of the program at its first
/// call, which a boot would wait for.
public func systemText(_ bytes: [UInt8]) -> String {
  if !bytes.contains(lead), let text = String(validating: bytes, as: UTF8.self) { return text }
  var text = String.UnicodeScalarView()
  var parser = Unicode.UTF8.ForwardParser()
  var input = bytes.makeIterator()
  var offset = 0
  func escape(_ count: Int) {
    for byte in bytes[offset..<min(offset + count, bytes.count)] {
      // Always a scalar: the parser has no fault with bytes below 0x80.
      if let scalar = Unicode.Scalar(base + UInt32(byte)) { text.append(scalar) }
    }
  }
  while true {
    switch parser.parseScalar(from: &input) {
    case .valid(let encoded):
      let scalar = Unicode.UTF8.decode(encoded)
      if escapes.contains(scalar.value) { escape(encoded.count) } else { text.append(scalar) }
      offset += encoded.count
    case .error(let length):
      escape(length)
      offset += length
    case .emptyInput: return String(text)
    }
  }
}

/// The bytes that a text of `systemText` stands for.
public func systemBytes(_ text: String) -> [UInt8] {
  guard text.utf8.contains(lead) else { return Array(text.utf8) }
  return text.unicodeScalars.reduce(into: []) { bytes, scalar in
    if escapes.contains(scalar.value) {
      bytes.append(UInt8(truncatingIfNeeded: scalar.value - base))
    } else if let encoded = UTF8.encode(scalar) {
      bytes.append(contentsOf: encoded)
    }
  }
}

/// Whether all of it is Unicode, so that it can stand in a file that is text.
public func isPlainText(_ text: String) -> Bool {
  !text.utf8.contains(lead) || !text.unicodeScalars.contains { escapes.contains($0.value) }
}

/// For people to read: a byte that is part of no character as `\xE9`.
public func shownText(_ text: String) -> String {
  guard !isPlainText(text) else { return text }
  return text.unicodeScalars.reduce(into: "") { shown, scalar in
    if escapes.contains(scalar.value) {
      shown += "\\x" + String(scalar.value - base, radix: 16, uppercase: true)
    } else {
      shown.unicodeScalars.append(scalar)
    }
  }
}
