import BootPlanning
import CLinux
import LinuxSystem

/// The steps that only a kernel's init takes.
enum KernelSteps {
  static func mountIfMissing(
    _ source: String, _ target: String, _ type: String, _ flags: MountFlags, _ data: String
  ) throws(SystemError) {
    if fileKind(target) == nil { try makeDirectories(target) }
    do throws(SystemError) {
      try mountFileSystem(source, target, type: type, flags: flags, data: data)
    } catch  where error.errno == EBUSY {
      // The kernel did it (DEVTMPFS_MOUNT), or the start before Swift did (/proc).
    }
  }

  /// AWS's ramdisk has no /dev/console, so that a kernel's init starts without one.
  static func openConsole(_ log: (String) -> Void) {
    guard let console = try? openFile("/dev/console", O_RDWR | O_NOCTTY) else {
      log("there is no console: /dev/console cannot be opened")
      return
    }
    for target in Int32(0)...2 { _ = clinux_dup_to(console.rawValue, target) }
  }

  static func loadModules(list: String, _ log: (String) -> Void) throws(SystemError) {
    guard fileKind(list) != nil else { return }
    for path in try readText(list).split(whereSeparator: \.isNewline) where !path.hasPrefix("#") {
      do throws(SystemError) {
        try loadModule(String(path))
      } catch  where error.errno == ENODEV || error.errno == EOPNOTSUPP || error.errno == ENXIO {
        // A driver whose device this machine does not have, such as KVM's clock under emulation.
        log("\(error)")
      }
    }
  }

  static func loadModule(_ path: String) throws(SystemError) {
    let file = try openFile(path, O_RDONLY)
    let compressed = path.hasSuffix(".xz") || path.hasSuffix(".zst") || path.hasSuffix(".gz")
    let result = clinux_finit_module(file.rawValue, compressed)
    // Loaded already, or built in.
    if result == -EEXIST { return }
    try check("finit_module", path, result)
  }

  /// switch_root(8): the new root over the old one, since an initramfs is the root of all mounts and cannot be moved.
  static func switchRoot(_ path: String, moving mounts: [String]) throws(SystemError) {
    try mountFileSystem(path, path, type: nil, flags: [.bind])
    for mount in mounts {
      if fileKind(path + mount) == nil { try makeDirectories(path + mount) }
      try mountFileSystem(mount, path + mount, type: nil, flags: [.move])
    }
    try changeRoot(to: path)
  }

  private static let controlGroups = "/sys/fs/cgroup"

  /// Version 2 alone where it has every controller; programs that know version 1 only (old JVMs) are rarer than
  /// kernels whose version 2 is a shell (4.14 has no cpu there).
  static func mountControlGroups(_ log: (String) -> Void) {
    guard fileKind(controlGroups) == .directory else { return }
    do throws(SystemError) {
      try mountIfMissing("cgroup2", controlGroups, "cgroup2", [.noSetUID, .noDevices, .noExecution], "")
    } catch {
      log("no control groups: \(error)")
      return
    }
    let controllers = ((try? readText(controlGroups + "/cgroup.controllers")) ?? "").split(
      whereSeparator: \.isWhitespace)
    if !controllers.contains("cpu") {
      log("control groups version 2 has only these controllers: \(controllers.joined(separator: " "))")
    }
  }

  /// A server takes two clients of one name for one that has started again, and gives up what the other has open
  /// (nfs4_init_uniform_client_string in fs/nfs/nfs4proc.c); enclaves of one image have one host name.
  static func nameNFSClient(_ log: (String) -> Void) {
    let digits = Array("0123456789abcdef")
    let name = LinuxSystem.randomBytes(16).reduce(into: "") { text, byte in
      text.append(digits[Int(byte >> 4)])
      text.append(digits[Int(byte & 15)])
    }
    do throws(SystemError) {
      let file = try openFile("/sys/module/nfs/parameters/nfs4_unique_id", O_WRONLY)
      try writeAll(file.rawValue, name.utf8, "nfs4_unique_id")
    } catch {
      log("NFS servers know this client by its host name alone: \(error)")
    }
  }

  /// {"GetRandom": {"random": 256 bytes}}, asked for as the text "GetRandom" (CBOR, RFC 8949).
  private static let getRandom: [UInt8] = [0x69] + Array("GetRandom".utf8)

  static func seedEntropy(_ log: (String) -> Void) {
    guard fileKind("/dev/nsm") != nil else { return }
    do throws(SystemError) {
      let device = try openFile("/dev/nsm", O_RDWR)
      guard let random = randomBytes(try askSecurityModule(device.rawValue, getRandom)) else {
        log("/dev/nsm gave something that is not random bytes")
        return
      }
      try check("ioctl", "RNDADDENTROPY", clinux_add_entropy(random, random.count))
      log("\(random.count) bytes of entropy from /dev/nsm")
    } catch {
      log("no entropy from the security module: \(error)")
    }
  }

  /// The one byte string of a GetRandom response.
  static func randomBytes(_ response: [UInt8]) -> [UInt8]? {
    let head: [UInt8] = [0xa1, 0x69] + Array("GetRandom".utf8) + [0xa1, 0x66] + Array("random".utf8)
    guard response.starts(with: head) else { return nil }
    var rest = response.dropFirst(head.count)
    let length: Int
    switch rest.popFirst() {
    case 0x58?: length = Int(rest.popFirst() ?? 0)
    case 0x59?:
      let high = Int(rest.popFirst() ?? 0)
      length = high << 8 | Int(rest.popFirst() ?? 0)
    case let byte? where (0x41...0x57).contains(byte): length = Int(byte - 0x40)
    default: return nil
    }
    guard length > 0, length <= 1024, rest.count == length else { return nil }
    return Array(rest)
  }
}
