import EnclaveConfig
import Testing

/// What programs get of the security module is what the measured configuration says, and a mistake in it is found by its key.
struct AttestationSettingsTests {
  private func read(_ text: String) throws -> Configuration { try Configuration(toml: text, file: "t") }

  @Test func everyKey() throws {
    let settings = try read(
      """
      [attestation]
      callers = ["root", "1000"]
      device = "ne"
      pcrs = [17, 31]
      rate = 7
      runtime = ["addresses", "variables"]
      runtime_pcr = 18
      without_module = "simulate"
      """
    ).attestation
    #expect(settings.isWanted && settings.callers == ["root", "1000"] && settings.device == .group("ne"))
    #expect(settings.registers == [17, 31] && settings.rate == 7 && settings.runtime == [.addresses, .variables])
    #expect(settings.runtimeRegister == 18 && settings.missing == .simulate)
    #expect(try read("[attestation]\nlisten = [1300, 9999]").attestation.ports == [1300, 9999])
    #expect(try read("[attestation]\ndocument = \"/run//app/a.cbor\"").attestation.document == "/run/app/a.cbor")
    let variables = try read("[attestation]\nruntime = [\"variables\"]")
    #expect(variables.takesVariables && !variables.takesArguments)
    #expect(try !read("[attestation]").takesVariables)
    #expect(try !read("").needsAttestation && read("[attestation]").needsAttestation)
  }

  @Test func keys() throws {
    let keys = try read(
      """
      [[attestation.key]]
      name = "app.1"
      type = "p384"
      [[attestation.key]]
      name = "b"
      type = "secp256k1"
      user = "www-data:ne"
      public_key = "raw"
      """
    ).attestation.keys
    #expect(keys.map(\.name) == ["app.1", "b"] && keys.map(\.kind) == [.p384, .secp256k1])
    #expect(keys.map(\.user) == [nil, "www-data:ne"] && keys.map(\.publicForm) == [.der, .raw])
    #expect(try read("[[attestation.key]]\nname = \"a\"\ntype = \"p256\"").needsAttestation)
  }

  @Test(arguments: [
    ("type = \"p256\"", "key[1].name: found none, expected 1 to 64"),
    ("name = \"a\"", "key[1].type: found none, expected one of \"ed25519\""),
    ("name = \"a\"\ntype = \"rsa\"", "key[1].type: found \"rsa\", expected one of"),
    ("name = \"../a\"\ntype = \"p256\"", "key[1].name: found \"../a\""),
    ("name = \".a\"\ntype = \"p256\"", "key[1].name: found \".a\""),
    (
      "name = \"a\"\ntype = \"p256\"\npublic_key = \"pem\"",
      "key[1].public_key: found \"pem\", expected \"der\" or \"raw\""
    ),
    ("name = \"a\"\ntype = \"p256\"\nuser = \"\"", "key[1].user: found \"\""),
    ("name = \"a\"\ntype = \"p256\"\nfile = \"/a\"", "key[1].file: unknown key"),
    (
      "name = \"a\"\ntype = \"p256\"\n[[attestation.key]]\nname = \"a\"\ntype = \"p384\"",
      "key[2].name: found \"a\" twice"
    ),
  ]) func mistakesInKeys(text: String, sentence: String) {
    do {
      _ = try read("[[attestation.key]]\n" + text)
      Issue.record("\(text) is taken")
    } catch { #expect("\(error)".contains("attestation." + sentence), "\(error)") }
  }

  @Test(arguments: [
    ("listen = [0]", "listen: found"), ("listen = [1, 1]", "listen: found 2 ports"),
    ("callers = []", "callers: expected \"all\""), ("callers = \"some\"", "callers: found \"some\""),
    ("callers = [\"root\"]\nlisten = [1]", "listen: found ports together with"), ("pcrs = [15]", "pcrs: found"),
    ("pcrs = [16]", "pcrs: found 16, which is attestation.runtime_pcr"),
    ("pcrs = [17, 17]", "pcrs: found a number twice"),
    ("runtime = [\"files\"]", "runtime: found \"files\", expected \"addresses\""),
    ("runtime = \"all\"", "runtime: found \"all\", expected \"none\" or"),
    ("runtime_pcr = 15", "runtime_pcr: found 15"),
    ("document = \"run/a\"", "document: found \"run/a\", expected an absolute path below /run"),
    ("document = \"/tmp/a\"", "document: found"), ("document = \"/run/tombolo/a\"", "document: found"),
    ("document = \"/run/../a\"", "document: found"), ("document = \"/run/a/\"", "document: found"),
    ("device = \"\"", "device: found \"\""), ("rate = 0", "rate: found 0"), ("port = 1", "port: unknown key"),
  ]) func mistakes(text: String, sentence: String) {
    do {
      _ = try read("[attestation]\n" + text)
      Issue.record("\(text) is taken")
    } catch { #expect("\(error)".contains("attestation." + sentence), "\(error)") }
  }

  /// Whoever can make the node anew has the device; what the host may give must be said.
  @Test func whatDoesNotGoTogether() throws {
    #expect(try read("[attestation]\n[program]\ncapabilities = [\"MKNOD\"]").defect?.contains("MKNOD") == true)
    #expect(try read("[attestation]\ndevice = \"open\"\n[program]\ncapabilities = [\"MKNOD\"]").defect == nil)
    #expect(try read("[attestation]").program.rights.bounding(isLocal: false) & ProgramRights.mknod == 0)
    #expect(try read("").program.rights.bounding(isLocal: false) & ProgramRights.mknod != 0)
    let raw = "[network]\nmode = \"raw\"\naddress = \"host\"\n[attestation]\n"
    #expect(try read(raw).defect?.hasPrefix("attestation.runtime: the host gives") == true)
    #expect(try read(raw + "runtime = [\"addresses\"]").defect == nil)
  }
}
