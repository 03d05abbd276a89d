import Testing

@testable import EnclaveConfig

/// What an image says of its file systems: a word that was misread would be data in the wrong place, or on the wrong server.
struct MountSettingsTests {
  private func mounts(_ text: String, _ rest: String = "") throws -> [MountSettings] {
    let configuration = try Configuration(toml: rest + text, file: "f")
    if let defect = configuration.defect { throw ConfigurationError(file: "f", problem: defect) }
    return configuration.mounts
  }

  private func mount(_ text: String) throws -> MountSettings { try #require(try mounts("[[mount]]\n" + text).first) }

  @Test func defaults() throws {
    let nfs = try mount("type = \"nfs\"\nsource = \"nfs.test:/vol\"\ntarget = \"/srv//data/\"")
    #expect(nfs.target == "/srv/data" && nfs.source == "nfs.test:/vol" && nfs.isRequired && nfs.after == [])
    #expect(nfs.timeout == .seconds(90) && nfs.unmountTimeout == .seconds(10))
    #expect(nfs.options.flagWords == ["nosuid", "nodev"] && nfs.options.data == ["noresvport"])
    #expect(nfs.options.versions == ["4.2", "4.1"] && nfs.options.port == 2049)
    let tmpfs = try mount("type = \"tmpfs\"\ntarget = \"/t\"\nrequired = false")
    #expect(tmpfs.timeout == nil && !tmpfs.isRequired && tmpfs.options.flags == 6)
    #expect(try mounts("") == [])
  }

  @Test func everyKey() throws {
    let nfs = try mount(
      """
      type = "nfs4"
      source = "[fd09::2]:/"
      target = "/data"
      options = ["ro", "exec", "suid", "dev", "noatime", "vers=4.1", "nconnect=4", "sec=sys", "port=20490", "_netdev"]
      required = false
      timeout = "5m"
      unmount_timeout = "2s"
      """)
    #expect(nfs.source == "[fd09::2]:/" && nfs.options.flagWords == ["ro", "noatime"])
    #expect(nfs.options.versions == ["4.1"] && nfs.options.port == 20490)
    #expect(nfs.options.data == ["nconnect=4", "sec=sys", "noresvport"])
    #expect(nfs.timeout == .seconds(300) && nfs.unmountTimeout == .seconds(2) && !nfs.isRequired)
    #expect(try mount("type = \"nfs\"\nsource = \"a:/\"\ntarget = \"/d\"\ntimeout = \"forever\"").timeout == nil)
    let overlay = try mount(
      "type = \"overlay\"\ntarget = \"/o\"\noptions = [\"lowerdir=/a:/b\", \"upperdir=/c\", \"workdir=/d\"]")
    #expect(overlay.options.layers == ["/a", "/b", "/c", "/d"])
    #expect(overlay.options.description == "nosuid,nodev,lowerdir=/a:/b,upperdir=/c,workdir=/d")
  }

  /// Around its target, what it is made of, and what `after` names come first, in whatever order they are written.
  @Test func order() throws {
    let text = """
      [[mount]]
      type = "bind"
      source = "/data/shop"
      target = "/srv"
      [[mount]]
      type = "tmpfs"
      target = "/data/cache"
      [[mount]]
      type = "tmpfs"
      target = "/scratch"
      after = ["/srv"]
      [[mount]]
      type = "tmpfs"
      target = "/datax"
      [[mount]]
      type = "nfs"
      source = "nfs.test:/vol"
      target = "/data"
      """
    let mounts = try mounts(text)
    #expect(mounts.local.map(\.target) == ["/datax"])
    #expect(mounts.volumes.map(\.target) == ["/data", "/srv", "/data/cache", "/scratch"])
    #expect(mounts.volumes.indices.map { mounts.volumes.dependencies(of: $0) } == [[], [0], [0], [1]])
  }

  @Test func mistakes() {
    let nfs = "type = \"nfs\"\nsource = \"a.test:/v\"\ntarget = \"/d\"\n"
    for (text, sentence) in [
      ("target = \"/d\"", "f:1: mount[1].type: found none, expected \"nfs\", \"tmpfs\", \"bind\" or \"overlay\""),
      ("type = \"ext4\"\ntarget = \"/d\"", "f:2: mount[1].type: found \"ext4\", expected \"nfs\""),
      ("type = \"nfs\"\ntarget = \"/d\"", "mount[1].source: found none, expected \"server:/export\""),
      ("type = \"nfs\"\nsource = \"a.test/v\"\ntarget = \"/d\"", "found \"a.test/v\", expected \"server:/export\""),
      ("type = \"nfs\"\nsource = \"fd09::2:/v\"\ntarget = \"/d\"", "an IPv6 address in brackets"),
      ("type = \"bind\"\nsource = \"a\"\ntarget = \"/d\"", "found \"a\", expected an absolute path of the enclave"),
      ("type = \"tmpfs\"\nsource = \"x\"\ntarget = \"/d\"", "type = \"tmpfs\" has no source"),
      ("type = \"tmpfs\"", "mount[1].target: found none"),
      ("type = \"tmpfs\"\ntarget = \"/\"", "found \"/\", expected an absolute path"),
      ("type = \"tmpfs\"\ntarget = \"/a/../etc\"", "found \"/a/../etc\""),
      ("type = \"tmpfs\"\ntarget = \"/proc/x\"", "not in /proc, /sys, /dev or /run/tombolo"),
      ("type = \"tmpfs\"\ntarget = \"/run/tombolo/host\"", "found \"/run/tombolo/host\""),
      (nfs + "sice = 1", "f:5: mount[1].sice: unknown key; known here: after, options"),
      (
        nfs + "options = [\"rsise=1024\"]", "found \"rsise=1024\", which is no option of a mount of type \"nfs\"; known"
      ),
      (nfs + "options = [\"rsize=1\"]", "found \"rsize=1\", expected rsize=1024…1048576"),
      (nfs + "options = [\"hard=1\"]", "found \"hard=1\", expected hard"),
      (nfs + "options = [\"vers=4.0\"]", "expected vers=4.2|4.1"),
      (nfs + "options = [\"vers=3\"]", "expected vers=4.2|4.1"),
      (nfs + "options = [\"sec=krb5p\"]", "expected sec=sys|none"),
      (nfs + "options = [\"addr=10.0.0.1\"]", "found \"addr=10.0.0.1\": the server's address is that of source"),
      (nfs + "options = [\"ro,addr=10.0.0.1\"]", "expected one option an entry, without commas"),
      (nfs + "options = [\"bg\"]", "the keys required and timeout say that"),
      (nfs + "options = [\"nofail\"]", "the key required = false says that"),
      (nfs + "options = [\"ro\", \"ro\"]", "found \"ro\" twice"),
      (nfs + "timeout = \"soon\"", "f:5: mount[1].timeout: found \"soon\", expected \"forever\" or a duration"),
      (nfs + "after = [\"/x\"]", "mount: /d: after has \"/x\", which is the target of no mount"),
      (nfs + "[[mount]]\n" + nfs, "f:8: mount[2].target: found \"/d\" a second time"),
      ("type = \"tmpfs\"\ntarget = \"/d\"\noptions = [\"size=lots\"]", "found \"size=lots\", expected size=BYTES"),
      (
        "type = \"bind\"\nsource = \"/a\"\ntarget = \"/d\"\noptions = [\"size=1\"]",
        "no option of a mount of type \"bind\""
      ),
      ("type = \"overlay\"\ntarget = \"/d\"", "found no \"lowerdir=…\""),
      ("type = \"overlay\"\ntarget = \"/d\"\noptions = [\"lowerdir=/a\", \"upperdir=/b\"]", "which belong together"),
      (
        "type = \"bind\"\nsource = \"/b/x\"\ntarget = \"/a\"\n[[mount]]\ntype = \"bind\"\nsource = \"/a/x\"\ntarget = \"/b\"",
        "these wait for each other: /a, /b"
      ),
    ] {
      #expect { try mounts("[[mount]]\n" + text) } throws: { error in
        let isRight = "\(error)".contains(sentence)
        if !isRight { Issue.record("\(text)\n\(error)") }
        return isRight
      }
    }
    #expect { try mounts("", "mount = 1\n") } throws: { "\($0)".contains("expected tables, each headed [[mount]]") }
  }

  /// What could never be reached is said before there is an enclave.
  @Test func serversThatCannotBeReached() throws {
    let nfs = "[[mount]]\ntype = \"nfs\"\nsource = \"10.9.0.2:/v\"\ntarget = \"/d\"\n"
    for (rest, sentence) in [
      ("[network]\nmode = \"none\"\n", "mount: /d is of type \"nfs\", and with network.mode = \"none\""),
      ("[egress]\nallow = [\"a.test\"]\n", "10.9.0.2 port 2049, is denied: no rule of egress.allow names it"),
      ("[egress]\ndefault = \"allow\"\ndeny = [\"10.0.0.0/8\"]\n", "is denied: egress.deny has it as \"10.0.0.0/8\""),
    ] {
      #expect { try mounts(nfs, rest) } throws: { "\($0)".contains(sentence) }
    }
    #expect(try mounts(nfs, "[egress]\nallow = [\"10.9.0.2:2049\"]\n").count == 1)
  }
}
