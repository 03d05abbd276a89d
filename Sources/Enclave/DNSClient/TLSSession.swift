import CTLS
import Inet
import Policy

/// Whose certificates count.
public final class TLSRoots {
  fileprivate let roots: OpaquePointer

  /// - Parameter pem: a bundle.
  /// - Throws: where there is none in it, or one that cannot be read.
  public init(pem: [UInt8]) throws(TLSFailure) {
    var count: Int32 = 0
    guard let opened = ctls_roots_open(pem, pem.count, &count) else {
      throw TLSFailure(
        reason: count == 0
          ? "the bundle of certificates has none" : "certificate \(count + 1) of the bundle cannot be read")
    }
    roots = opened
  }

  deinit { ctls_roots_close(roots) }
}

public struct TLSFailure: Error, CustomStringConvertible {
  public var reason: String
  public var description: String { reason }
}

/// One connection's TLS, without a socket.
final class TLSSession {
  private let session: OpaquePointer
  private let roots: TLSRoots

  /// - Parameter protocolName: for ALPN, which must agree to it.
  init(_ roots: TLSRoots, _ identity: UpstreamServer.Identity, protocolName: String?) throws(TLSFailure) {
    self.roots = roots
    let opened: OpaquePointer?
    switch identity {
    case .name(let name): opened = ctls_session_open(roots.roots, name.description, nil, 0, protocolName)
    case .address(let address):
      let bytes = address.bytes
      opened = ctls_session_open(roots.roots, nil, bytes, bytes.count, protocolName)
    }
    guard let opened else { throw TLSFailure(reason: "no TLS session can be made") }
    session = opened
  }

  deinit { ctls_session_close(session) }

  private var failure: TLSFailure { TLSFailure(reason: String(cString: ctls_reason(session))) }

  func feed(_ bytes: [UInt8]) throws(TLSFailure) {
    guard ctls_feed(session, bytes, bytes.count) else { throw TLSFailure(reason: "no memory is left") }
  }

  /// What is to be sent to the server.
  func drain() -> [UInt8] {
    var bytes: [UInt8] = []
    withUnsafeTemporaryAllocation(byteCount: 16384, alignment: 1) { buffer in
      let start = buffer.baseAddress?.assumingMemoryBound(to: UInt8.self)
      while true {
        let count = ctls_drain(session, start, buffer.count)
        if count == 0 { return }
        bytes += buffer[..<count]
      }
    }
    return bytes
  }

  /// - Returns: whether it is done.
  func handshake() throws(TLSFailure) -> Bool {
    switch ctls_handshake(session) {
    case CTLS_DONE: return true
    case CTLS_WAITING: return false
    default: throw failure
    }
  }

  /// - Returns: what has been read, and whether the server has ended the connection in order.
  func read() throws(TLSFailure) -> (bytes: [UInt8], ended: Bool) {
    var bytes: [UInt8] = []
    // One record at most.
    var chunk = [UInt8](repeating: 0, count: 16384)
    while true {
      let count = ctls_read(session, &chunk, chunk.count)
      switch count {
      case 1...: bytes += chunk[..<count]
      case 0: return (bytes, false)
      case -2: return (bytes, true)
      default: throw failure
      }
    }
  }

  func write(_ bytes: [UInt8]) throws(TLSFailure) {
    guard ctls_write(session, bytes, bytes.count) else { throw failure }
  }
}
