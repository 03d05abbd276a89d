import Wire

/// What a host gives PID 1 for the program, as it is sent, and as the answers that it comes in.
let runtimeParameters = Harness("runtime-parameters") { bytes in
  if let given = try? RuntimeParameters(encoded: bytes) {
    check(given.encoded == bytes, "there are two encodings of the same")
    var again = RuntimeParameters()
    do throws(WireError) {
      for argument in given.arguments { try again.add(argument: argument) }
      for variable in given.variables.reversed() { try again.add(variable: variable.name, variable.value) }
    } catch { check(false, "what was read cannot be given: \(error)") }
    check(again == given, "the order of variables counts")
    check(given.lines.allSatisfy { !$0.utf8.contains(0x0a) }, "a value looks like another line")
    var assembly = RuntimeAssembly()
    var whole: RuntimeParameters?
    for _ in 0...bytes.count / 1020 where whole == nil { whole = try? assembly.take(assembly.next.answer(bytes)) }
    check(whole == given, "pieces give something else than the whole")
  }
  var assembly = RuntimeAssembly()
  var rest = bytes[...]
  while let size = rest.popFirst() {
    do throws(WireError) { _ = try assembly.take(Array(rest.prefix(Int(size)))) } catch { break }
    rest = rest.dropFirst(Int(size))
  }
  if let request = try? RuntimeRequest(parameters: bytes) {
    check(request.hello.parameters == bytes, "a question is written otherwise")
  }
  if let offer = try? RuntimeOffer(parameters: bytes), bytes != [0] {
    check(offer.parameters == bytes, "an offer is written otherwise")
  }
}
