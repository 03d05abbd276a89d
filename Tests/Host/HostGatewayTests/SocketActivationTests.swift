import Testing

@testable import HostGateway

/// What systemd says of the sockets that it hands over.
struct SocketActivationTests {
  private func read(_ variables: [String: String]) throws -> [String]? {
    try SocketActivation(process: 42) { variables[$0] }?.names
  }

  @Test func sockets() throws {
    #expect(try read([:]) == nil)
    #expect(try read(["LISTEN_FDS": "1"]) == nil)
    // Those of a process before this one.
    #expect(try read(["LISTEN_PID": "41", "LISTEN_FDS": "1"]) == nil)
    #expect(try read(["LISTEN_PID": "42", "LISTEN_FDS": "2"]) == ["unknown", "unknown"])
    #expect(try read(["LISTEN_PID": "42", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:"]) == ["web", ""])
  }

  @Test(arguments: [
    (["LISTEN_PID": "x"], "LISTEN_PID: found \"x\", expected a process id"),
    (["LISTEN_PID": "42"], "LISTEN_FDS: found \"\", expected a number from 1 to 4096"),
    (["LISTEN_PID": "42", "LISTEN_FDS": "0"], "LISTEN_FDS: found \"0\", expected a number from 1 to 4096"),
    (["LISTEN_PID": "42", "LISTEN_FDS": "-1"], "LISTEN_FDS: found \"-1\", expected a number from 1 to 4096"),
    (
      ["LISTEN_PID": "42", "LISTEN_FDS": "99999999999"],
      "LISTEN_FDS: found \"99999999999\", expected a number from 1 to 4096"
    ),
    (
      ["LISTEN_PID": "42", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"],
      "LISTEN_FDNAMES: found 2 names, expected 1, as many as LISTEN_FDS says"
    ),
    (
      ["LISTEN_PID": "42", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a\u{1b}"],
      "LISTEN_FDNAMES: found a name that is longer than 255 or not of printable ASCII"
    ),
  ])
  func mistakes(variables: [String: String], sentence: String) {
    #expect(throws: HostSocketError(sentence)) { try read(variables) }
  }
}
