/// The version of the PROXY protocol that a program is spoken to in.
public enum ProxyVersion: String, CaseIterable, Sendable { case v1, v2 }

/// `{ port = 8443, proxy_protocol = "v2" }` of `ingress.ports`.
struct PortSetting: Equatable, Sendable {
  var port: UInt16
  var version: ProxyVersion
}

extension Configuration {
  private static let ports = 1...65535

  /// Numbers, and tables with what else is said of a port.
  mutating func readPorts(_ table: inout TableReader) throws(ConfigurationError) {
    var found: [UInt16] = []
    var settings: [PortSetting] = []
    try table.elements("ports", "an array of numbers from 1 to 65535") {
      (element) throws(ConfigurationError) in
      switch element {
      case .integer(let number):
        guard Self.ports.contains(number) else { return false }
        found.append(UInt16(number))
      case .table(var reader):
        guard let port = try reader.integer("port", in: Self.ports) else {
          throw reader.error("port", "expected a number from 1 to 65535")
        }
        found.append(UInt16(port))
        if let version = try reader.value("proxy_protocol", "\"v1\" or \"v2\"", { ProxyVersion(rawValue: $0) }) {
          if settings.contains(where: { $0.port == UInt16(port) && $0.version != version }) {
            throw reader.error("proxy_protocol", "found both versions for port \(port)")
          }
          settings.append(PortSetting(port: UInt16(port), version: version))
        }
        try reader.finish()
      }
      return true
    }
    ingressPorts = Array(Set(ingressPorts + found)).sorted()
    for setting in settings where !portSettings.contains(where: { $0.port == setting.port }) {
      portSettings.append(setting)
    }
  }

  /// In raw mode the kernel passes clients on, and nobody is there to say a word before them.
  var portDefect: String? {
    guard networkMode == .raw, let first = portSettings.first else { return nil }
    return
      "ingress.ports: found proxy_protocol for port \(first.port), which raw mode cannot speak: there the program has the"
      + " client's own address"
  }

  /// There the kernel passes connections on, and nobody knows which are open.
  var drainDefect: String? {
    guard networkMode == .raw, drain > .zero else { return nil }
    return
      "network.drain: found \(drain), expected \"0s\" or nothing: in raw mode the program's connections are its own"
  }
}
