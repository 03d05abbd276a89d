import CLinux
import Glibc
import Inet

/// Tells on which ports a connection from this network namespace to 127.0.0.1 or ::1 would find a listener.
///
/// Asks the kernel for each port (sock_diag(7)), which costs some microseconds however many sockets there are. A kernel
/// without that has /proc/net/tcp, whose reading goes through the table of all connections of the machine: microseconds in
/// a small enclave, milliseconds on a large host.
public struct ListenerQuery {
  public enum Method: Equatable, Sendable { case diag, table }

  public let method: Method
  private let diag: FileReference?

  /// - Parameter known: a port of 127.0.0.1 that is listened on for sure: where the kernel does not find it, it cannot say.
  public init(known: UInt16) {
    let fd = clinux_diag_open()
    let handle = fd < 0 ? nil : FileReference(OwnedFileDescriptor(fd))
    if let handle, clinux_diag_listens(handle.rawValue, false, known) == 1 {
      diag = handle
      method = .diag
    } else {
      diag = nil
      method = .table
    }
  }

  /// By /proc/net/tcp alone.
  public init() {
    diag = nil
    method = .table
  }

  /// - Throws: where the kernel does not tell.
  public func listening(among ports: [UInt16]) throws(SystemError) -> Set<UInt16> {
    guard let diag else { return try fromTable().intersection(ports) }
    var found: Set<UInt16> = []
    for port in ports {
      let four = clinux_diag_listens(diag.rawValue, false, port)
      if four == 1 || clinux_diag_listens(diag.rawValue, true, port) == 1 {
        found.insert(port)
      } else {
        try check("sock_diag", "port \(port)", four)
      }
    }
    return found
  }

  private func fromTable() throws(SystemError) -> Set<UInt16> {
    var ports: Set<UInt16> = []
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
      var table = SocketTable()
      try Self.read(path) {
        table.add($0)
        return !table.isComplete
      }
      ports.formUnion(table.ports)
    }
    return ports
  }

  /// Which of the ports take datagrams, and at which addresses; by /proc/net/udp.
  /// - Parameter own: this machine's addresses beside loopback.
  /// - Throws: where the kernel does not tell.
  public func datagrams(
    among ports: [UInt16], own: [IPAddress]
  ) throws(SystemError) -> [UInt16: DatagramReach] {
    var table = DatagramSocketTable(own: own)
    for path in ["/proc/net/udp", "/proc/net/udp6"] {
      try Self.read(path) {
        table.add($0)
        return true
      }
    }
    let wanted = Set(ports)
    return table.ports.filter { wanted.contains($0.key) }
  }

  /// - Parameter take: false when it needs no more.
  private static func read(_ path: String, _ take: (ArraySlice<UInt8>) -> Bool) throws(SystemError) {
    var chunk = [UInt8](repeating: 0, count: 16384)
    let file = clinux_open(path, Int32(O_RDONLY), 0)
    // A kernel without IPv6 has no such file.
    if file == -ENOENT, path.hasSuffix("6") { return }
    try check("open", path, file)
    let handle = FileReference(OwnedFileDescriptor(file))
    while true {
      switch chunk.withUnsafeMutableBytes({ readBytes(handle.rawValue, $0) }) {
      case .bytes(0), .wouldBlock: return
      case .bytes(let count): guard take(chunk[..<count]) else { return }
      case .failed(let code): throw SystemError("read", path, errno: code)
      }
    }
  }
}

/// A bound TCP socket that does not listen yet: its port is taken, and clients are refused. Found out now where another
/// socket listens on the port.
///
/// Without SO_REUSEADDR while it does not listen, because two sockets that both have it could share the port until one of
/// them listens; with it while it listens, so that its connections in TIME_WAIT do not keep the next process from binding
/// the port (inet_csk_bind_conflict in net/ipv4/inet_connection_sock.c).
public func reserveListener(_ address: SocketAddress) throws(SystemError) -> OwnedFileDescriptor {
  let made = try listenStream(address)
  try stopListening(made.rawValue)
  return made
}

/// The C function is `listen`.
/// - Throws: EADDRINUSE where another socket has come to listen on the port in between.
public func startListening(_ fd: Int32) throws(SystemError) {
  try check("setsockopt", "SO_REUSEADDR", clinux_set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1))
  try checkErrno("listen", "descriptor \(fd)") { listen(fd, listenBacklog) }
}

/// Clients are refused from now on, and those that were not accepted yet are reset; the port stays bound. The C function is
/// `shutdown(SHUT_RD)`, which ends listening on Linux (inet_shutdown in net/ipv4/af_inet.c).
public func stopListening(_ fd: Int32) throws(SystemError) {
  try checkErrno("shutdown", "descriptor \(fd)") { shutdown(fd, Int32(CLINUX_SHUT_WR) - 1) }
  try check("setsockopt", "SO_REUSEADDR", clinux_set_option(fd, SOL_SOCKET, SO_REUSEADDR, 0))
}
