import Testing

@testable import EnclaveConfig

/// What an image says of its program's rights: a word that was misread would be a right that nobody gave.
struct ProgramRightsTests {
  private func rights(_ text: String) throws -> ProgramRights {
    try Configuration(toml: "[program]\n" + text, file: "f").program.rights
  }

  @Test func defaults() throws {
    let rights = try rights("")
    #expect(rights == ProgramRights())
    #expect(rights.capabilities == nil && rights.filter == .standard && !rights.newPrivileges && !rights.vsock)
    #expect(ProgramRights.containers.nonzeroBitCount == 14 && ProgramRights.containers == 0xa804_25fb)
    #expect(ProgramRights.names.count == 41 && ProgramRights.bit("CHECKPOINT_RESTORE") == 1 << 40)
  }

  @Test func everyKey() throws {
    let rights = try rights(
      """
      capabilities = ["CAP_NET_ADMIN", "NET_RAW"]
      seccomp = "none"
      new_privileges = true
      vsock = true
      read_only_root = true
      limits = { nofile = "1024:4096", core = "0", memlock = "unlimited" }
      """)
    #expect(rights.capabilities == 1 << 12 | 1 << 13)
    #expect(rights.filter == .none && rights.newPrivileges && rights.vsock && rights.readOnlyRoot)
    #expect(rights.limits.map(\.name) == ["core", "memlock", "nofile"])
    #expect(rights.limits.map(\.resource) == [4, 8, 7])
    #expect(rights.limits.map(\.soft) == [0, .max, 1024] && rights.limits.map(\.hard) == [0, .max, 4096])
    #expect(try self.rights("capabilities = []").capabilities == 0)
  }

  @Test func mistakes() {
    for (text, sentence) in [
      ("capabilities = [\"ALL\"]", "found \"ALL\", expected names of capabilities(7) such as \"CAP_NET_ADMIN\""),
      ("capabilities = [\"cap_net_admin\"]", "expected names of capabilities(7)"),
      ("capabilities = \"NET_RAW\"", "expected an array of strings"),
      ("seccomp = \"off\"", "found \"off\", expected \"default\" or \"none\""),
      ("new_privileges = 1", "expected true or false"), ("vsock = \"true\"", "expected true or false"),
      ("limits = { files = \"1\" }", "found \"files\", expected one of cpu, fsize"),
      ("limits = { nofile = \"-1\" }", "found \"-1\", expected a number"),
      ("limits = { nofile = \"2:1\" }", "soft not above hard"),
      ("limits = { nofile = \"18446744073709551615\" }", "expected a number"),
    ] {
      do {
        _ = try rights(text)
        Issue.record("\(text) was taken")
      } catch {
        #expect("\(error)".contains(sentence), "\(error)")
        #expect("\(error)".hasPrefix("f:2"), "\(error)")
      }
    }
  }
}
