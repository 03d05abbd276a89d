import BootPlanning
import CLinux
import EnclaveConfig
import Inet
import LinuxSystem

/// What the attestation service is handed, opened while PID 1 still has every right. All of it stays open there, so that the
/// service can be started again.
public struct AttestationFiles {
  public let executable: FileReference
  /// nil: one is simulated.
  public private(set) var module: FileReference?
  /// The Unix socket, then those on 127.0.0.1.
  public private(set) var listeners: [FileReference] = []
  /// nil: all.
  public private(set) var callers: [UInt32]?

  init() throws {
    executable = try companion(EnclaveLayout.attestationService, neededFor: "[attestation]")
  }

  mutating func openModule(_ device: AttestationSettings.Device) throws {
    let path = EnclaveLayout.securityModule
    do throws(SystemError) {
      module = FileReference(try openFile(path, O_RDWR))
    } catch {
      guard error.errno == ENOENT else { throw error }
      throw MissingFeature(
        sentence: "[attestation]: this machine has no security module (\(path)); with attestation.without_module = "
          + "\"simulate\" there is one in memory, whose documents nobody has signed")
    }
    switch device {
    case .closed:
      guard removeFile(path) else { throw SystemError("unlink", path, errno: errnoValue()) }
    case .open: try changeMode(path, 0o666)
    case .group(let name):
      let group: UInt32
      do throws(AccountError) {
        group = try Account("0:" + name, passwd: Self.text("/etc/passwd"), group: Self.text("/etc/group")).gid
      } catch {
        throw MissingFeature(sentence: "attestation.device: \(error)")
      }
      try changeOwner(path, user: 0, group: group)
      try changeMode(path, 0o660)
    }
  }

  mutating func listen(ports: [UInt16], callers names: [String]?) throws {
    if let names { callers = try Self.users(names) }
    try makeDirectories(EnclaveLayout.attestationDirectory)
    try changeMode(EnclaveLayout.attestationDirectory, 0o755)
    let path = EnclaveLayout.attestationSocket
    listeners = [FileReference(try takeOverStream(.unix(path)))]
    // Who may ask is looked at there; a mode of groups could not say it.
    try changeMode(path, 0o666)
    for port in ports {
      listeners.append(FileReference(try listenStream(.ip(IPEndpoint(.v4(.loopback), port)))))
    }
  }

  private static func users(_ names: [String]) throws -> [UInt32] {
    let passwd = text("/etc/passwd")
    let group = text("/etc/group")
    var users: [UInt32] = []
    for name in names {
      do throws(AccountError) {
        users.append(try Account(name, passwd: passwd, group: group).uid)
      } catch {
        throw MissingFeature(sentence: "attestation.callers: \(error)")
      }
    }
    return users
  }

  private static func text(_ path: String) -> String { (try? readText(path)) ?? "" }
}

/// A program of our own in the folder where init's own file is.
func companion(_ name: String, neededFor key: String) throws -> FileReference {
  let own = try readLink("/proc/self/exe")
  let beside = (own.lastIndex(of: "/").map { String(own[...$0]) } ?? "/") + name
  // As the drop-in of nitro-cli's init we are alone in the first ramdisk; the image brings the file as its own.
  let path = fileKind(beside) == nil && fileKind("/rootfs/" + name) != nil ? "/rootfs/" + name : beside
  do throws(SystemError) {
    return FileReference(try openFile(path, O_PATH))
  } catch {
    throw MissingFeature(sentence: "\(key) needs \(name) beside tombolo-init: \(error)")
  }
}
