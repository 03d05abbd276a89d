import BootPlanning
import CLinux
import EnclaveConfig
import Inet
import LinuxSystem
import Roles

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
  /// The files of the keys' private halves, which can be written, in the configuration's order.
  public private(set) var keys: [FileReference] = []
  /// Where the service keeps the public halves for its next life; nil without keys.
  public private(set) var publicHalves: FileReference?
  /// The two files of `attestation.document`, which can be written; empty without.
  public private(set) var document: [FileReference] = []

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

  mutating func makeKeyFiles(_ files: [BootStep.KeyFile]) throws {
    let passwd = Self.text("/etc/passwd")
    let group = Self.text("/etc/group")
    for file in files {
      let owner = try Self.account(file.user, passwd, group, "attestation.key \"\(file.name)\"")
      let path = EnclaveLayout.keyFile(file.name)
      keys.append(FileReference(try openFile(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o400)))
      try changeOwner(path, user: owner.uid, group: owner.gid)
    }
    publicHalves = try makeMemoryFile([])
  }

  mutating func makeDocument(at path: String) throws {
    let directory = EnclaveLayout.documentDirectory
    try makeDirectories(directory)
    try changeMode(directory, 0o755)
    do throws(SystemError) {
      try changeOwner(directory, user: Configuration.attestationID, group: Configuration.attestationID)
    } catch {
      // In a user namespace with a single id the service has that.
      guard error.errno == EINVAL else { throw error }
    }
    for name in [AttestationPlan.documentName, AttestationPlan.spareName] {
      let file = "\(directory)/\(name)"
      // Of another start, under another init.
      removeFile(file)
      document.append(FileReference(try openFile(file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o444)))
      try changeMode(file, 0o444)
    }
    let target = "\(directory)/\(AttestationPlan.documentName)"
    if fileKind(path, followLinks: false) == .symbolicLink, try readLink(path) == target { removeFile(path) }
    guard fileKind(path, followLinks: false) == nil else {
      throw MissingFeature(
        sentence: "attestation.document: found \(path), which is there already, expected a free name")
    }
    if let end = path.lastIndex(of: "/") { try makeDirectories(String(path[..<end])) }
    try makeSymbolicLink(path, to: target)
  }

  private static func users(_ names: [String]) throws -> [UInt32] {
    let passwd = text("/etc/passwd")
    let group = text("/etc/group")
    var users: [UInt32] = []
    for name in names {
      users.append(try account(name, passwd, group, "attestation.callers").uid)
    }
    return users
  }

  /// - Parameter key: of the configuration.
  private static func account(
    _ name: String, _ passwd: String, _ group: String, _ key: String
  ) throws(MissingFeature) -> Account {
    do throws(AccountError) {
      return try Account(name, passwd: passwd, group: group)
    } catch {
      throw MissingFeature(sentence: "\(key): \(error)")
    }
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
