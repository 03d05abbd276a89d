import CBORCodec
import Testing

@testable import SecurityModule

/// The bytes are AWS's; a device that answers anything else at all gives an error, and no trap.
struct ModuleCodecTests {
  private let requests: [ModuleRequest] = [
    .describePCR(16), .extendPCR(17, [1, 2]), .lockPCR(16), .lockPCRs(17), .describe, .random,
    .attestation(.init(userData: [1], nonce: nil, publicKey: [2, 3])),
  ]

  @Test func goldenBytes() {
    func hex(_ bytes: [UInt8]) -> String {
      bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }
    #expect(hex(ModuleRequest.describePCR(16).bytes) == "a16b4465736372696265504352a165696e64657810")
    #expect(hex(ModuleRequest.random.bytes) == "6947657452616e646f6d")
    #expect(
      hex(ModuleRequest.attestation(.init(nonce: [7])).bytes)
        == "a16b4174746573746174696f6ea369757365725f64617461f6656e6f6e636541076a7075626c69635f6b6579f6")
  }

  @Test func roundTrips() {
    for request in requests { #expect(ModuleRequest(bytes: request.bytes) == request) }
    let digest = [UInt8](repeating: 9, count: 48)
    let answers: [(ModuleRequest, ModuleAnswer)] = [
      (.describePCR(1), .register(isLocked: true, value: digest)), (.extendPCR(1, [1]), .extended(digest)),
      (.lockPCR(1), .locked), (.lockPCRs(1), .locked), (.random, .random([1])), (.attestation(.init()), .document([1])),
      (.describe, .description(.init(version: [1, 2, 3], moduleID: "m", registers: 32, locked: [0, 16]))),
    ]
    for (request, answer) in answers {
      let bytes = answer.bytes(to: request)
      #expect((try? ModuleAnswer(bytes, to: request)) == answer)
      for count in 0..<bytes.count { #expect((try? ModuleAnswer(Array(bytes.prefix(count)), to: request)) == nil) }
      #expect((try? ModuleAnswer(bytes + [0], to: request)) == nil)
      for other in requests where other.name != request.name { #expect((try? ModuleAnswer(bytes, to: other)) == nil) }
    }
    #expect((try? ModuleAnswer([UInt8](repeating: 0xf6, count: 0x3001), to: .random)) == nil)
  }

  /// Millions of them are the business of `Tests/fuzz security-module`.
  @Test func randomAnswers() {
    var random = SystemRandomNumberGenerator()
    let good = ModuleAnswer.register(isLocked: true, value: [UInt8](repeating: 9, count: 48)).bytes(to: .describePCR(1))
    for round in 0..<20_000 {
      var bytes = round % 2 == 0 ? good : (0..<Int.random(in: 0...40)).map { _ in UInt8.random(in: 0...255) }
      for _ in 0..<3 where !bytes.isEmpty {
        bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      for request in requests { _ = try? ModuleAnswer(bytes, to: request) }
      _ = ModuleRequest(bytes: bytes)
    }
  }

  @Test func errorsHaveTheirNames() {
    for error in ModuleError.allCases where error != .unknown {
      #expect(throws: ModuleFailure.refused(error)) { try ModuleAnswer(error.bytes, to: .lockPCR(1)) }
    }
  }
}

/// The module in memory does what the device does (QEMU's virtio-nsm, AWS's text).
struct SimulatedModuleTests {
  private func ask(_ module: inout SimulatedModule, _ request: ModuleRequest) throws(ModuleFailure) -> ModuleAnswer {
    try ModuleAnswer(
      module.answer(request.bytes, milliseconds: 1, random: { [UInt8](repeating: 1, count: $0) }), to: request)
  }

  @Test func registers() throws {
    var module = SimulatedModule()
    let zeros = [UInt8](repeating: 0, count: 48)
    #expect(try ask(&module, .describePCR(16)) == .register(isLocked: false, value: zeros))
    let value = sha384(zeros + [1])
    #expect(try ask(&module, .extendPCR(16, [1])) == .extended(value))
    #expect(try ask(&module, .lockPCR(16)) == .locked)
    #expect(try ask(&module, .describePCR(16)) == .register(isLocked: true, value: value))
    for (request, error) in [
      (.extendPCR(16, [1]), .readOnlyIndex), (.lockPCR(16), .readOnlyIndex), (.extendPCR(0, [1]), .readOnlyIndex),
      (.describePCR(32), .invalidIndex), (.lockPCRs(33), .invalidIndex),
    ] as [(ModuleRequest, ModuleError)] {
      #expect(throws: ModuleFailure.refused(error)) { try ask(&module, request) }
    }
    #expect(module.answer([0xff], milliseconds: 1, random: { _ in [] }) == ModuleError.invalidOperation.bytes)
  }

  /// FIPS 180-4's own example, and how a register is made.
  @Test func digests() {
    #expect(sha384(Array("abc".utf8)).prefix(4) == [0xcb, 0x00, 0x75, 0x3f])
    #expect(measuredRegister([]) == sha384([UInt8](repeating: 0, count: 48) + sha384([])))
  }
}
