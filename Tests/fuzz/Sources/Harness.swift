/// A reader of foreign bytes, or a state machine that foreign bytes drive, as libFuzzer calls it. It must come back from any
/// input; a trap, a failed `check`, too much time or too much memory is a finding.
struct Harness: Sendable {
  var name: String
  /// The longest input that is tried.
  var limit: Int
  var run: @Sendable ([UInt8]) -> Void

  init(_ name: String, limit: Int = 4096, _ run: @escaping @Sendable ([UInt8]) -> Void) {
    self.name = name
    self.limit = limit
    self.run = run
  }
}

/// What must be true of every input.
func check(_ condition: Bool, _ what: @autoclosure () -> String, file: StaticString = #fileID, line: UInt = #line) {
  if !condition { fatalError(what(), file: file, line: line) }
}

/// Reads an input as a list of choices. Behind its end every choice is 0.
struct Choices {
  private var rest: ArraySlice<UInt8>

  init(_ bytes: [UInt8]) { rest = bytes[...] }

  var isEmpty: Bool { rest.isEmpty }

  mutating func byte() -> UInt8 { rest.popFirst() ?? 0 }

  mutating func flag() -> Bool { byte() & 1 == 1 }

  /// From 0 to `count` - 1.
  mutating func below(_ count: Int) -> Int { Int(byte()) % max(1, count) }

  mutating func number<T: FixedWidthInteger & UnsignedInteger>(_: T.Type = T.self) -> T {
    var value: T = 0
    for _ in 0..<T.bitWidth / 8 { value = T(truncatingIfNeeded: UInt64(value) << 8) | T(byte()) }
    return value
  }

  mutating func bytes(_ count: Int) -> [UInt8] {
    let taken = rest.prefix(count)
    rest = rest.dropFirst(count)
    return Array(taken)
  }

  /// What is left.
  mutating func remainder() -> [UInt8] {
    defer { rest = [] }
    return Array(rest)
  }

  /// Pieces of the rest, cut where the input says, for what comes over a stream.
  mutating func pieces() -> [[UInt8]] {
    var result: [[UInt8]] = []
    while !isEmpty { result.append(bytes(1 + below(64))) }
    return result
  }
}
