import CBORCodec
import Foundation
import Testing

@testable import SecurityModule

/// A document is made anew before its certificate ends, by the module's own times.
struct DocumentLifeTests {
  private static let genuine = [UInt8](
    FileManager.default.contents(
      atPath: URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("attestation/aws.bin").path) ?? Data())

  /// A certificate as far as its end, which is all that is read.
  private func certificate(_ tag: UInt8, _ end: String, version: Bool = true) -> [UInt8] {
    func element(_ tag: UInt8, _ contents: [UInt8]) -> [UInt8] { [tag, UInt8(contents.count)] + contents }
    let validity = element(0x17, Array("200101000000Z".utf8)) + element(tag, Array(end.utf8))
    let fields =
      (version ? element(0xa0, [2, 1, 2]) : []) + element(0x02, [1]) + element(0x30, []) + element(0x30, [])
      + element(0x30, validity)
    return element(0x30, element(0x30, fields))
  }

  @Test func aGenuineDocument() {
    // Made at 07:37:58, its certificate ends at 08:57:45.
    #expect(DocumentLife.remaining(Self.genuine) == 4787)
    #expect(DocumentLife.remaining(CBOR.tagged(18, (try? CBOR(Self.genuine)) ?? .null).encoded) == 4787)
    for count in 0..<Self.genuine.count { #expect(DocumentLife.remaining(Array(Self.genuine.prefix(count))) == nil) }
    // Nobody has signed this one.
    var module = SimulatedModule()
    let answer = module.answer(ModuleRequest.attestation(.init()).bytes, milliseconds: 1) {
      [UInt8](repeating: 0, count: $0)
    }
    guard case .document(let unsigned)? = try? ModuleAnswer(answer, to: .attestation(.init())) else {
      Issue.record("no document")
      return
    }
    #expect(DocumentLife.remaining(unsigned) == nil)
  }

  @Test(
    arguments: [
      (0x17, "700101000000Z", 0), (0x17, "000229000000Z", 951_782_400), (0x17, "491231235959Z", 2_524_607_999),
      (0x17, "500101000000Z", -631_152_000), (0x18, "20500101000000Z", 2_524_608_000),
      (0x18, "99991231235959Z", 253_402_300_799), (0x17, "241213085745Z", 1_734_080_265),
    ] as [(UInt8, String, Int64)]) func times(tag: UInt8, text: String, seconds: Int64)
  {
    #expect(CertificateDates.end(certificate(tag, text)) == seconds)
    #expect(CertificateDates.end(certificate(tag, text, version: false)) == seconds)
  }

  @Test(
    arguments: [
      (0x17, "20500101000000Z"), (0x18, "500101000000Z"), (0x17, "2412130857Z"), (0x17, "241213085745+"),
      (0x17, "24121308574:Z"), (0x17, "241313085745Z"), (0x17, "240013085745Z"), (0x17, "241200085745Z"),
      (0x17, "241213245745Z"), (0x17, "241213086045Z"), (0x04, "241213085745Z"),
    ] as [(UInt8, String)]) func whatIsNoTime(tag: UInt8, text: String)
  {
    #expect(CertificateDates.end(certificate(tag, text)) == nil)
  }

  @Test func anyBytes() {
    var random = SystemRandomNumberGenerator()
    let whole = certificate(0x17, "241213085745Z")
    for count in 0..<whole.count { #expect(CertificateDates.end(Array(whole.prefix(count))) == nil) }
    for _ in 0..<20_000 {
      var bytes = whole
      for _ in 0...Int.random(in: 0...3, using: &random) {
        bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      _ = CertificateDates.end(bytes)
      _ = DocumentLife.remaining(bytes)
    }
  }

  @Test func whenItIsRenewed() {
    for (remaining, delay) in [(nil, 3600), (10_800, 3600), (4000, 2000), (900, 450), (30, 15), (3, 10), (-5, 10)]
      as [(Int64?, Int64)]
    {
      #expect(DocumentLife.delay(remaining: remaining) == delay)
      if let remaining, remaining >= 20 { #expect(delay < remaining) }
    }
    #expect(
      (0...12).map { DocumentLife.retryDelay(failures: $0) } == [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300])
    #expect(DocumentLife.retryDelay(failures: .max) == 300)
  }
}
