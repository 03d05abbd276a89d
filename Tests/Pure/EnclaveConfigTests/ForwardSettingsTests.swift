import EnclaveConfig
import Inet
import Policy
import Testing

/// `[[forward]]`: what is not meant must be said, with its line, and not carried.
struct ForwardSettingsTests {
  private func error(_ text: String) -> String? {
    do throws(ConfigurationError) {
      let made = try Configuration(toml: text, file: "f")
      return made.defect
    } catch {
      return "\(error)"
    }
  }

  @Test func everyKey() throws {
    let configuration = try Configuration(
      toml: """
        [[forward]]
        listen = "127.0.0.2:443"
        vsock_port = 8000
        host_name = "kms.eu-west-1.amazonaws.com"

        [[forward]]
        listen = "[::1]:80"
        vsock_port = 1200
        kind = "salmon"
        destination = "93.184.216.34:443"

        [[forward]]
        vsock_listen = 5000
        connect = "127.0.0.1:5432"
        kind = "salmon"
        """, file: "f")
    #expect(
      configuration.forwards == [
        StaticForward(.out(listen: IPEndpoint(.v4(IPv4Address(127, 0, 0, 2)), 443)), vsockPort: 8000),
        StaticForward(
          .out(listen: IPEndpoint(.v6(.loopback), 80)), vsockPort: 1200, header: [0x22, 0xd8, 0xb8, 0x5d, 0xbb, 0x01]),
        StaticForward(.incoming(connect: IPEndpoint(.v4(.loopback), 5432)), vsockPort: 5000),
      ])
    #expect(configuration.resolver.hostsLines == "127.0.0.2 kms.eu-west-1.amazonaws.com\n")
    #expect(configuration.defect == nil && configuration.hasProxy)
    #expect(configuration.policyLines.contains("forward 127.0.0.2:443 8000"))
    #expect(configuration.policyLines.contains("forward [::1]:80 1200 salmon 93.184.216.34:443"))
    #expect(configuration.policyLines.contains("forward-in 5000 127.0.0.1:5432"))
  }

  /// Two ports of one name are two forwards of one address.
  @Test func aNameMayHaveSeveralPorts() throws {
    let two = [443, 80].map {
      "[[forward]]\nlisten = \"127.0.0.2:\($0)\"\nvsock_port = \($0)\nhost_name = \"a.test\"\n"
    }
    let configuration = try Configuration(toml: two.joined(), file: "f")
    #expect(configuration.forwards.count == 2 && configuration.resolver.hostsLines == "127.0.0.2 a.test\n")
  }

  @Test func whatIsNotMeant() {
    let out = "[[forward]]\nlisten = \"127.0.0.2:443\"\nvsock_port = 8000\n"
    let incoming = "[[forward]]\nvsock_listen = 5000\nconnect = \"127.0.0.1:5432\"\n"
    for (text, sentence) in [
      (
        "[[forward]]\n",
        "f:1: forward[1].listen: expected \"listen\" and \"vsock_port\", or \"vsock_listen\" and \"connect\""
      ),
      ("[forward]\n", "f:1: forward: found a table, expected tables, each headed [[forward]]"),
      (
        "[[forward]]\nlisten = \"127.0.0.2:443\"\n",
        "f:1: forward[1].vsock_port: expected the host's port with \"listen\""
      ),
      (
        "[[forward]]\nlisten = \"10.0.0.1:443\"\nvsock_port = 1\n",
        "f:2: forward[1].listen: found \"10.0.0.1:443\", expected an address of the loopback with a port, such as \"127.0.0.2:443\""
      ),
      (out + "vsock_listen = 1\n", "f:4: forward[1].vsock_listen: found 1 beside \"listen\", expected one of the two"),
      (
        out + "connect = \"127.0.0.1:1\"\n",
        "f:4: forward[1].connect: expected \"vsock_listen\" with it, and no \"listen\""
      ),
      (out + out, "f:5: forward[2].listen: found \"127.0.0.2:443\" twice"),
      (incoming + incoming, "f:5: forward[2].vsock_listen: found 5000 twice"),
      (
        incoming + "host_name = \"a\"\n",
        "f:4: forward[1].host_name: expected \"listen\" with it, and no \"vsock_listen\""
      ),
      (
        "[[forward]]\nvsock_listen = 7766\nconnect = \"127.0.0.1:1\"\n",
        "f:2: forward[1].vsock_listen: found 7766, which is Tombolo's own port"
      ),
      (
        "[[forward]]\nvsock_listen = 1\n",
        "f:1: forward[1].connect: expected with \"vsock_listen\" where the program listens"
      ),
      (out + "kind = \"tuna\"\n", "f:4: forward[1].kind: found \"tuna\", expected \"plain\" or \"salmon\""),
      (
        out + "kind = \"salmon\"\n",
        "f:1: forward[1].destination: expected with kind = \"salmon\" where its streams are to go"
      ),
      (
        out + "destination = \"1.2.3.4:5\"\n",
        "f:4: forward[1].destination: expected kind = \"salmon\" with it: a plain stream names none"
      ),
      (
        out + "host_name = \"a b\"\n",
        "f:4: forward[1].host_name: found \"a b\", expected labels of letters, digits, \"-\" and \"_\""
      ),
      (
        "[dns.hosts]\n\"a.test\" = [\"10.0.0.1\"]\n" + out + "host_name = \"a.test\"\n",
        "f:6: forward[1].host_name: found \"a.test\", which has another address already"
      ),
      (out + "vsock_prt = 1\n", nil),
      (
        "[network]\nparent_port = 8000\n" + out,
        "forward.vsock_port: found 8000, which is Tombolo's own port (network.parent_port)"
      ),
    ] as [(String, String?)] {
      let found = error(text)
      if let sentence {
        #expect(found == sentence, "\(text)")
      } else {
        #expect(found?.hasPrefix("f:4: forward[1].vsock_prt: unknown key; known here: ") == true, "\(found ?? "")")
      }
    }
  }
}
