import BootPlanning
import EnclaveConfig
import Testing

/// What a start asks before it does anything.
struct QuestionTests {
  private func questions(_ kind: StartKind, _ text: String = "") throws -> [String] {
    Question.rest(kind, try Configuration(toml: text, file: "t")).map(\.description)
  }
  private let kernel = StartKind.kernel(hasRootfs: true)

  /// AWS ends an enclave that does not send it; another host may take it for something else.
  @Test func theHeartbeat() throws {
    let beat = "send the heartbeat to vsock 3:9000, for 10.0 seconds"
    #expect(try questions(kernel).first == beat)
    #expect(
      try questions(kernel, "[network]\nparent_cid = 7").first == "send the heartbeat to vsock 7:9000, for 10.0 seconds"
    )
    #expect(try !questions(kernel, "[boot]\nheartbeat = \"never\"").contains(beat))
    #expect(try !questions(.child).contains(beat))
    #expect(try questions(.child, "[boot]\nheartbeat = \"always\"").first == beat)
    #expect(try !questions(.local(StartPlanTests.local), "[boot]\nheartbeat = \"always\"").contains(beat))
  }

  /// A local enclave, and one over Unix sockets, asks no vsock for a host: on a machine with one another host could answer.
  @Test func unixSocketsNeedNoSearch() throws {
    let session = ["open the session with the host, for 30.0 seconds"]
    #expect(try questions(.local(StartPlanTests.local)) == session)
    #expect(try questions(.child, "[network]\ntransport = \"unix:/enclave\"") == session)
    #expect(
      try questions(.child, "[network]\nparent_cid = 1\nparent_port = 7700\n[boot]\nhost_timeout = \"2s\"") == [
        "find the host at port 7700 of vsock CID 1, for 2.0 seconds", "open the session with the host, for 2.0 seconds",
      ])
  }

  @Test func whatTheHostDecides() throws {
    let unix = "[network]\ntransport = \"unix:/enclave\"\nmode = \"raw\"\n"
    #expect(
      try questions(.child, unix + "address = \"host\"\naddress6 = \"host\"\nqueues = 1") == [
        "open the session with the host, for 30.0 seconds",
        "ask the host for an IPv4 address within 10.118.0.0/16, fd74:6f6d:626f::/48\n"
          + "ask the host for an IPv6 address within 10.118.0.0/16, fd74:6f6d:626f::/48",
      ])
    #expect(
      try questions(.child, unix + "capture = \"nfqueue\"\naddress6 = \"none\"").suffix(2) == [
        "ask the host for its IPv4 address", "count the processors: a queue for each, at most 4",
      ])
    let local = StartKind.local(StartPlanTests.local)
    for (runtime, kinds) in [
      ("\"arguments\"", "arguments"), ("\"variables\"", "variables"),
      ("\"addresses\", \"variables\", \"arguments\"", "arguments and variables"),
    ] {
      #expect(
        try questions(local, "[attestation]\nruntime = [\(runtime)]").last == "take the \(kinds) that the host gives")
    }
    #expect(try questions(local, "[attestation]\nruntime = [\"addresses\"]").count == 1)
    // Without raw mode there is nothing of it to be asked.
    #expect(try questions(.child, "[network]\nmode = \"none\"\naddress = \"host\"").count == 2)
  }
}

struct InitArgumentsTests {
  @Test func kindsOfPlans() throws {
    #expect(try InitArguments(["--plan"]).role == .plan(.child))
    for kind in InitArguments.PlanKind.allCases {
      #expect(try InitArguments(["--plan=" + kind.rawValue, "--", "a"]).role == .plan(kind))
      #expect(InitArguments.help.contains(kind.rawValue))
    }
    for word in ["--plan=", "--plan=local", "--plan=KERNEL", "--planes"] {
      #expect(throws: InitArguments.Misuse.self) { try InitArguments([word]) }
    }
  }

  /// Behind "--" all is the program's.
  @Test func aProgramsOwnOptionsAreNotOurs() throws {
    let arguments = try InitArguments(["--config", "/c", "--", "--plan", "-x"])
    #expect(arguments.role == .enclave && arguments.command == ["--plan", "-x"])
    #expect(try InitArguments(["sh", "--plan"]).command == ["sh", "--plan"])
    #expect(throws: InitArguments.Misuse(description: "--config needs a value")) { try InitArguments(["--config"]) }
  }
}
