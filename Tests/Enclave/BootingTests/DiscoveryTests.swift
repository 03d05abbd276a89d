import BootPlanning
import Digests
import EnclaveConfig
import LinuxSystem
import Testing

@testable import Booting

/// What a start reads before it does anything: another program's command line or variables would be another enclave.
@Suite(.serialized) struct DiscoveryTests {
  private func inDirectory(_ body: (String) throws -> Void) throws {
    let directory = try makeTemporaryDirectory("/tmp/tombolo-discovery-")
    defer { removeTree(directory) }
    try body(directory)
  }

  private func document(
    rootfs: String?, configuration: (name: String, text: String)? = nil, overrides: String = ""
  ) -> LocalDocument.Content {
    LocalDocument.Content(
      local: LocalEnclave(
        rootfs: rootfs, stage: "/s", transport: "/t", pieces: [], hasUserNamespace: false, nameServer: "192.0.2.1"),
      configuration: configuration, overrides: overrides, passesInput: false, defaultDirectory: nil)
  }

  /// The image's own file, although its root is not the root yet; links in it lead nowhere else.
  @Test func aLocalEnclavesConfigurationIsItsImages() throws {
    try inDirectory { directory in
      try makeDirectories(directory + "/etc")
      try writeFile(directory + "/real.toml", "hostname = \"image\"\n[program]\ncommand = [\"/image\"]\n")
      try makeSymbolicLink(directory + "/etc/tombolo.toml", to: "/real.toml")
      let facts = try Discovery.outline(.child, InitArguments(), document(rootfs: directory))
      #expect(facts.configuration.hostname == "image")
      #expect(facts.kind == .local(document(rootfs: directory).local))
      // What the command line says goes over it.
      let over = try Discovery.outline(
        .child, InitArguments(), document(rootfs: directory, overrides: "[program]\ncommand = [\"/own\"]"))
      #expect(over.configuration.hostname == "image" && over.configuration.program.command == ["/own"])
      // A file that was named takes its place.
      let named = try Discovery.outline(
        .child, InitArguments(), document(rootfs: directory, configuration: ("n", "hostname = \"named\"")))
      #expect(named.configuration.hostname == "named" && named.configuration.program.command.isEmpty)
    }
  }

  @Test func onlyTheDefaultFileMayBeAbsent() throws {
    try inDirectory { directory in
      let facts = try Discovery.outline(.child, InitArguments(), document(rootfs: directory))
      #expect(facts.configuration == Configuration())
      let named = try InitArguments(["--config", directory + "/none.toml"])
      #expect { try Discovery.outline(.child, named, nil) } throws: {
        "\($0)" == "open \(directory)/none.toml: No such file or directory (ENOENT)"
      }
      try writeFile(directory + "/bad.toml", [UInt8(0xff)])
      #expect { try Discovery.outline(.child, InitArguments(["--config", directory + "/bad.toml"]), nil) } throws: {
        "\($0)" == "\(directory)/bad.toml:1: not TOML: found bytes that are not UTF-8"
      }
    }
  }

  /// tombolo-init as the program of a kernel's init: what it would do is done by ours, as its own configuration says.
  @Test func anEntrypointIsUnwrapped() throws {
    try inDirectory { directory in
      let inner = directory + "/inner.toml"
      try writeFile(inner, "hostname = \"inner\"\n[program]\nuser = \"nobody\"\n[program.env]\nA = \"inner\"\n")
      try writeFile(
        directory + "/outer.toml",
        """
        hostname = "outer"
        [program]
        command = ["/tombolo-init", "--config", "\(inner)", "--", "/bin/server", "-v"]
        env = { A = "outer", B = "outer" }
        working_directory = "/srv"
        """)
      let arguments = try InitArguments(["--config", directory + "/outer.toml"])
      for kind in [InitArguments.PlanKind.kernel, .kernelWithoutRootfs] {
        let program = try Discovery.outline(kind, arguments, nil).configuration
        #expect(program.hostname == "inner" && program.program.command == ["/bin/server", "-v"])
        #expect(program.program.environment == ["A": "inner", "B": "outer"])
        #expect(program.program.user == "nobody" && program.program.workingDirectory == "/srv")
      }
      // Under another init the program is what it is.
      #expect(try Discovery.outline(.child, arguments, nil).configuration.program.command.first == "/tombolo-init")
    }
  }

  /// The digest that the host is told says which texts an enclave was configured with, and in which order.
  @Test func theDigestIsOfTheTexts() throws {
    try inDirectory { directory in
      let path = directory + "/a.toml"
      try writeFile(path, "hostname = \"a\"\n")
      func digest(_ words: [String]) throws -> [UInt8] {
        try ConfigurationReading(InitArguments(["--config", path] + words), nil, root: "").digest.bytes
      }
      let one = try digest(["--", "ab", "c"])
      #expect(try digest(["--", "ab", "c"]) == one && one.count == 48)
      #expect(try digest(["--", "a", "bc"]) != one)
      #expect(try digest(["--", "c", "ab"]) != one)
      try writeFile(path, "hostname = \"b\"\n")
      #expect(try digest(["--", "ab", "c"]) != one)
    }
  }
}
