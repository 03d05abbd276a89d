import EnclaveConfig
import Testing

/// `ingress.ports` with what is said of a port: a program that expects a PROXY header and gets none serves nobody.
struct IngressPortsTests {
  private func error(_ text: String) -> String? {
    do throws(ConfigurationError) {
      return try Configuration(toml: text, file: "f").defect
    } catch {
      return "\(error)"
    }
  }

  @Test func numbersAndTables() throws {
    let ports = """
      [443, { port = 8443, proxy_protocol = "v2" }, { port = 80, proxy_protocol = "v1" }, { port = 81 }]
      """
    var configuration = try Configuration(toml: "[ingress]\nports = " + ports, file: "f")
    #expect(configuration.ingressPorts == [80, 81, 443, 8443])
    #expect(configuration.proxyProtocols.map { "\($0.port) \($0.version)" } == ["8443 v2", "80 v1"])
    // What a command line publishes keeps it.
    try configuration.apply(toml: "[ingress]\nports = [8443, 9000]", file: "command line")
    #expect(configuration.ingressPorts == [80, 81, 443, 8443, 9000] && configuration.proxyProtocols.count == 2)
  }

  @Test func whatIsNotMeant() {
    for (text, sentence) in [
      ("[{ prt = 1 }]", "f:2: ingress.ports[1].port: expected a number from 1 to 65535"),
      ("[{ port = 0 }]", "f:2: ingress.ports[1].port: found 0, expected a number from 1 to 65535"),
      (
        "[{ port = 1, proxy_protocol = \"v3\" }]",
        "f:2: ingress.ports[1].proxy_protocol: found \"v3\", expected \"v1\" or \"v2\""
      ),
      ("[{ port = 1, x = 1 }]", "f:2: ingress.ports[1].x: unknown key; known here: port, proxy_protocol"),
      (
        "[{ port = 1, proxy_protocol = \"v1\" }, { port = 1, proxy_protocol = \"v2\" }]",
        "f:2: ingress.ports[2].proxy_protocol: found both versions for port 1"
      ),
      (
        "[{ port = 1, proxy_protocol = \"v1\" }]\n[network]\nmode = \"raw\"",
        "ingress.ports: found proxy_protocol for port 1, which raw mode cannot speak: there the program has the client's own address"
      ),
      (
        "[]\n[network]\nmode = \"raw\"\ndrain = \"10s\"",
        "network.drain: found 10.0 seconds, expected \"0s\" or nothing: in raw mode the program's connections are its own"
      ),
    ] { #expect(error("[ingress]\nports = " + text) == sentence, "\(text)") }
  }
}
