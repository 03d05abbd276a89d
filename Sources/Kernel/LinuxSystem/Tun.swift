import CLinux
import Glibc
import Inet

/// What a kernel may leave undone in the packets that it hands to the reader of a TUN device: the TUN_F_* bits of
/// linux/if_tun.h. Whoever writes the packet to another TUN device passes the work on to that one's kernel.
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
  public let file: FileHandle
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
    file = FileHandle(OwnedFileDescriptor(fd))
    deviceName = String(decoding: made.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Keeps the device when its last queue closes. The C function is `ioctl(TUNSETPERSIST)`.
  public func setPersistent(_ on: Bool) throws(SystemError) {
    try check("ioctl TUNSETPERSIST", deviceName, clinux_tun_persist(file.rawValue, on))
  }
}

/// Allows the kernel what the receiver of the packets can take. The C function is `ioctl(TUNSETOFFLOAD)`.
/// - Returns: what of it this kernel knows.
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

/// Runs `body` on a thread of its own, which receives no signals. The C function is `pthread_create`.
public func startThread(_ body: @escaping @Sendable () -> Void) throws(SystemError) {
  final class Box: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
  let box = Unmanaged.passRetained(Box(body))
  let result = clinux_thread(
    { context in
      guard let context else { return }
      Unmanaged<Box>.fromOpaque(context).takeRetainedValue().body()
    }, box.toOpaque())
  if result < 0 { box.release() }
  try check("pthread_create", "", result)
}

/// Lets every other thread that could run on this processor run first. The C function is `sched_yield`.
public func yieldProcessor() { sched_yield() }

/// Locks a file against every other descriptor that asks, until it is closed. The C function is `flock(LOCK_EX)`.
/// - Returns: false where another holds it and `wait` is false.
public func lockFile(_ fd: Int32, wait: Bool) throws(SystemError) -> Bool {
  let result = clinux_flock(fd, wait)
  if result == -EAGAIN { return false }
  try check("flock", "", result)
  return true
}

/// The CPUs that this thread may run on. The C function is `sched_getaffinity`, or where there are more than it can say
/// `sysconf(_SC_NPROCESSORS_ONLN)`.
public func processorCount() -> Int {
  let count = Int(clinux_processor_count())
  return max(1, count > 0 ? count : sysconf(Int32(_SC_NPROCESSORS_ONLN)))
}

/// The corresponding C function is `rename`.
public func renameFile(_ path: String, to target: String) throws(SystemError) {
  try checkErrno("rename", path) { rename(path, target) }
}

/// A datagram socket that only packets from that link reach. The C function is `setsockopt(SO_BINDTODEVICE)`.
public func bindDatagram(_ endpoint: IPEndpoint, link: String) throws(SystemError) -> OwnedFileDescriptor {
  try bound(endpoint, .datagram, link)
}

/// A listening socket that only clients behind that link reach.
public func listenStream(_ endpoint: IPEndpoint, link: String) throws(SystemError) -> OwnedFileDescriptor {
  let made = try bound(endpoint, .stream, link)
  let raw = made.rawValue
  try checkErrno("listen", endpoint.description) { listen(raw, 128) }
  return made
}

private func bound(_ endpoint: IPEndpoint, _ kind: SocketKind, _ link: String) throws(SystemError)
  -> OwnedFileDescriptor
{
  let address = SocketAddress.ip(endpoint)
  let made = try makeSocket(address.family, kind)
  let raw = made.rawValue
  try check("setsockopt SO_BINDTODEVICE", link, clinux_bind_to_device(raw, link))
  _ = clinux_set_option(raw, SOL_SOCKET, SO_REUSEADDR, 1)
  try check("bind", address.description, try address.withStorage { clinux_bind(raw, $0, $1) })
  return made
}
