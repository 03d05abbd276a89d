import Inet
import Policy

extension Configuration {
  /// Whether the enclave asks name servers itself.
  public var needsDNSClient: Bool { networkMode != .none && !resolver.names.upstreams.isEmpty }

  /// Whether every query of the program reaches the proxy. In raw mode it asks the host's side itself otherwise.
  public var queriesReachProxy: Bool {
    switch networkMode {
    case .tcp: true
    case .raw: egress.needsNames || needsDNSClient
    case .none: false
    }
  }

  /// Why what its keys say cannot go together; nil where it can.
  public var defect: String? {
    if let defect = attestationDefect ?? forwardDefect ?? portDefect ?? drainDefect { return defect }
    let names = resolver.names
    if let file = names.certificateFile, !names.upstreams.contains(where: \.isAuthenticated) {
      return "dns.ca_file: found \"\(file)\", expected a server in dns.upstream that has a certificate"
    }
    if let defect = mountDefect { return defect }
    guard networkMode != .none else { return nil }
    let destinations = Destinations(egress.rules)
    for server in names.upstreams {
      if case .rule(let rule)? = destinations.denial(of: server.endpoint.address, port: server.endpoint.port)?.reason {
        return "dns.upstream: found \"\(server)\", which egress.deny has as \"\(rule)\""
      }
    }
    return nil
  }
}
