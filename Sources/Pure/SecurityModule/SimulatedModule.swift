import CBORCodec
import CMd

/// A security module in memory, behind the same CBOR: for enclaves on machines that have none, and for tests. Nobody signs its
/// documents: they have the form of QEMU's (algorithm -1, zeros for certificate and signature), which a verifier refuses by
/// name. Its registers 0 to 15 are locked zeros, as those of an enclave in debug mode: no image has been measured.
public struct SimulatedModule: Sendable {
  private var registers: [(value: [UInt8], isLocked: Bool)]
  private let moduleID: String
  public static let count = 32
  /// Of certificate and signature: QEMU's.
  private static let zeros = [UInt8](repeating: 0, count: 64)

  public init(moduleID: String = "simulated") {
    self.moduleID = moduleID
    registers = (0..<Self.count).map { ([UInt8](repeating: 0, count: 48), $0 < 16) }
  }

  /// - Parameters:
  ///   - milliseconds: since 1970.
  ///   - random: as many bytes as asked for.
  public mutating func answer(_ bytes: [UInt8], milliseconds: UInt64, random: (Int) -> [UInt8]) -> [UInt8] {
    guard bytes.count <= ModuleRequest.limit else { return ModuleError.inputTooLarge.bytes }
    guard let request = ModuleRequest(bytes: bytes) else { return ModuleError.invalidOperation.bytes }
    do throws(ModuleFailure) {
      return try answer(request, milliseconds, random).bytes(to: request)
    } catch {
      guard case .refused(let word) = error else { return ModuleError.internalError.bytes }
      return word.bytes
    }
  }

  private mutating func answer(
    _ request: ModuleRequest, _ milliseconds: UInt64, _ random: (Int) -> [UInt8]
  ) throws(ModuleFailure) -> ModuleAnswer {
    switch request {
    case .describePCR(let index):
      let register = try register(index)
      return .register(isLocked: register.isLocked, value: register.value)
    case .extendPCR(let index, let data):
      let register = try register(index)
      guard !register.isLocked else { throw .refused(.readOnlyIndex) }
      registers[Int(index)].value = sha384(register.value + data)
      return .extended(registers[Int(index)].value)
    case .lockPCR(let index):
      guard try !register(index).isLocked else { throw .refused(.readOnlyIndex) }
      registers[Int(index)].isLocked = true
      return .locked
    case .lockPCRs(let range):
      guard range <= Self.count else { throw .refused(.invalidIndex) }
      for index in 0..<Int(range) { registers[index].isLocked = true }
      return .locked
    case .describe:
      let locked = registers.indices.filter { registers[$0].isLocked }.map { UInt16(clamping: $0) }
      return .description(
        ModuleDescription(version: [1, 0, 0], moduleID: moduleID, registers: UInt16(Self.count), locked: locked))
    case .attestation(let contents): return .document(document(contents, milliseconds))
    case .random: return .random(random(256))
    }
  }

  private func register(_ index: UInt16) throws(ModuleFailure) -> (value: [UInt8], isLocked: Bool) {
    guard index < Self.count else { throw .refused(.invalidIndex) }
    return registers[Int(index)]
  }

  private func document(_ contents: ModuleRequest.DocumentContents, _ milliseconds: UInt64) -> [UInt8] {
    func optional(_ bytes: [UInt8]?) -> CBOR { bytes.map { .bytes($0) } ?? .null }
    let locked = registers.enumerated().filter { $0.element.isLocked }
    let payload: [(String, CBOR)] = [
      ("module_id", .text(moduleID)), ("digest", .text("SHA384")), ("timestamp", .unsigned(milliseconds)),
      ("pcrs", .map(locked.map { .init(key: .unsigned(UInt64($0.offset)), value: .bytes($0.element.value)) })),
      ("certificate", .bytes(Self.zeros)), ("cabundle", .array([.bytes(Self.zeros)])),
      ("public_key", optional(contents.publicKey)), ("user_data", optional(contents.userData)),
      ("nonce", optional(contents.nonce)),
    ]
    let header = CBOR.map([.init(key: .unsigned(1), value: .negative(0))]).encoded
    return CBOR.array([
      .bytes(header), .map([]), .bytes(CBOR.map(payload.map { .init(key: .text($0.0), value: $0.1) }).encoded),
      .bytes(Self.zeros),
    ]).encoded
  }
}

/// SHA-384 (FIPS 180-4), by libmd: what the module measures with.
public func sha384(_ bytes: [UInt8]) -> [UInt8] {
  var context = SHA2_CTX()
  SHA384Init(&context)
  SHA384Update(&context, bytes, bytes.count)
  var digest = [UInt8](repeating: 0, count: Int(SHA384_DIGEST_LENGTH))
  SHA384Final(&digest, &context)
  return digest
}

/// What a register has that was extended once, with the digest of `text`, and with nothing else.
public func measuredRegister(_ text: [UInt8]) -> [UInt8] {
  sha384([UInt8](repeating: 0, count: Int(SHA384_DIGEST_LENGTH)) + sha384(text))
}
