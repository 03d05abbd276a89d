import Inet
import TLS

/// The first bytes of a connection for which `egress.sni` looks at names.
let clientHello = Harness("client-hello", limit: 4096) { bytes in
  func read(_ count: Int) -> ClientHello.Reading {
    bytes.withUnsafeBytes { ClientHello.read(.init(rebasing: $0[..<count])) }
  }
  let whole = read(bytes.count)
  // What has been decided stays so, however the bytes were cut.
  var first = ClientHello.Reading.incomplete
  for count in stride(from: 0, to: bytes.count, by: max(1, bytes.count / 16)) {
    let part = read(count)
    check(first == .incomplete || part == first, "more bytes change \(first) to \(part)")
    first = part
  }
  check(first == .incomplete || whole == first, "more bytes change \(first) to \(whole)")
  if case .hello(let hello) = whole {
    check(hello.length <= bytes.count, "a ClientHello that is longer than what came")
    if let name = hello.serverName { check(!name.labels.isEmpty, "an empty name") }
  }
}
