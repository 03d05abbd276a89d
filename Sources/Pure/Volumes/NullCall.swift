/// The call that an RPC server answers whatever it serves: procedure 0 of a program (RFC 5531 section 12.1). A server of
/// NFS 4 that answers it is there, and does so within its time; a connection alone says nothing in TCP mode, where the
/// enclave's own proxy takes it.
public enum NullCall {
  private static let program: UInt32 = 100_003
  private static let version: UInt32 = 4
  /// The last-fragment bit and the length of one record (RFC 5531 section 11).
  private static let last: UInt32 = 0x8000_0000
  /// The shortest reply that says how the call went: id, reply, accepted, no verifier (two words), and the outcome.
  static let replyLength = 24

  /// - Parameter id: chosen at random; the reply has it too.
  public static func call(id: UInt32) -> [UInt8] {
    // Call (0), RPC version 2, program, version, procedure 0, no credential, no verifier.
    let words: [UInt32] = [last | 40, id, 0, 2, program, version, 0, 0, 0, 0, 0]
    return words.flatMap { [UInt8($0 >> 24), UInt8($0 >> 16 & 0xff), UInt8($0 >> 8 & 0xff), UInt8($0 & 0xff)] }
  }

  public enum Reply: Equatable, Sendable {
    /// More bytes are needed.
    case incomplete
    case served
    /// Somebody answers, and not as a server of NFS 4 does.
    case other(String)
  }

  /// Total over any bytes, of which at most the first 28 count.
  public static func reply(_ bytes: [UInt8], to id: UInt32) -> Reply {
    func word(_ index: Int) -> UInt32? {
      let start = index * 4
      guard start + 4 <= bytes.count else { return nil }
      return bytes[start..<start + 4].reduce(0) { $0 << 8 | UInt32($1) }
    }
    guard let record = word(0) else { return .incomplete }
    guard record & last != 0, (8...1024).contains(record & ~last) else { return .other("it does not speak RPC") }
    guard let found = word(1), let kind = word(2), let outcome = word(3) else { return .incomplete }
    guard found == id, kind == 1 else { return .other("it does not speak RPC") }
    guard outcome == 0 else { return .other("it denies the call") }
    guard record & ~last >= UInt32(replyLength) else { return .other("it does not speak RPC") }
    guard let verifier = word(4), let length = word(5), let result = word(6) else { return .incomplete }
    guard verifier == 0, length == 0 else { return .other("it wants another kind of authentication") }
    switch result {
    case 0: return .served
    case 1: return .other("it has no NFS")
    case 2: return .other("it has no NFS of version 4")
    default: return .other("it answers with RPC error \(result)")
    }
  }
}
