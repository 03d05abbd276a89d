import DNS

/// resolv.conf: what it gives is within its limits, and can be written to another one.
let resolvConf = Harness("resolv-conf") { bytes in
  let made = ResolverConfiguration(resolvConf: String(decoding: bytes, as: UTF8.self))
  check((1...3).contains(made.servers.count), "\(made)")
  check((1...30).contains(made.timeout) && (1...5).contains(made.attempts), "\(made)")
  check((made.search + made.options).allSatisfy { $0.utf8.allSatisfy { (0x21...0x7e).contains($0) } }, "\(made)")
}
