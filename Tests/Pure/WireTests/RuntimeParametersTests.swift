import Testing
import Wire

/// What a host gives PID 1 for the program: bounded, of one form, and measured as what it is.
struct RuntimeParametersTests {
  private func given(_ arguments: [String], _ variables: [(String, String)]) throws -> RuntimeParameters {
    var made = RuntimeParameters()
    for argument in arguments { try made.add(argument: Array(argument.utf8)) }
    for (name, value) in variables { try made.add(variable: name, Array(value.utf8)) }
    return made
  }

  @Test func goldenBytes() throws {
    let both = try given(["-v", ""], [("B", "b\n"), ("A_1", "")])
    #expect(both.encoded == hex("00 02 00 02 2d 76 00 00 00 02 00 03 41 5f 31 00 00 00 01 42 00 02 62 0a"))
    #expect(try RuntimeParameters(encoded: both.encoded) == both)
    #expect(both.lines == ["argument 2d76", "argument ", "variable A_1 ", "variable B 620a"])
    #expect(RuntimeParameters().encoded == [0, 0, 0, 0] && RuntimeParameters().lines.isEmpty)
    #expect(RuntimeRequest(offset: 1020).hello.parameters == [2, 0, 0, 3, 0xfc])
    #expect(try RuntimeRequest(parameters: [2, 0, 0, 3, 0xfc]) == RuntimeRequest(offset: 1020))
    #expect(try RuntimeRequest(parameters: [1, 3, 5, 0xdc]) == nil)
    for (made, bytes) in [
      (RuntimeParameters(), []), (try given(["a"], []), [1]), (try given([], [("A", "")]), [2]), (both, [3]),
    ] as [(RuntimeParameters, [UInt8])] {
      #expect(RuntimeOffer(made).parameters == bytes)
      #expect(try RuntimeOffer(parameters: bytes) == RuntimeOffer(made))
    }
    for bytes in [[4], [0xff], [1, 0]] as [[UInt8]] {
      #expect(throws: WireError.self) { try RuntimeOffer(parameters: bytes) }
    }
  }

  @Test func whatIsRefused() throws {
    for (name, value) in [("", "a"), ("1A", ""), ("A-B", ""), ("A=", ""), ("A B", ""), ("Ä", ""), ("A", "a\0")] {
      #expect(throws: WireError.self, "\(name)") { try given([], [(name, value)]) }
    }
    #expect(throws: WireError.self) { try given([], [("A", ""), ("A", "b")]) }
    #expect(throws: WireError.self) { try given(["a\0"], []) }
    #expect(throws: WireError.self) { try given([String(repeating: "a", count: 8193)], []) }
    #expect(throws: WireError.self) { try given([], [(String(repeating: "a", count: 129), "")]) }
    #expect(throws: WireError.self) { try given([String](repeating: "", count: 257), []) }
    #expect(throws: WireError.self) { try given([], (0...256).map { ("A\($0)", "") }) }
    #expect(throws: WireError.self) {
      try given([String](repeating: String(repeating: "a", count: 8192), count: 4), [])
    }
    // Names out of order, twice, none; lengths past the end; bytes behind the end; too many.
    for text in [
      "00 00 00 02 00 01 42 00 00 00 01 41 00 00", "00 00 00 02 00 01 41 00 00 00 01 41 00 00",
      "00 00 00 01 00 00 00 00",
      "00 01 00 01 00 00 00", "00 00 00 00 00", "01 01", "00 00 01 01", "00 00 00 01 00 01 ff 00 00",
    ] { #expect(throws: WireError.self, "\(text)") { try RuntimeParameters(encoded: hex(text)) } }
    let good = try given(["-v", "x"], [("A", "a"), ("B", "")]).encoded
    for count in 0..<good.count {
      #expect(throws: WireError.self) { try RuntimeParameters(encoded: Array(good.prefix(count))) }
    }
    #expect(throws: WireError.self) { try RuntimeParameters(encoded: [UInt8](repeating: 0, count: 32769)) }
  }

  @Test func piecesMakeTheWhole() throws {
    let whole = try given(
      [String](repeating: String(repeating: "a", count: 1000), count: 20), [("A", String(repeating: "b", count: 4000))])
    var assembly = RuntimeAssembly()
    var pieces = 0
    var result: RuntimeParameters?
    while result == nil, pieces < 100 {
      let answer = assembly.next.answer(whole.encoded)
      #expect(answer.count <= Hello.parameterLimit)
      result = try assembly.take(answer)
      pieces += 1
    }
    #expect(result == whole && pieces == (whole.encoded.count + 1019) / 1020)
  }

  /// Each ends the start: none makes PID 1 ask for ever, or hold more than there may be.
  @Test func piecesOfAHostThatLies() throws {
    func taken(_ answers: [UInt8]...) throws -> RuntimeParameters? {
      var assembly = RuntimeAssembly()
      var result: RuntimeParameters?
      for answer in answers { result = try assembly.take(answer) }
      return result
    }
    #expect(try taken([0, 0, 0, 4, 0, 0, 0, 0]) == RuntimeParameters())
    #expect(try taken([0, 0, 0, 4, 0], [0, 0, 0, 4, 0, 0, 0]) == RuntimeParameters())
    #expect(throws: WireError.self) { try taken([]) }
    #expect(throws: WireError.self) { try taken([0, 0, 0, 4]) }
    #expect(throws: WireError.self) { try taken([0, 0, 0, 0]) }
    #expect(throws: WireError.self) { try taken([0, 0, 0x80, 1, 0]) }
    #expect(throws: WireError.self) { try taken([0xff, 0xff, 0xff, 0xff, 0]) }
    #expect(throws: WireError.self) { try taken([0, 0, 0, 4, 0, 0, 0, 0, 0]) }
    #expect(throws: WireError.self) { try taken([0, 0, 0, 4, 0], [0, 0, 0, 5, 0]) }
    #expect(throws: WireError.self) { try taken([0, 0, 0, 4, 0], [0, 0, 0, 4, 0, 0, 0, 0]) }
  }
}
