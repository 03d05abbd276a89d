import ArgumentParser
import HostGateway
import Inet

/// What every host side can be told about the network, in `run`, `host` and `boot` alike.
struct GatewayOptions: ParsableArguments {
  @Option(
    name: .customShort("p"),
    help: ArgumentHelp(
      "Publish a port of the program on this machine; clients are refused while nothing listens on it inside.",
      valueName: "[addr:]hostport:enclaveport"))
  var publish: [String] = []
  @Option(help: "The name server to ask (default: this machine's /etc/resolv.conf).")
  var dns: String?

  /// - Throws: a sentence with what was found and what was expected.
  func published() throws -> [PublishedPort] {
    try publish.map { text in
      guard let port = PublishedPort(text) else {
        throw Misuse("-p: found \"\(text)\", expected [ADDR:]HOSTPORT:ENCLAVEPORT such as 127.0.0.1:8080:80")
      }
      return port
    }
  }

  func nameServer() throws -> IPAddress? {
    try dns.map { text in
      guard let address = IPAddress(text) else { throw Misuse("--dns: found \"\(text)\", expected an IP address") }
      return address
    }
  }
}
