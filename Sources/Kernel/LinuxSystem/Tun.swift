import CLinux
import Glibc

/// What a kernel may leave undone in the packets that it hands to the reader of a TUN device: the TUN_F_* bits of
/// linux/if_tun.h. A reader that writes the packet to another TUN device passes the work on to that one's kernel.
public struct TunOffload: OptionSet, Sendable, Hashable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let checksum = TunOffload(rawValue: UInt32(CLINUX_TUN_F_CSUM))
  /// TCP segmentation, with ECN.
  public static let tcp: TunOffload = [
    TunOffload(rawValue: UInt32(CLINUX_TUN_F_TSO4)), TunOffload(rawValue: UInt32(CLINUX_TUN_F_TSO6)),
    TunOffload(rawValue: UInt32(CLINUX_TUN_F_TSO_ECN)),
  ]
  /// UDP segmentation, Linux 6.2 and later.
  public static let udp: TunOffload = [
    TunOffload(rawValue: UInt32(CLINUX_TUN_F_USO4)), TunOffload(rawValue: UInt32(CLINUX_TUN_F_USO6)),
  ]
  public static let all: TunOffload = [.checksum, .tcp, .udp]
}

/// One queue of a TUN device.
public struct TunQueue: Sendable {
  public let file: FileReference
  public let deviceName: String

  /// The longest name of a network interface, in bytes (IFNAMSIZ - 1).
  public static let nameLimit = 15

  /// Opens a queue; the first one makes the device, which goes with its last queue unless it is made persistent.
  /// - Parameter name: with `%d` in it the kernel chooses a number.
  /// - Throws: EPERM without CAP_NET_ADMIN; ENOENT, ENXIO without /dev/net/tun or CONFIG_TUN; EBUSY where the device is
  ///   somebody else's. The C function is `ioctl(TUNSETIFF)`.
  public init(_ name: String) throws(SystemError) {
    var made = [CChar](repeating: 0, count: 16)
    var call: UnsafePointer<CChar>?
    let fd = clinux_tun_open(name, true, &made, &call)
    guard fd >= 0 else { throw SystemError(call.map { String(cString: $0) } ?? "open", name, errno: -fd) }
    file = FileReference(OwnedFileDescriptor(fd))
    deviceName = String(decoding: made.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Keeps the device when its last queue closes. The C function is `ioctl(TUNSETPERSIST)`.
  public func setPersistent(_ on: Bool) throws(SystemError) {
    try check("ioctl TUNSETPERSIST", deviceName, clinux_tun_persist(file.rawValue, on))
  }
}

/// Allows the kernel what the receiver of the packets can take. The C function is `ioctl(TUNSETOFFLOAD)`.
/// - Returns: those of them that this kernel knows.
public func setTunOffload(_ queue: Int32, _ wanted: TunOffload) throws(SystemError) -> TunOffload {
  if clinux_tun_offload(queue, wanted.rawValue) == 0 { return wanted }
  let older = wanted.subtracting(.udp)
  try check("ioctl TUNSETOFFLOAD", "", clinux_tun_offload(queue, older.rawValue))
  return older
}

/// The node /dev/net/tun, where it is missing. Needs CAP_MKNOD in the first user namespace.
public func provideTunDevice() throws(SystemError) {
  let path = "/dev/net/tun"
  guard fileKind(path) == nil else { return }
  try makeDirectories("/dev/net")
  // MISC_MAJOR, TUN_MINOR of linux/major.h and linux/miscdevice.h.
  try check("mknod", path, clinux_make_device(path, 10, 200))
}
