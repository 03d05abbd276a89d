import CLinux
import Foundation
import Inet

/// A blocking socket with a time-out of five seconds for everything.
final class TestSocket {
  let fd: Int32
  static let datagram = Int32(SOCK_DGRAM.rawValue)
  static let stream = Int32(SOCK_STREAM.rawValue)

  private init(owning fd: Int32) throws {
    self.fd = fd
    var limit = timeval(tv_sec: 5, tv_usec: 0)
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
      setsockopt(fd, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
    }
  }

  convenience init(_ type: Int32, like address: IPAddress, protocol number: Int32 = 0) throws {
    let family = address.bytes.count == 4 ? AF_INET : AF_INET6
    let fd = socket(family, type | Int32(SOCK_CLOEXEC.rawValue), number)
    guard fd >= 0 else { throw Failed("socket", errno) }
    try self.init(owning: fd)
  }

  deinit { close(fd) }

  struct Failed: Error, Equatable {
    var call: String
    var code: Int32
    init(_ call: String, _ code: Int32) {
      self.call = call
      self.code = code
    }
  }

  static func listener(_ type: Int32, _ endpoint: IPEndpoint) throws -> TestSocket {
    let socket = try TestSocket(type, like: endpoint.address)
    let result = endpoint.withSocketAddress { clinux_bind(socket.fd, $0, $1) }
    guard result == 0 else { throw Failed("bind", -result) }
    if type == stream, listen(socket.fd, 16) != 0 { throw Failed("listen", errno) }
    return socket
  }

  func connect(_ endpoint: IPEndpoint) throws {
    let result = endpoint.withSocketAddress { clinux_connect(fd, $0, $1) }
    guard result == 0 else { throw Failed("connect", -result) }
  }

  func accept() throws -> TestSocket {
    let accepted = clinux_accept(fd, nil)
    guard accepted >= 0 else { throw Failed("accept", -accepted) }
    clinux_set_nonblocking(accepted, false)
    return try TestSocket(owning: accepted)
  }

  func send(_ text: String, to endpoint: IPEndpoint? = nil) throws {
    let bytes = Array(text.utf8)
    let result =
      if let endpoint {
        endpoint.withSocketAddress { clinux_sendto(fd, bytes, bytes.count, $0, $1) }
      } else {
        clinux_send(fd, bytes, bytes.count, 0)
      }
    guard result == bytes.count else { throw Failed("send", Int32(-result)) }
  }

  func receive() throws -> (text: String, from: IPEndpoint?) {
    var buffer = [UInt8](repeating: 0, count: 2048)
    var from = sockaddr_storage()
    let count = clinux_recvfrom(fd, &buffer, buffer.count, &from)
    guard count >= 0 else { throw Failed("receive", Int32(-count)) }
    return (String(decoding: buffer[..<count], as: UTF8.self), IPEndpoint(from))
  }

  /// Where the program wanted to go before the kernel turned it.
  func originalDestination(v6: Bool) throws -> IPEndpoint? {
    var address = sockaddr_storage()
    let result = clinux_original_destination(fd, v6, &address)
    guard result == 0 else { throw Failed("getsockopt SO_ORIGINAL_DST", -result) }
    return IPEndpoint(address)
  }
}

extension IPEndpoint {
  func withSocketAddress<T>(_ body: (UnsafePointer<sockaddr_storage>, socklen_t) -> T) -> T {
    var storage = sockaddr_storage()
    let length = clinux_inet_address(&storage, address.bytes, Int32(address.bytes.count), port)
    return body(&storage, length)
  }

  init?(_ storage: sockaddr_storage) {
    var storage = storage
    var bytes = [UInt8](repeating: 0, count: 16)
    var port: UInt16 = 0
    let count = Int(clinux_inet_address_parts(&storage, &bytes, &port))
    guard let address = IPAddress(bytes: bytes[..<count]) else { return nil }
    self.init(address, port)
  }
}

/// Literals in tests.
func endpoint(_ text: String) throws -> IPEndpoint {
  guard let value = IPEndpoint(text) else { throw TestFailure("no endpoint: \(text)") }
  return value
}

func prefix(_ text: String) throws -> IPPrefix {
  guard let value = IPPrefix(text) else { throw TestFailure("no prefix: \(text)") }
  return value
}

func address(_ text: String) throws -> IPAddress {
  guard let value = IPAddress(text) else { throw TestFailure("no address: \(text)") }
  return value
}
