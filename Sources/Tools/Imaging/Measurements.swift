import Crypto

/// The digests by which an enclave is known: SHA-384 each, as the NSM's DescribePCR gives them.
public struct Measurements: Equatable, Sendable {
  /// Kernel, command line, all ramdisks.
  public var pcr0: [UInt8]
  /// Kernel, command line, first ramdisk.
  public var pcr1: [UInt8]
  /// All further ramdisks.
  public var pcr2: [UInt8]
  /// The signing certificate; nil for an unsigned image (its PCR8 is 48 zeros).
  public var pcr8: [UInt8]?

  /// In order, the names as `nitro-cli` prints them.
  public var named: [(name: String, hex: String)] {
    [("PCR0", hex(pcr0)), ("PCR1", hex(pcr1)), ("PCR2", hex(pcr2))] + (pcr8.map { [("PCR8", hex($0))] } ?? [])
  }

  /// A register that began as zeros and was extended once, by the digest of what it measures.
  static func register(_ digest: SHA384) -> [UInt8] {
    var extended = SHA384()
    extended.update(data: [UInt8](repeating: 0, count: SHA384.byteCount))
    extended.update(data: Array(digest.finalize()))
    return Array(extended.finalize())
  }

  /// PCR8, over the certificate's DER.
  static func certificateRegister(der: [UInt8]) -> [UInt8] {
    var digest = SHA384()
    digest.update(data: der)
    return register(digest)
  }
}

/// Measures the sections of an EIF in the order in which they stand there.
struct Measurer {
  private var image = SHA384()
  private var bootstrap = SHA384()
  private var application = SHA384()
  private var kind: EIFSectionKind?
  private var ramdisks = 0

  mutating func begin(_ kind: EIFSectionKind) {
    self.kind = kind
    if kind == .ramdisk { ramdisks += 1 }
  }

  mutating func update(_ bytes: UnsafeRawBufferPointer) {
    switch kind {
    case .kernel, .commandLine:
      image.update(bufferPointer: bytes)
      bootstrap.update(bufferPointer: bytes)
    case .ramdisk:
      image.update(bufferPointer: bytes)
      if ramdisks == 1 { bootstrap.update(bufferPointer: bytes) } else { application.update(bufferPointer: bytes) }
    case .signature, .metadata, nil: break
    }
  }

  func measurements(certificate der: [UInt8]?) -> Measurements {
    Measurements(
      pcr0: Measurements.register(image), pcr1: Measurements.register(bootstrap),
      pcr2: Measurements.register(application), pcr8: der.map(Measurements.certificateRegister))
  }
}
