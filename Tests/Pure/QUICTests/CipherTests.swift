import Crypto
import Foundation
import Testing

@testable import QUIC

private func block(_ bytes: some Sequence<UInt8>) -> Block { Array(bytes).withUnsafeBytes { Block($0[...]) } }
private func hex(_ block: Block) -> String { hex((0..<16).map { block[$0] }) }

/// Our own ciphers are the published ones: with another one no name could be read, or a forged packet would count.
@Suite struct CipherTests {
  /// FIPS 197 appendix C.1.
  @Test func theBlockCipher() {
    let cipher = AES128(block(0..<16))
    #expect(hex(cipher.encrypt(block(bytes("00112233445566778899aabbccddeeff")))) == "69c4e0d86a7b0430d8cdb78070b4c55a")
  }

  /// The GCM specification's test cases 1 to 4 (McGrew and Viega, appendix B), which NIST took over.
  @Test(arguments: [
    ("00000000000000000000000000000000", "000000000000000000000000", "", "", "", "58e2fccefa7e3061367f1d57a4e7455a"),
    (
      "00000000000000000000000000000000", "000000000000000000000000", "", "00000000000000000000000000000000",
      "0388dace60b6a392f328c2b971b2fe78", "ab6e47d42cec13bdf53a67b21257bddf"
    ),
    (
      "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888", "",
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
      "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985",
      "4d5c2af327cd64a62cf35abd2ba6fab4"
    ),
    (
      "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
      "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
      "5bc94fbc3221a5db94fae95ae7121a47"
    ),
  ])
  func galoisCounterMode(
    _ key: String, _ nonce: String, _ data: String, _ plain: String, _ sealed: String, _ tag: String
  ) {
    let mode = AESGCM(key: block(bytes(key)))
    var text = bytes(plain)
    mode.crypt(&text, block(bytes(nonce)))
    #expect(hex(text) == sealed)
    #expect(text.withUnsafeBytes { hex(mode.tag(block(bytes(nonce)), associated: bytes(data), ciphertext: $0)) } == tag)
  }

  /// RFC 5869 appendix A, test cases 1 to 3.
  @Test(arguments: [
    (
      "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
      "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    ),
    (
      hex(0...0x4f), hex(0x60...0xaf), hex(0xb0...0xff),
      "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
    ),
    (
      "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
      "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    ),
  ])
  func keyDerivation(_ secret: String, _ salt: String, _ info: String, _ output: String) {
    let key = QUIC.HKDF.extract(salt: bytes(salt), bytes(secret))
    #expect(hex(QUIC.HKDF.expand(key, bytes(info), length: output.count / 2)) == output)
  }

  /// Whatever the lengths, the same as swift-crypto says.
  @Test func asAnotherLibrary() throws {
    var random = SystemRandomNumberGenerator()
    for round in 0..<300 {
      func some(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) } }
      let (key, nonce, data, plain) = (some(16), some(12), some(round % 70), some(round * 5 % 1300))
      let sealed = try AES.GCM.seal(
        plain, using: SymmetricKey(data: key), nonce: AES.GCM.Nonce(data: nonce), authenticating: data)
      let mode = AESGCM(key: block(key))
      var text = plain
      mode.crypt(&text, block(nonce))
      #expect(text == Array(sealed.ciphertext))
      #expect(
        text.withUnsafeBytes { mode.tag(block(nonce), associated: data, ciphertext: $0) } == block(Array(sealed.tag)))
      let derived = Crypto.HKDF<SHA256>.deriveKey(
        inputKeyMaterial: SymmetricKey(data: plain + [1]), salt: key, info: data, outputByteCount: 1 + round % 200)
      let ours = QUIC.HKDF.expand(QUIC.HKDF.extract(salt: key, plain + [1]), data, length: 1 + round % 200)
      #expect(derived.withUnsafeBytes { Array($0) } == ours)
    }
  }
}
