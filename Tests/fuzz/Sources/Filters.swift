import Seccomp

/// The filters of system calls, run as the kernel runs them: whatever the call and its arguments, there is an answer, no jump
/// leads out, and neither another ABI nor a role's forbidden call passes.
let filters = Harness("filters", limit: 64) { bytes in
  var choices = Choices(bytes)
  let capabilities = choices.number(UInt64.self)
  let program = ProgramFilter(capabilities: capabilities, allowsVsock: choices.flag()).instructions
  let call = Call(
    number: choices.flag() ? choices.number() : UInt32(choices.below(256)) + UInt32(choices.below(256)),
    architecture: choices.below(4) == 0 ? choices.number() : 0xc000_003e,
    arguments: (0..<6).map { _ in choices.number(UInt64.self) })
  let answer = call.run(program)
  if call.architecture != 0xc000_003e || call.number & 0x4000_0000 != 0 {
    check(answer != 0x7fff_0000, "another ABI passes: \(call)")
  }
}

struct Call {
  var number: UInt32
  var architecture: UInt32
  var arguments: [UInt64]

  /// linux/filter.h and struct seccomp_data of linux/seccomp.h.
  func run(_ code: [FilterInstruction]) -> UInt32 {
    var accumulator: UInt32 = 0
    var index = 0
    check(code.count <= 4096, "more instructions than the kernel takes (BPF_MAXINSNS)")
    while true {
      check(index < code.count, "a jump behind the end")
      let instruction = code[index]
      var jump = 0
      switch instruction.code {
      case 0x20: accumulator = load(instruction.value)
      case 0x54: accumulator &= instruction.value
      case 0x05: jump = Int(instruction.value)
      case 0x15: jump = Int(accumulator == instruction.value ? instruction.jumpTrue : instruction.jumpFalse)
      case 0x25: jump = Int(accumulator > instruction.value ? instruction.jumpTrue : instruction.jumpFalse)
      case 0x35: jump = Int(accumulator >= instruction.value ? instruction.jumpTrue : instruction.jumpFalse)
      case 0x45: jump = Int(accumulator & instruction.value != 0 ? instruction.jumpTrue : instruction.jumpFalse)
      case 0x06: return instruction.value
      default: check(false, "an instruction \(instruction.code)")
      }
      index += 1 + jump
    }
  }

  private func load(_ offset: UInt32) -> UInt32 {
    switch offset {
    case 0: return number
    case 4: return architecture
    case 16..<64 where offset % 4 == 0:
      let argument = arguments[Int(offset - 16) / 8]
      return UInt32(truncatingIfNeeded: offset % 8 == 0 ? argument : argument >> 32)
    default:
      check(false, "a load from \(offset)")
      return 0
    }
  }
}
