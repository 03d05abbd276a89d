import BootPlanning
import CLinux
import EnclaveConfig
import EventLoop
import Inet
import LinuxSystem
import Relaying
import Testing
import Wire

@testable import Booting

/// What a start asks a host that is late, has no room, says no, or says something that no enclave can use.
@Suite(.serialized) struct HostQuestionsTests {
  /// A host on a thread of its own, which answers each stream with the next of `answers`.
  private final class Host: @unchecked Sendable {
    private let answers: [Answer]
    private let path: String
    private var listener: Listener?
    private var held: [FileReference] = []
    private var asked = 0
    let done: FileReference
    private let doneWriting: FileReference

    /// - Parameter delay: of its coming, in milliseconds.
    init(_ path: String, delay: Int = 0, _ answers: [Answer]) throws {
      self.answers = answers
      self.path = path
      (done, doneWriting) = try makePipe()
      try startThread { [self] in
        sleepMilliseconds(delay)
        do { try serve() } catch { Issue.record("\(error)") }
        _ = try? writeAll(doneWriting.rawValue, [UInt8(clamping: asked)])
      }
    }

    private func serve() throws {
      let loop = try EventLoop()
      listener = try Listener(loop: loop, socket: FileReference(try listenStream(.unix(path)))) {
        Issue.record("\($0)")
      } accepted: { [unowned self] stream, _ in
        _ = try? StreamServing(loop: loop, stream: stream) { [unowned self] _, outcome in
          guard case .hello(let stream, _, _) = outcome else { return }
          answer(stream, answers[min(asked, answers.count - 1)])
          held.append(stream)
          asked += 1
          if asked == answers.count { loop.stop() }
        }
      }
      let overdue = TimerSource { loop.stop() }
      loop.schedule(after: .seconds(20), overdue)
      try loop.run()
    }

    /// Waits for its thread.
    func questions() -> Int {
      var byte: [UInt8] = [0]
      _ = byte.withUnsafeMutableBytes { readBytes(done.rawValue, $0) }
      return Int(byte[0])
    }
  }

  private func atPath(_ body: (String) throws -> Void) throws {
    let directory = try makeTemporaryDirectory("/tmp/tombolo-questions-")
    defer { removeTree(directory) }
    try body(directory + "/host")
  }

  private func session(_ path: String, _ timeout: Duration = .seconds(20)) throws {
    _ = try HostQuestions.session(StreamTarget(.unix(path)), Hello(.session), timeout: timeout)
  }

  /// A host that comes later than the enclave, or has no room yet, is asked again; nobody has to start it anew.
  @Test func aLateHostIsWaitedFor() throws {
    try atPath { path in
      let host = try Host(path, delay: 200, [Answer(.noResources), Answer(.noResources), Answer(.ok)])
      try session(path)
      #expect(host.questions() == 3)
    }
  }

  /// A second enclave at one place does not wait for the first one's end: it says so at once.
  @Test func aRefusalIsFinal() throws {
    try atPath { path in
      let host = try Host(path, [Answer(.denied)])
      #expect { try session(path) } throws: {
        "\($0)" == "the host at \(path) refuses this enclave's session: denied by policy"
      }
      #expect(host.questions() == 1)
    }
  }

  @Test func nobodyIsThere() throws {
    try atPath { path in
      #expect { try session(path, .milliseconds(50)) } throws: {
        "\($0)".hasPrefix("no session with the host within 0.05 seconds (boot.host_timeout): ")
      }
    }
  }

  private func addresses(_ path: String, _ answer: Answer) throws -> RawNetwork {
    let host = try Host(path, [answer])
    defer { _ = host.questions() }
    var raw = RawNetwork()
    raw.asksForAddress = true
    return try HostQuestions.addresses(StreamTarget(.unix(path)), token: .none, raw, timeout: .seconds(20))
  }

  /// What the host gives is checked against what the image allows; the host is not trusted.
  @Test func addressesAreCheckedBeforeTheyAreTaken() throws {
    for (prefix, sentence) in [
      ("10.118.7.2/30", nil), ("10.119.7.2/30", "which is outside what the image allows"),
      ("10.118.7.4/30", "which is its network's own address"),
    ] {
      try atPath { path in
        let offer = AddressAnswer(address4: IPPrefix(prefix), address6: nil, mtu: 1400)
        if let sentence {
          #expect { try addresses(path, Answer(.ok, parameters: offer.parameters)) } throws: {
            "\($0)".contains(sentence)
          }
        } else {
          let taken = try addresses(path, Answer(.ok, parameters: offer.parameters))
          #expect(taken.address == IPPrefix(prefix) && taken.mtu == 1400 && !taken.asksHost)
        }
      }
    }
  }

  @Test func aHostWithoutAddresses() throws {
    try atPath { path in
      #expect { try addresses(path, Answer(.unsupported)) } throws: {
        "\($0)".contains("it was not started for raw mode (--raw)")
      }
    }
    try atPath { path in
      #expect { try addresses(path, Answer(.ok, parameters: [1, 2, 3])) } throws: {
        "\($0)".hasPrefix("asked for an address, the host answered with something else: ")
      }
    }
  }
}
