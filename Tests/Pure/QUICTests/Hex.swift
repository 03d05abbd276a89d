func bytes(_ hex: String) -> [UInt8] {
  var result: [UInt8] = []
  var high: UInt8?
  for character in hex where !character.isWhitespace {
    let digit = UInt8(character.hexDigitValue ?? 0)
    if let known = high {
      result.append(known << 4 | digit)
      high = nil
    } else {
      high = digit
    }
  }
  return result
}

func hex(_ bytes: some Sequence<UInt8>) -> String {
  bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}
