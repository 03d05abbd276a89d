import FoundationEssentials

/// Decides whether an attestation document is to be believed, and whether it says what is expected.
///
/// ```swift
/// var verifier = AttestationVerifier()
/// verifier.expectedPCRs = [0: imageDigest]
/// verifier.nonce = theNonceThatWasSent
/// let verified = try verifier.verify(bytes)
/// use(verified.document.publicKey)
/// ```
///
/// In this order, and the first that fails is the reason: the form (``SignedDocument``), that it is signed, AWS's rules on the certificates
/// up to ``root``, the signatures, the time, debug mode, and then what is expected. A document that
/// is genuine tells only that it came from *some* enclave: without ``expectedPCRs`` (0, 1 and 2 are the image's) anybody's is
/// believed, and without ``nonce`` or ``maximumAge`` one that somebody has kept.
public struct AttestationVerifier: Sendable {
  /// The time at which the certificates must be valid.
  public enum Time: Equatable, Sendable {
    /// The time of this call: for a document that was just made. A document is valid for three hours at most, because the
    /// certificate of its enclave is.
    case now
    /// In milliseconds since 1970.
    case at(UInt64)
    /// The time that the document itself says, which is signed: for one that was kept.
    case document
  }

  public var root = TrustedRoot.aws
  public var time = Time.now
  /// How old the document may be now, in milliseconds; nil for as old as the certificates allow.
  public var maximumAge: UInt64?
  /// By how much this clock may be behind the enclave's, in milliseconds.
  public var clockSkew: UInt64 = 60_000
  /// Registers by number. One that the document lacks, because it is not locked, is not the expected one.
  public var expectedPCRs: [Int: [UInt8]] = [:]
  public var nonce: [UInt8]?
  public var publicKey: [UInt8]?
  public var userData: [UInt8]?
  /// Believes the document of an enclave in debug mode, whose parent reads its console, and whose image is not measured.
  public var allowsDebug = false
  /// Believes a document that nobody has signed, as QEMU makes them. Anybody can write such a one: for tests alone.
  public var allowsUnsigned = false

  public init() {}

  /// - Parameter bytes: the document as `/dev/nsm` gives it (CBOR).
  /// - Throws: ``AttestationError`` with the first reason not to believe it.
  public func verify(_ bytes: [UInt8]) throws(AttestationError) -> VerifiedDocument {
    try verify(bytes, now: UInt64(max(0, Date().timeIntervalSince1970) * 1000))
  }

  func verify(_ bytes: [UInt8], now: UInt64) throws(AttestationError) -> VerifiedDocument {
    let signed = try SignedDocument(bytes)
    let document = signed.document
    var verified = VerifiedDocument(document: document, isSigned: signed.isSigned)
    let moment =
      switch time {
      case .now: now
      case .at(let given): given
      case .document: document.timestamp
      }
    if signed.isSigned {
      let chain = try CertificateChain(document, root: root)
      guard signed.isSignature(of: chain.key) else { throw .signature }
      try chain.checkSignatures()
      try chain.checkValidity(at: moment, skew: time == .document ? 0 : clockSkew)
      verified.subjects = chain.subjects
      verified.validUntil = chain.validUntil
    } else if !allowsUnsigned {
      throw .unsigned
    }
    try checkAge(document, now: time == .document ? now : moment)
    guard document.pcrs[0] != nil else { throw .malformed("it has no PCR0, which every enclave has") }
    if document.isDebug, !allowsDebug { throw .debugMode }
    try compare(document)
    return verified
  }

  private func checkAge(_ document: AttestationDocument, now: UInt64) throws(AttestationError) {
    let (latest, overflow) = now.addingReportingOverflow(clockSkew)
    guard overflow || document.timestamp <= latest else {
      throw .time("the document is from the future: it was made at \(utc(document.timestamp)), the time is \(utc(now))")
    }
    guard let maximumAge else { return }
    let age = now > document.timestamp ? now - document.timestamp : 0
    guard age <= maximumAge else {
      throw .time(
        "the document is \(age / 1000) s old, made at \(utc(document.timestamp)); at most \(maximumAge / 1000) s were allowed"
      )
    }
  }

  private func compare(_ document: AttestationDocument) throws(AttestationError) {
    for (number, expected) in expectedPCRs.sorted(by: { $0.key < $1.key }) {
      guard let found = document.pcrs[number] else {
        throw .unexpected(
          "PCR\(number) is not in the document, where it is when it is locked; \(shown(expected)) was expected")
      }
      try compare(found, expected, "PCR\(number)")
    }
    try compare(document.nonce, nonce, "nonce")
    try compare(document.publicKey, publicKey, "public_key")
    try compare(document.userData, userData, "user_data")
  }

  private func compare(_ found: [UInt8]?, _ expected: [UInt8]?, _ name: String) throws(AttestationError) {
    guard let expected, found != expected else { return }
    throw .unexpected("\(name) is \(found.map(shown) ?? "not in the document"), \(shown(expected)) was expected")
  }

  private func shown(_ bytes: [UInt8]) -> String { bytes.isEmpty ? "no bytes" : hex(bytes) }
}

/// A document that an ``AttestationVerifier`` believes.
public struct VerifiedDocument: Equatable, Sendable {
  public let document: AttestationDocument
  /// False where an unsigned one was allowed: nothing in it is known to be true.
  public let isSigned: Bool
  /// The subjects of its certificates, the root's first.
  public internal(set) var subjects: [String] = []
  /// When the first of its certificates ends, in seconds since 1970.
  public internal(set) var validUntil: UInt64?

  init(document: AttestationDocument, isSigned: Bool) {
    self.document = document
    self.isSigned = isSigned
  }
}

func hex(_ bytes: [UInt8]) -> String {
  let digits = Array("0123456789abcdef".utf8)
  return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
}
