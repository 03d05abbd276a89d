import BootPlanning
import HostGateway

/// What `tombolo boot` was asked for, checked.
public struct MachineRequest {
  public enum Kind: String, CaseIterable, Sendable {
    /// The nitro-enclave machine for an EIF where QEMU has it, else q35.
    case auto
    case nitroEnclave = "nitro-enclave"
    case q35, microvm
  }

  /// An EIF, or a kernel with its initial ramdisk.
  public enum Image: Sendable {
    case eif(String)
    case kernel(String, ramdisk: String)
  }

  public var image: Image
  public var kind = Kind.auto
  public var qemu: String
  /// QEMU's ROMs (`-L`); nil for its own.
  public var qemuData: String?
  public var accelerator = "tcg"
  /// QEMU gives up what system calls a machine does not need; one built without libseccomp cannot.
  public var isSandboxed = true
  /// MiB.
  public var memory = 512
  public var processors = 1
  public var guestCID: UInt32 = 16
  /// The vsock port of the host side.
  public var port = EnclaveLayout.port
  /// Words added to the kernel's command line; measured by nobody.
  public var appended = ""
  public var showsConsole = false
  /// The host's side; without a raw gateway the image must not be in raw mode.
  public var host = HostSettings()

  public init(image: Image, qemu: String) {
    self.image = image
    self.qemu = qemu
  }
}

/// Why a machine could not be started, or what it ended with.
public struct MachineError: Error, CustomStringConvertible {
  public var description: String
  public init(_ description: String) { self.description = description }
}
