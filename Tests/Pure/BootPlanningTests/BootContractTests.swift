import BootPlanning
import EnclaveConfig
import Testing

/// What nitro-cli says of the program, in /cmd and /env: read wrongly, another program runs, or this one without what it was
/// given.
struct BootContractTests {
  private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

  @Test func programAndVariables() throws {
    let contract = try BootContract(
      command: bytes("/bin/sh\n-c\necho \"$A\"\n"), environment: bytes("PATH=/bin\nA=b=c\nE=\nA=again\n"))
    var program = Configuration().program
    try contract.apply(to: &program)
    #expect(program.command == ["/bin/sh", "-c", "echo \"$A\""])
    #expect(program.environment == ["PATH": "/bin", "A": "b=c", "E": ""])
    #expect(contract.environment.count == 4)
  }

  @Test func theConfigurationWins() throws {
    var program = Configuration().program
    program.command = ["/own"]
    program.environment = ["A": "mine"]
    // Not even an empty one matters then.
    try BootContract(command: [], environment: bytes("A=theirs\nB=theirs")).apply(to: &program)
    #expect(program.command == ["/own"])
    #expect(program.environment == ["A": "mine", "B": "theirs"])
  }

  @Test func withoutTheFilesNothingChanges() throws {
    var program = Configuration().program
    try BootContract(command: nil, environment: nil).apply(to: &program)
    #expect(program == Configuration().program)
  }

  @Test func mistakesNameTheFile() throws {
    func mistake(_ command: String?, _ environment: String?) -> String {
      do {
        var program = Configuration().program
        try BootContract(command: command.map(bytes), environment: environment.map(bytes)).apply(to: &program)
        return ""
      } catch { return "\(error)" }
    }
    #expect(mistake("\n\n", nil) == "/cmd is empty: there is no program to start")
    #expect(mistake("/bin/sh\0", nil) == "/cmd: found a NUL byte, expected none")
    #expect(mistake("/bin/sh", "A=b\0") == "/env: found a NUL byte, expected none")
    #expect(mistake("/bin/sh", "A=b\nplain") == "/env: found \"plain\", expected KEY=VALUE")
    #expect(mistake("/bin/sh", "=b") == "/env: found \"=b\", expected KEY=VALUE")
  }

  /// Arguments are bytes, and not all are UTF-8: what is not comes through as it was.
  @Test func anyBytes() throws {
    let contract = try BootContract(
      command: bytes("/bin/e") + [0xff, 0xfe, 0x0a, 0x80], environment: [0x41, 0x3d, 0xff])
    #expect(contract.command?.count == 2)
    for _ in 0..<20_000 {
      let random = (0..<Int.random(in: 0...40)).map { _ in UInt8.random(in: 0...255) }
      _ = try? BootContract(command: random, environment: random)
    }
  }
}

/// An image whose ENTRYPOINT is tombolo-init, and whose own init is tombolo-init too: a second one would find its ports taken.
struct EntrypointTests {
  @Test func whatIsBehindItIsTheProgram() throws {
    for name in ["/tombolo-init", "tombolo-init", "/usr/sbin/tombolo-init"] {
      let found = try Entrypoint.arguments(of: [name, "--config", "/etc/a.toml", "--", "nginx", "-g", "daemon off;"])
      #expect(found?.command == ["nginx", "-g", "daemon off;"])
      #expect(found?.configurationPath == "/etc/a.toml")
    }
    #expect(try Entrypoint.arguments(of: ["/tombolo-init"])?.command == [])
  }

  @Test func everythingElseIsAProgram() throws {
    for command in [
      [], ["/bin/sh", "/tombolo-init"], ["/my-tombolo-init"], ["/tombolo-init", "--version"],
      ["/tombolo-init", "--plan"],
      ["/tombolo-init", "proxy"],
    ] {
      #expect(try Entrypoint.arguments(of: command) == nil, "\(command)")
    }
    #expect(throws: InitArguments.Misuse(description: "unknown option --nonsense; see tombolo-init --help")) {
      try Entrypoint.arguments(of: ["/tombolo-init", "--nonsense"])
    }
  }

  @Test func whatItsConfigurationDoesNotSayStays() {
    var known = Configuration().program
    known.environment = ["A": "known", "B": "known"]
    known.user = "www-data"
    known.workingDirectory = "/srv"
    var program = Configuration().program
    program.environment = ["A": "own"]
    program.user = "nobody"
    Entrypoint.complete(&program, with: known)
    #expect(program.environment == ["A": "own", "B": "known"])
    #expect(program.user == "nobody" && program.workingDirectory == "/srv")
  }
}
