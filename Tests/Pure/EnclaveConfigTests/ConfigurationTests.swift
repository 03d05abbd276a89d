import EnclaveConfig
import Foundation
import Inet
import Policy
import Testing

struct ConfigurationTests {
  /// Every key of docs/configuration.md.
  static let full = """
    hostname = "payments-1"
    [program]
    command = ["/usr/bin/server", "--port", "8080"]
    env = { KEY = "value", EMPTY = "" }
    user = "www-data:adm"
    working_directory = "/srv"
    stop_signal = "SIGQUIT"
    stop_timeout = "1500ms"
    shared_memory = "256MiB"
    [network]
    mode = "none"
    connect = "true"
    firewall = "xtables"
    transport = "unix:/run/x"
    parent_cid = 2
    parent_port = 7767
    [boot]
    heartbeat = "never"
    heartbeat_timeout = "3s"
    host_timeout = "4s"
    at_end = "poweroff"
    [ingress]
    ports = [8080, 443, 8080]
    [egress]
    allow = ["169.254.169.254:80", "[fd00:ec2::]/32"]
    [logs]
    buffer = "1MiB"
    patience = "0s"
    drain = "forever"
    level = "error"
    """

  @Test func readsEveryKey() throws {
    let configuration = try Configuration(toml: Self.full, file: "t")
    #expect(configuration.hostname == "payments-1")
    #expect(configuration.program.command == ["/usr/bin/server", "--port", "8080"])
    #expect(configuration.program.environment == ["KEY": "value", "EMPTY": ""])
    #expect(configuration.program.user == "www-data:adm")
    #expect(configuration.program.sharedMemory == 256 << 20)
    #expect(configuration.program.workingDirectory == "/srv")
    #expect(configuration.program.stopSignal == 3)
    #expect(configuration.program.stopTimeout == .milliseconds(1500))
    #expect(configuration.networkMode == .none)
    #expect(configuration.firewall == .xtables)
    #expect(configuration.connect == .real)
    #expect(configuration.transport == .unix("/run/x"))
    #expect(configuration.parentCID == 2)
    #expect(configuration.parentPort == 7767)
    #expect(configuration.boot.heartbeat == .never)
    #expect(configuration.boot.heartbeatTimeout == .seconds(3))
    #expect(configuration.boot.hostTimeout == .seconds(4))
    #expect(configuration.boot.end == .poweroff)
    #expect(configuration.ingressPorts == [443, 8080])
    #expect(configuration.egress.allow.map(\.description) == ["169.254.169.254:80", "fd00:ec2::/32"])
    #expect(configuration.logs.buffer == 1 << 20)
    #expect(configuration.logs.patience == .zero)
    #expect(configuration.logs.drain == nil)
    #expect(configuration.logs.level == .error)
  }

  @Test func defaults() throws {
    let configuration = try Configuration(toml: "", file: "t")
    #expect(configuration == Configuration())
    #expect(configuration.program.stopTimeout == .seconds(10))
    #expect(configuration.logs.buffer == 4 << 20)
  }

  /// What the command line says goes over the file; variables and ports add up.
  @Test func overrides() throws {
    var configuration = try Configuration(toml: Self.full, file: "t")
    try configuration.apply(toml: "[program]\nenv = { KEY = \"other\" }\n[ingress]\nports = [80]\n", file: "u")
    try configuration.apply(toml: "[egress]\nallow = [\"10.0.0.0/8\", \"169.254.169.254:80\"]\n", file: "u")
    #expect(
      configuration.egress.allow.map(\.description) == ["169.254.169.254:80", "fd00:ec2::/32", "10.0.0.0/8"])
    #expect(configuration.program.environment == ["KEY": "other", "EMPTY": ""])
    #expect(configuration.ingressPorts == [80, 443, 8080])
    #expect(configuration.program.user == "www-data:adm")
  }

  /// Who writes a section has named what is allowed; a command line's own rules say nothing of the rest.
  @Test func theDefaultOfEgress() throws {
    func isOpen(_ text: String, _ addition: String? = nil) throws -> Bool {
      var configuration = try Configuration(toml: text, file: "t")
      if let addition { try configuration.apply(toml: addition, file: "command line", isSystemText: true) }
      return configuration.egress.isOpen
    }
    #expect(try isOpen("") && isOpen("", "[egress]\nallow = [\"metadata\"]"))
    #expect(try !isOpen("[egress]") && !isOpen("[egress]\nallow = [\"a.test\"]", "[egress]\nallow = [\"metadata\"]"))
    #expect(try isOpen("[egress]\ndefault = \"allow\"") && !isOpen("[egress]\ndefault = \"deny\""))
  }

  /// Where names decide, QUIC is no way round them; a rule by address means the address, whatever is asked for there.
  @Test func theDefaultOfQUIC() throws {
    func action(_ text: String) throws -> EgressSettings.QUICAction {
      try Configuration(toml: text, file: "t").egress.quicAction
    }
    #expect(try action("") == .allow && action("[egress]\nallow = [\"udp://10.0.0.0/8:443\"]") == .allow)
    #expect(try action("[egress]\nallow = [\"udp://a.test:443\"]") == .check)
    #expect(try action("[egress]\ndefault = \"allow\"\ndeny = [\"a.test\"]") == .check)
    #expect(try action("[egress]\nsni = \"check\"") == .check)
    #expect(try action("[egress]\nsni = \"check\"\nquic = \"allow\"") == .allow)
    let checked = try Configuration(toml: "[egress]\nquic = \"check\"", file: "t").egress
    #expect(checked.needsNames && checked.sni.checksQUIC)
  }

  /// `quic = "deny"` is two rules that win, in the policy's lines as well.
  @Test func denyingQUIC() throws {
    let text = "[network]\nmode = \"raw\"\n[egress]\ndefault = \"allow\"\nquic = \"deny\""
    let configuration = try Configuration(toml: text, file: "t")
    let destinations = Destinations(configuration.egress.rules)
    for address in [IPAddress("10.0.0.1"), IPAddress("2606:4700::1")].compactMap({ $0 }) {
      #expect(destinations.denial(of: address, port: 443, .udp) != nil)
      #expect(destinations.denial(of: address, port: 443, .tcp) == nil)
      #expect(destinations.denial(of: address, port: 444, .udp) == nil)
    }
    #expect(
      configuration.policyLines == [
        "network raw", "default allow", "deny udp://0.0.0.0/0:443", "deny udp://[::]/0:443",
      ])
    #expect(!configuration.egress.needsNames)
  }

  /// The manual's example is one that is understood, and as it says.
  @Test func theExampleOfThePolicy() throws {
    let policy = try String(
      contentsOfFile: #filePath.components(separatedBy: "/Tests/")[0] + "/docs/policy.md", encoding: .utf8)
    let examples = policy.components(separatedBy: "```toml\n").dropFirst().map { $0.components(separatedBy: "```")[0] }
    #expect(examples.count == 3)
    let example = examples[0]
    #expect(try Configuration(toml: examples[1], file: "docs/policy.md").resolver.names.upstreams.count == 2)
    let host = try HostPolicyFile(toml: examples[2], file: "docs/policy.md")
    #expect(!host.egress.isOpen && host.egress.rules.allow.rules.count == 3 && host.egress.quicAction == .check)
    let read = try Configuration(toml: example, file: "docs/policy.md")
    #expect(read.egress.rules.allow.rules.count == 4 && read.egress.rules.deny.rules.count == 2 && !read.egress.isOpen)
    #expect(
      read.egress.sni.check == .require && read.egress.sni.ports == [443, 8443] && read.resolver.names.hold == 30)
    #expect(read.resolver.names.hosts.first?.addresses.count == 2)
    #expect(read.egress.needsNames)
    // Each key that there is: a wrong one is answered with all of them.
    for section in ["egress", "dns"] {
      let error = #expect(throws: ConfigurationError.self) { try Configuration(toml: "[\(section)]\nx = 1", file: "t") }
      let known = error?.problem.components(separatedBy: "known here: ").last?.components(separatedBy: ", ") ?? []
      #expect(known.count > 4)
      let lines = example.components(separatedBy: "\n")
      for key in known {
        #expect(lines.contains { $0.hasPrefix(key + " = ") || $0 == "[\(section).\(key)]" }, "\(section).\(key)")
      }
    }
  }

  /// A host's rules have QUIC in them as an enclave's have, with the same defaults.
  @Test func theHostsQUIC() throws {
    func egress(_ text: String) throws -> EgressSettings { try HostPolicyFile(toml: text, file: "h").egress }
    #expect(try egress("").quicAction == .allow && !egress("").sni.checksQUIC)
    #expect(try egress("[egress]\nallow = [\"a.test\"]").sni.checksQUIC)
    #expect(try !egress("[egress]\nallow = [\"a.test\"]\nquic = \"allow\"").sni.checksQUIC)
    #expect(try egress("[egress]\nallow = [\"10.0.0.1\"]\nquic = \"check\"").sni.checksQUIC)
    #expect(try egress("[egress]\ndefault = \"allow\"\nquic = \"deny\"").rules.deny.rules.count == 2)
    #expect(throws: ConfigurationError.self) { try egress("[egress]\nquic = \"off\"") }
  }

  /// A mistake that is passed over is a policy that is not enforced: each is refused with its place.
  @Test(arguments: [
    (
      "[egress]\nallow = [\"10.0.0.0/8\",\n  \"10.0.0.1/8\"]",
      "t.toml:3:3: egress.allow: found \"10.0.0.1/8\", expected 10.0.0.0/8, or 10.0.0.1 alone: there are bits behind the prefix"
    ),
    ("[egress]\nallow = \"10.0.0.0/8\"", "t.toml:2: egress.allow: found \"10.0.0.0/8\", expected an array of strings"),
    ("[egress]\nallow = [80]", "t.toml:2: egress.allow: found [80], expected an array of strings"),
    (
      "[egress]\nallow = [\"api.example.com\", \"exa mple.com\"]",
      "t.toml:2:29: egress.allow: found \"exa mple.com\", expected labels of letters, digits, \"-\" and \"_\""
    ),
    ("[egress]\ndefault = \"reject\"", "t.toml:2: egress.default: found \"reject\", expected \"allow\" or \"deny\""),
    ("[egress]\nsni = true", "t.toml:2: egress.sni: found true, expected a string"),
    (
      "[egress]\nudp = \"deny\"",
      "t.toml:2: egress.udp: unknown key; known here: allow, default, deny, quic, sni, sni_ports"
    ),
    (
      "[egress]\nquic = \"require\"",
      "t.toml:2: egress.quic: found \"require\", expected \"deny\", \"check\" or \"allow\""
    ),
    (
      "[dns]\nhold = \"500ms\"",
      "t.toml:2: dns.hold: found \"500ms\", expected a duration of whole seconds, at most \"24h\", such as \"30s\""
    ),
    (
      "[dns.hosts]\n\"a..b\" = [\"1.1.1.1\"]",
      "t.toml:2: dns.hosts.a..b: found \"a..b\", found an empty label between two dots"
    ),
    (
      "[dns.hosts]\n\"a.b\" = [\"x\"]",
      "t.toml:2:10: dns.hosts.a.b: found \"x\", expected an address such as \"10.0.0.5\" or \"fd00::5\""
    ),
    ("[dns]\nhosts = { a = [] }", "t.toml:2: dns.hosts.a: found 0 addresses, expected 1 to 64"),
    (
      "[network]\ndrain = \"soon\"",
      "t.toml:2: network.drain: found \"soon\", expected a duration such as \"10s\", \"500ms\" or \"2m\""
    ),
    ("[network]\nmode = \"tpc\"", "t.toml:2: network.mode: found \"tpc\", expected \"tcp\" or \"raw\" or \"none\""),
    (
      "\n[ingres]\nports = [1]",
      "t.toml:2: ingres: unknown key; known here: attestation, boot, dns, egress, forward, hostname, ingress, logs, mount, network, program"
    ),
    (
      "[program]\n# note\ncomand = [\"x\"]",
      "t.toml:3: program.comand: unknown key; known here: capabilities, command, env, limits, new_privileges, read_only_root, seccomp, shared_memory, stop_signal, stop_timeout, user, vsock, working_directory"
    ),
    ("[ingress]\nports = [0]", "t.toml:2: ingress.ports: found [0], expected an array of numbers from 1 to 65535"),
    ("[ingress]\nports = 80", "t.toml:2: ingress.ports: found 80, expected an array of numbers from 1 to 65535"),
    (
      "[program]\nshared_memory = \"1KiB\"",
      "t.toml:2: program.shared_memory: found \"1KiB\", expected a size from \"64KiB\" to \"1024GiB\""
    ),
    (
      "[program]\nstop_timeout = \"soon\"",
      "t.toml:2: program.stop_timeout: found \"soon\", expected a duration such as \"10s\", \"500ms\" or \"2m\""
    ),
    (
      "[program]\nstop_signal = \"SIGFOO\"",
      "t.toml:2: program.stop_signal: found \"SIGFOO\", expected a signal such as \"SIGTERM\""
    ),
    ("[program]\ncommand = []", "t.toml:2: program.command: found no program, expected at least its name"),
    ("[program]\nenv = { A = 1 }", "t.toml:2: program.env.A: found 1, expected a string without NUL bytes"),
    (
      "[program]\nworking_directory = \"srv\"",
      "t.toml:2: program.working_directory: found \"srv\", expected an absolute path"
    ),
    (
      "[program]\nuser = \":adm\"",
      "t.toml:2: program.user: found \":adm\", expected name or uid, and after a \":\" group or gid"
    ),
    ("[logs]\nbuffer = \"1KiB\"", "t.toml:2: logs.buffer: found \"1KiB\", expected a size from \"64KiB\" to \"1GiB\""),
    ("[network]\nparent_cid = 0", "t.toml:2: network.parent_cid: found 0, expected a number from 1 to 4294967294"),
    (
      "[network]\ntransport = \"unix:x\"",
      "t.toml:2: network.transport: found \"unix:x\", expected \"vsock\" or \"unix:\" and an absolute path"
    ),
    ("[boot]\nat_end = \"halt\"", "t.toml:2: boot.at_end: found \"halt\", expected \"reboot\" or \"poweroff\""),
    ("hostname = 3", "t.toml:1: hostname: found 3, expected a string"),
    (
      "hostname = \"a b\"",
      "t.toml:1: hostname: found \"a b\", expected a host name of 1 to 64 letters, digits, \"-\" and \".\""
    ),
    ("program = \"x\"", "t.toml:1: program: found \"x\", expected a table"),
    (
      "program.command = [\n\"[network]\",\n]\nnetwork.mode = 1",
      "t.toml:4: network.mode: found 1, expected a string"
    ),
    (
      "hostname = \"a\"\n\n[boot]\n\"at_end\" = 1.5",
      "t.toml:4: boot.at_end: found a floating-point number, expected a string"
    ),
  ])
  func refusals(_ text: String, _ sentence: String) {
    do {
      _ = try Configuration(toml: text, file: "t.toml")
      Issue.record("accepted: \(text)")
    } catch {
      #expect("\(error)" == sentence)
    }
  }

  /// toml++ asserts that a table's name begins like a key, and does not look: in an enclave that ended PID 1, which is a
  /// kernel panic.
  @Test(arguments: [
    ("[~a]", 1), ("a.b = 1\n[~", 2), ("[[~]]\n", 1), ("x = \"\"\"\n[~q]\n\"\"\"\n\n[~.a]\n[program]\n", 5),
    ("[a.~]", 1), ("\n{ ~", 2), ("\n\na = { ~ = 1 }", 3), ("[\u{1}]", 1),
  ])
  func whatTheParserTakesForGranted(_ text: String, _ line: Int) {
    do {
      _ = try Configuration(toml: text, file: "t.toml")
      Issue.record("\(text) was taken")
    } catch {
      #expect("\(error)".hasPrefix("t.toml:\(line): not TOML: "), "\(error)")
    }
  }

  @Test func syntaxErrorsHaveTheirLine() {
    do {
      _ = try Configuration(toml: "hostname = \"a\"\n[program\n", file: "t.toml")
      Issue.record("accepted")
    } catch {
      #expect("\(error)".hasPrefix("t.toml:2: not TOML: "))
    }
  }

  @Test func quotedStringsComeBack() throws {
    for text in ["", "a\"b\\c", "line\nbreak\ttab", "\u{1}\u{7f}é🙂", "]", "'''"] {
      let read = try Configuration(toml: "[program]\ncommand = [\"x\", \(tomlString(text))]", file: "t")
      #expect(read.program.command.last == text)
    }
  }
}

struct UnitTests {
  @Test func durations() {
    #expect(parseDuration("500ms") == .milliseconds(500))
    #expect(parseDuration("2h") == .seconds(7200))
    for bad in ["", "10", "s", "-1s", "1.5s", "1d", "9999999999s", "١s", "10 s"] {
      #expect(parseDuration(bad) == nil, "\(bad)")
    }
  }

  @Test func sizes() {
    #expect(parseSize("4MiB") == 4 << 20)
    #expect(parseSize("17") == 17)
    for bad in ["", "MiB", "4MB", "-1", "9999999999999GiB", "4 MiB"] { #expect(parseSize(bad) == nil, "\(bad)") }
  }

  @Test func signals() {
    #expect(parseSignal("SIGTERM") == 15 && parseSignal("TERM") == 15 && parseSignal("15") == 15)
    #expect(parseSignal("SIGRTMIN+3") == 37)
    for bad in ["", "SIG", "0", "65", "32", "sigterm", "SIGRTMIN+31"] { #expect(parseSignal(bad) == nil, "\(bad)") }
  }
}

/// A program that runs as another user than its image says reads what it should not, or cannot read what it must.
struct AccountTests {
  static let passwd = """
    root:x:0:0:root:/root:/bin/sh
    # comment:x:9:9::/:/
    www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
    broken:x:1
    """
  static let group = "root:x:0:\nadm:x:4:www-data,root\nwww-data:x:33:\nssl:x:101:www-data\n"

  func account(_ text: String) throws -> Account { try Account(text, passwd: Self.passwd, group: Self.group) }

  @Test func byName() throws {
    #expect(
      try account("www-data") == Account(uid: 33, gid: 33, groups: [4, 101], home: "/var/www", name: "www-data"))
  }

  @Test func byNumber() throws {
    #expect(try account("33").name == "www-data")
    #expect(try account("4711") == Account(uid: 4711, gid: 0, groups: [], home: "/", name: nil))
    #expect(try account("4711:12").gid == 12)
  }

  @Test func withGroup() throws {
    #expect(try account("www-data:adm") == Account(uid: 33, gid: 4, groups: [], home: "/var/www", name: "www-data"))
  }

  @Test(arguments: ["nobody", "broken", "www-data:nogroup", "-1", "4294967295", ""])
  func unknown(_ text: String) { #expect(throws: AccountError.self) { try account(text) } }

  /// As the proxy's user a program could end the proxy and take its place; as 2^32 - 1 it would stay root.
  @Test(arguments: ["61042", "33:61042", "proxy", "member", "none", "33:none", "61042:33"]) func reserved(
    _ text: String
  ) {
    let passwd = Self.passwd + "\nproxy:x:61042:33::/:/\nmember:x:5:5::/:/\nnone:x:4294967295:33::/:/\n"
    let group = Self.group + "their:x:61042:member\nnone:x:4294967295:\n"
    #expect(throws: AccountError.self) { try Account(text, passwd: passwd, group: group) }
  }
}
