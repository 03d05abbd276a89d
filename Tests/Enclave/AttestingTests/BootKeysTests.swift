import AttestationCalls
import CLinux
import LinuxSystem
import Roles
import SecurityModule
import Testing

@testable import Attesting

/// A key that clients trust is the one whose private half the program has, whatever becomes of the service.
struct BootKeysTests {
  private static let types = ["ed25519", "x25519", "p256", "p384", "secp256k1"]
  /// Of the public halves, in DER and raw.
  private static let sizes = [(44, 32), (44, 32), (91, 64), (120, 96), (88, 64)]

  private func files(_ types: [String], isRaw: Bool = false) throws -> [BootKeys.File] {
    try types.map { .init(.init(name: $0, type: $0, isRaw: isRaw, file: 4), try makeMemoryFile([])) }
  }

  private func text(_ file: BootKeys.File) throws -> String {
    String(decoding: try readFromStart(file.file.rawValue, limit: 4096), as: UTF8.self)
  }

  @Test(arguments: [false, true]) func eachType(isRaw: Bool) throws {
    try BootKeys.prepare()
    let files = try files(Self.types, isRaw: isRaw)
    let keys = try BootKeys.all(files, keptIn: try makeMemoryFile([]), ModuleInMemory())
    #expect(keys.map(\.name) == Self.types)
    #expect(keys.map(\.publicHalf.count) == Self.sizes.map { isRaw ? $0.1 : $0.0 })
    for file in files {
      let pem = try text(file)
      #expect(pem.hasPrefix("-----BEGIN PRIVATE KEY-----\n") && pem.hasSuffix("-----END PRIVATE KEY-----\n"))
    }
  }

  /// A service that was started again makes no new keys: the program has those of the first.
  @Test func theNextLifeFindsThem() throws {
    try BootKeys.prepare()
    let files = try files(Self.types)
    let store = try makeMemoryFile([])
    let keys = try BootKeys.all(files, keptIn: store, ModuleInMemory())
    let texts = try files.map(text)
    // Nothing is asked of the module then.
    #expect(try BootKeys.all(files, keptIn: store, Deaf()) == keys)
    #expect(try files.map(text) == texts)
    // Without what was kept these are others, in the same files.
    let others = try BootKeys.all(files, keptIn: try makeMemoryFile([]), ModuleInMemory())
    #expect(zip(keys, others).allSatisfy { $0.publicHalf != $1.publicHalf })
    #expect(try zip(files.map(text), texts).allSatisfy { $0 != $1 && $0.utf8.count == $1.utf8.count })
    #expect(throws: BootKeys.Failure.self) { try BootKeys.all(self.files(["p256"]), keptIn: store, ModuleInMemory()) }
  }

  private final class Deaf: ModuleDevice {
    func perform(_ request: [UInt8]) throws(ModuleFailure) -> [UInt8] { throw .unreachable("ioctl") }
  }

  @Test func whatCannotBeMade() throws {
    try BootKeys.prepare()
    let store = try makeMemoryFile([])
    #expect(throws: ModuleFailure.self) { try BootKeys.all(self.files(["p256"]), keptIn: store, Deaf()) }
    #expect(throws: BootKeys.Failure.self) { try BootKeys.all(self.files(["rsa"]), keptIn: store, ModuleInMemory()) }
    // A file that cannot be written: nothing is kept, so that the next life tries again.
    let null = FileReference(try openFile("/dev/null", O_RDONLY))
    let file = BootKeys.File(.init(name: "a", type: "p256", isRaw: false, file: 4), null)
    #expect(throws: BootKeys.Failure.self) { try BootKeys.all([file], keptIn: store, ModuleInMemory()) }
    #expect(try readFromStart(store.rawValue, limit: 1).isEmpty)
  }

  /// Only an own former life has written there; what a fault has made of it is an error and no trap.
  @Test func damagedHalves() throws {
    #expect(try BootKeys.unpacked([0, 1, 7, 0, 2, 8, 9]) == [[7], [8, 9]] && BootKeys.unpacked([]) == [])
    for bytes in [[0], [0, 0], [0, 2, 7], [1, 1] + [UInt8](repeating: 1, count: 300)] as [[UInt8]] {
      #expect(throws: BootKeys.Failure.self) { try BootKeys.unpacked(bytes) }
    }
  }
}
