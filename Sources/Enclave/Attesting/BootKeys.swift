import AttestationCalls
import CKeys
import LinuxSystem
import Roles
import SecurityModule

// Theory of operation.
//
// A key pair is made once in the life of an enclave, by the first life of the service, before the program starts. The private
// half goes from OpenSSL's memory, which is wiped, to a file that PID 1 has made and that the service can write and not read;
// then that file is closed here. What the service needs from then on are the public halves, which it keeps in a file in memory
// of PID 1's: a service that was started again finds them there. So a service that somebody has taken over has no private half.

public enum BootKeys {
  /// A key that is wanted, and the file of its private half.
  public struct File {
    var key: AttestationPlan.Key
    var file: FileReference

    public init(_ key: AttestationPlan.Key, _ file: FileReference) {
      self.key = key
      self.file = file
    }
  }

  public struct Failure: Error, CustomStringConvertible {
    public var description: String
  }

  /// Bytes of the module's that are mixed in.
  private static let mixedBytes = 64
  private static let publicHalfLimit = Int(CKEYS_PUBLIC_LIMIT)

  /// While files can still be opened.
  public static func prepare() throws(Failure) {
    guard ckeys_prepare() else { throw Failure(description: "attestation.key: there are no random numbers") }
  }

  /// Those of a former life, or new ones.
  public static func all(
    _ files: [File], keptIn store: FileReference, _ module: some ModuleDevice
  ) throws -> [AttestationKey] {
    let kept = try readFromStart(store.rawValue, limit: AttestationPlan.keyLimit * (publicHalfLimit + 2))
    var halves: [[UInt8]] = []
    if kept.isEmpty {
      try mix(module)
      halves = try files.map(make)
      // In one piece, behind all private halves: a life that has ended earlier has made none.
      try rewriteFile(store.rawValue, halves.flatMap { packed($0) }, "public halves")
    } else {
      halves = try unpacked(kept)
      guard halves.count == files.count else {
        throw Failure(description: "attestation.key: found \(halves.count) public halves, expected \(files.count)")
      }
    }
    return zip(files, halves).map { AttestationKey(name: $0.key.name, type: $0.key.type, publicHalf: $1) }
  }

  private static func mix(_ module: some ModuleDevice) throws {
    var bytes: [UInt8] = []
    while bytes.count < mixedBytes {
      guard case .random(let more) = try module.ask(.random) else {
        throw ModuleFailure.unintelligible("it is no random number")
      }
      bytes += more
    }
    ckeys_mix(bytes, bytes.count)
  }

  private static func make(_ wanted: File) throws(Failure) -> [UInt8] {
    let key = wanted.key
    guard ckeys_has_type(key.type) else {
      throw Failure(description: "attestation.key \"\(key.name)\": there is no type \"\(key.type)\"")
    }
    var half = [UInt8](repeating: 0, count: publicHalfLimit)
    let count = ckeys_make(key.type, wanted.file.rawValue, key.isRaw, &half)
    guard count > 0 else {
      let reason = SystemError("write", key.name, errno: Int32(clamping: -count))
      throw Failure(description: "attestation.key \"\(key.name)\": no key of type \"\(key.type)\" was made: \(reason)")
    }
    return Array(half.prefix(count))
  }

  /// Two bytes of length before each.
  private static func packed(_ half: [UInt8]) -> [UInt8] {
    [UInt8(truncatingIfNeeded: half.count >> 8), UInt8(truncatingIfNeeded: half.count)] + half
  }

  static func unpacked(_ bytes: [UInt8]) throws(Failure) -> [[UInt8]] {
    var rest = bytes[...]
    var halves: [[UInt8]] = []
    while let high = rest.popFirst() {
      guard let low = rest.popFirst() else { throw damaged }
      let count = Int(high) << 8 | Int(low)
      guard (1...publicHalfLimit).contains(count), count <= rest.count else { throw damaged }
      halves.append(Array(rest.prefix(count)))
      rest = rest.dropFirst(count)
    }
    return halves
  }

  private static let damaged = Failure(description: "attestation.key: the public halves that were kept are damaged")
}
