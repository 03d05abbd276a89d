import Inet
import Wire

/// PROXY headers of load balancers: a header that is read lies within what came, and the same one is read whatever follows it.
let proxyHeader = Harness("proxy-header", limit: 4200) { bytes in
  guard case .header(let source, let length) = ProxyHeader.read(bytes) else { return }
  check(length > 0 && length <= bytes.count, "\(length) of \(bytes.count)")
  check(ProxyHeader.read(Array(bytes[..<length])) == .header(source: source, length: length), "depends on what follows")
  for version in ProxyProtocol.allCases {
    let written = ProxyHeader.encode(version, source: source, port: 80)
    check(ProxyHeader.read(written) == .header(source: source, length: written.count), "\(version)")
  }
}
