import CLinux
import Glibc
import Inet

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
