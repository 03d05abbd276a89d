import CLinux
import DNS
import EnclaveConfig
import Inet
import LinuxSystem
import Volumes

/// Finds a mount's server and asks whether it is there. Everything here ends within a bound of its own.
struct VolumeServer {
  let server: MountWork.Server

  private static let queryMilliseconds: Int32 = 3000
  private static let probeMilliseconds: Int32 = 5000
  private static let messageLimit = 65536

  /// An address of the server, and for how many seconds a name's answer holds.
  struct Found {
    var addresses: [IPAddress]
    var seconds: UInt32?
  }

  /// IPv4 first: most servers of a network of its own have no other.
  func find() throws(MountFailure) -> Found {
    guard case .name(let name) = server.host else {
      guard case .address(let address) = server.host else { return Found(addresses: []) }
      return Found(addresses: [address])
    }
    var addresses: [IPAddress] = []
    var seconds = UInt32.max
    var problem: MountFailure?
    for ipv6 in [false, true] where addresses.isEmpty {
      do throws(MountFailure) {
        let answer = try ask(name, ipv6: ipv6)
        addresses += answer.addresses
        seconds = min(seconds, answer.seconds)
      } catch {
        problem = problem ?? error
      }
    }
    guard !addresses.isEmpty else {
      throw problem ?? MountFailure("\(name) has no address", isFinal: false)
    }
    return Found(addresses: addresses, seconds: seconds)
  }

  /// Of the enclave's own name server, whose answers the policy has judged.
  private func ask(_ name: DomainName, ipv6: Bool) throws(MountFailure) -> (addresses: [IPAddress], seconds: UInt32) {
    let random = randomBytes(2)
    let query = AddressQuery(name, ipv6: ipv6, id: random.reduce(0) { $0 << 8 | UInt16($1) })
    do throws(SystemError) {
      let socket = try connectDatagram(IPEndpoint(.v4(AgreedAddresses.nameServer), 53))
      if case .failed(let code) = query.bytes.withUnsafeBytes({ sendBytes(socket.rawValue, $0) }) {
        throw SystemError("send", "a query for \(name)", errno: code)
      }
      let end = monotonicNanoseconds() + UInt64(Self.queryMilliseconds) * 1_000_000
      while true {
        let now = monotonicNanoseconds()
        guard now < end, waitReadable(socket.rawValue, milliseconds: Int32((end - now) / 1_000_000 + 1)) else {
          throw SystemError("resolve", name.description, errno: ETIMEDOUT)
        }
        let (result, bytes) = readChunk(socket.rawValue, limit: Self.messageLimit)
        if case .failed(let code) = result { throw SystemError("resolve", name.description, errno: code) }
        guard let answer = query.addresses(bytes) else { continue }
        guard answer.code == 0 else { throw SystemError("resolve", name.description, errno: Self.errno(answer.code)) }
        return (answer.addresses, answer.seconds)
      }
    } catch {
      if error.call == "resolve", error.errno == EACCES {
        throw MountFailure("\(name): the name is not allowed ([egress])", isFinal: false)
      }
      if error.call == "resolve", error.errno == ENOENT {
        throw MountFailure("\(name): there is no such name", isFinal: false)
      }
      throw MountFailure(error.description, isFinal: false)
    }
  }

  /// RFC 1035's response codes: NXDOMAIN, REFUSED, and all others.
  private static func errno(_ code: UInt8) -> Int32 {
    switch code {
    case 3: ENOENT
    case 5: EACCES
    default: EIO
    }
  }

  /// Whether a server of NFS 4 answers there.
  func probe(_ address: IPAddress) throws(MountFailure) {
    let endpoint = IPEndpoint(address, server.port)
    func problem(_ reason: String) -> MountFailure { MountFailure("the server \(endpoint): \(reason)", isFinal: false) }
    do throws(SystemError) {
      let target = SocketAddress.ip(endpoint)
      let socket = try makeSocket(target.family, .stream)
      let end = monotonicNanoseconds() + UInt64(Self.probeMilliseconds) * 1_000_000
      func left() -> Int32 {
        let now = monotonicNanoseconds()
        return now < end ? Int32((end - now) / 1_000_000 + 1) : 0
      }
      if try connectStream(socket.rawValue, target) == .inProgress {
        guard waitWritable(socket.rawValue, milliseconds: left()) else {
          throw SystemError("connect", endpoint.description, errno: ETIMEDOUT)
        }
        let code = socketError(socket.rawValue)
        guard code == 0 else { throw SystemError("connect", endpoint.description, errno: code) }
      }
      let id = randomBytes(4).reduce(0) { $0 << 8 | UInt32($1) }
      if case .failed(let code) = NullCall.call(id: id).withUnsafeBytes({ sendBytes(socket.rawValue, $0) }) {
        throw SystemError("send", endpoint.description, errno: code)
      }
      var got: [UInt8] = []
      while true {
        guard waitReadable(socket.rawValue, milliseconds: left()) else {
          throw SystemError("read", endpoint.description, errno: ETIMEDOUT)
        }
        let (result, bytes) = readChunk(socket.rawValue, limit: 256)
        switch result {
        case .wouldBlock: continue
        case .failed(let code): throw SystemError("read", endpoint.description, errno: code)
        case .bytes(0): throw SystemError("read", endpoint.description, errno: ECONNRESET)
        case .bytes: got += bytes
        }
        switch NullCall.reply(got, to: id) {
        case .incomplete: continue
        case .served: return
        case .other(let reason): throw SystemError(reason, errno: EPROTO)
        }
      }
    } catch {
      switch error.errno {
      case EPROTO: throw problem(error.call)
      case ETIMEDOUT: throw problem("no answer")
      case EHOSTUNREACH, EACCES:
        throw problem("\(SystemError.text(of: error.errno)): no way leads there, or it is not allowed ([egress])")
      // With network.connect = "early" the connection is made inside first, and reset when the host could not make it.
      case ECONNRESET: throw problem("the connection is reset: nobody listens there, or it is not allowed ([egress])")
      default: throw problem(SystemError.text(of: error.errno))
      }
    }
  }
}
