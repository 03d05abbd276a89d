import Allowlist
import Inet
import Policy

/// The allowlist of AWS's vsock-proxy: what is taken is a list of names and addresses with ports, and nothing else.
let allowlist = Harness("allowlist", limit: 4096) { bytes in
  guard let list = try? Allowlist(yaml: String(decoding: bytes, as: UTF8.self)) else { return }
  for service in list.services {
    check(service.port > 0 && list.allows(service), "\(service)")
    check(ForwardHost(service.host.description) == service.host, "\(service)")
  }
}

/// Forwards as the proxy is told of them.
let forwards = Harness("forwards", limit: 1024) { bytes in
  guard let read = StaticForward.decode(bytes) else { return }
  check(read.flatMap(\.encoded) == Array(bytes), "\(read)")
}
