/// Why a document is not believed. Each says in a sentence what was found and what was expected.
public enum AttestationError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Not a COSE_Sign1 with an attestation document in it, or a field that breaks one of AWS's rules.
  case malformed(String)
  /// Made by QEMU's nitro-enclave machine: in the form of AWS's, but nobody has signed it.
  case unsigned
  /// The signature is not by the key of the document's own certificate.
  case signature
  /// The certificates do not lead to the root that is trusted, or one of them breaks a rule.
  case chain(String)
  /// A certificate is not valid at the time that counts, or the document is too old, or from the future.
  case time(String)
  /// The enclave ran in debug mode: its console was open to its parent, and its PCRs are zeros.
  case debugMode
  /// All is genuine, and it says something else than was expected.
  case unexpected(String)

  public var description: String {
    switch self {
    case .malformed(let what): "not an attestation document: \(what)"
    case .unsigned: "the document is not signed: QEMU's nitro-enclave machine makes such ones, no Nitro Enclave does"
    case .signature: "the document's signature is not by the key of its certificate"
    case .chain(let what), .time(let what), .unexpected(let what): what
    case .debugMode: "the enclave runs in debug mode: its PCR0 is all zeros, and its parent can read its console"
    }
  }
}
