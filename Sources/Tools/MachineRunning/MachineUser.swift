import CLinux
import LinuxSystem

/// A user of its own for each machine that root starts, so that a QEMU in other hands has nothing of this machine's, and can
/// neither signal nor trace another enclave's. No program has these numbers: they are below systemd's for dynamic users
/// (61184 to 65519) and above those of people.
final class MachineUser {
  static let first: UInt32 = 61_100
  static let count: UInt32 = 64

  let id: UInt32
  /// Locked at the number's place, and so free again however we end.
  private let lock: FileReference

  /// - Throws: where every number is taken.
  init() throws {
    try makeDirectories("/run/tombolo")
    lock = FileReference(try openFile("/run/tombolo/machine-users", O_RDWR | O_CREAT, mode: 0o600))
    for number in 0..<Self.count {
      if try lockByte(lock.rawValue, at: Int64(number)) {
        id = Self.first + number
        return
      }
    }
    throw MachineError("\(Self.count) machines run already, and there is no user for another one")
  }

  /// Who may use the processor's virtualisation, where that is not everybody.
  static func groups(accelerator: String) -> [UInt32] {
    accelerator == "kvm" ? [fileGroup("/dev/kvm")].compactMap { $0 } : []
  }
}
