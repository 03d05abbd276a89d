import BootPlanning
import EnclaveConfig
import EventLoop
import LinuxSystem
import Relaying
import Wire

/// What PID 1 asks the host over streams before there is anything else in the enclave that could.
///
/// PID 1 does this itself, as it opens the log's stream itself: an answer is a header and, with addresses, 24 bytes of fixed
/// layout, read by the same bounded code, and every value is checked against the configuration. A helper process would hand
/// PID 1 the same bytes, to be checked in the same way.
public enum HostQuestions {
  private static let longestPause = 500

  public struct Failure: Error, CustomStringConvertible {
    public var description: String
  }

  /// A stream that the host has opened.
  struct Answer {
    var stream: FileReference
    var parameters: [UInt8]
    /// What came behind the answer.
    var early: [UInt8]
  }

  /// What a refusal means.
  enum Verdict {
    /// There may be another answer later; the sentence says why there is none yet.
    case notYet(String)
    case failure(String)
  }

  /// Opens the first session of a boot.
  /// - Parameter timeout: for the whole of it; a host that is not there yet is tried again until then.
  /// - Returns: the stream, bytes that came behind the host's answer, and what it has to give.
  public static func session(
    _ host: StreamTarget, _ hello: Hello, timeout: Duration
  ) throws -> (stream: FileReference, early: [UInt8], offer: RuntimeOffer) {
    let answer = try ask(host, hello, timeout, "no session with the host", "boot.host_timeout") { status in
      status == .noResources
        ? .notYet("it has no room") : .failure("the host at \(host) refuses this enclave's session: \(status)")
    }
    do throws(WireError) {
      return (answer.stream, answer.early, try RuntimeOffer(parameters: answer.parameters))
    } catch {
      throw Failure(description: "the host gives what this version does not know: \(error)")
    }
  }

  /// Asks for arguments and variables, piece by piece.
  /// - Parameters:
  ///   - token: opens the questions' streams.
  ///   - timeout: for each piece.
  public static func runtime(_ host: StreamTarget, token: Token, timeout: Duration) throws -> RuntimeParameters {
    var assembly = RuntimeAssembly()
    while true {
      let answer = try ask(
        host, assembly.next.hello.proven(by: token), timeout, "the host gave no arguments or variables",
        "attestation.runtime, boot.host_timeout"
      ) { status in .failure("asked for arguments and variables, the host answered: \(status)") }
      do throws(WireError) {
        if let given = try assembly.take(answer.parameters) { return given }
      } catch {
        throw Failure(description: "asked for arguments and variables, the host answered with something else: \(error)")
      }
    }
  }

  /// Asks for the enclave's addresses, before there is a link that could have them.
  /// - Parameters:
  ///   - raw: what is asked for and what is allowed.
  ///   - token: opens the question's stream.
  ///   - timeout: as above.
  /// - Returns: `raw` with the host's addresses.
  public static func addresses(
    _ host: StreamTarget, token: Token, _ raw: RawNetwork, timeout: Duration
  ) throws -> RawNetwork {
    let request = AddressRequest(
      wants4: raw.asksForAddress, wants6: raw.asksForAddress6, mtu: UInt16(clamping: raw.mtu))
    let answer = try ask(
      host, request.hello.proven(by: token), timeout, "the host gave no address",
      "network.address = \"host\", boot.host_timeout"
    ) { status in
      .failure(
        status == .unsupported
          ? "the host gives no addresses (network.address = \"host\"): it was not started for raw mode (--raw)"
          : "asked for an address, the host answered: \(status)")
    }
    let given: AddressAnswer
    do throws(WireError) {
      given = try AddressAnswer(parameters: answer.parameters)
    } catch {
      throw Failure(description: "asked for an address, the host answered with something else: \(error)")
    }
    var taken = raw
    try taken.take(address4: given.address4, address6: given.address6, mtu: given.mtu)
    return taken
  }

  /// Tries with growing pauses until the host opens the stream, says something final, or the time is over.
  /// - Parameters:
  ///   - missing: what there is not then.
  ///   - keys: what in the configuration says so.
  private static func ask(
    _ host: StreamTarget, _ hello: Hello, _ timeout: Duration, _ missing: String, _ keys: String,
    refused: (Status) -> Verdict
  ) throws -> Answer {
    let loop = try EventLoop()
    let start = monotonicNanoseconds()
    var pause = 10
    var last = ""
    while true {
      let gone = monotonicNanoseconds() &- start
      guard gone < timeout.nanoseconds else { break }
      switch try open(loop, host, hello, .nanoseconds(Int64(clamping: timeout.nanoseconds &- gone))) {
      case .opened(let stream, let parameters, let early):
        return Answer(stream: stream, parameters: parameters, early: early)
      case .refused(.timedOut): last = "it does not answer"
      case .refused(let status):
        switch refused(status) {
        case .notYet(let sentence): last = sentence
        case .failure(let sentence): throw Failure(description: sentence)
        }
      case .failed(let sentence): last = sentence
      }
      sleepMilliseconds(pause)
      pause = min(pause * 2, longestPause)
    }
    throw Failure(description: "\(missing) within \(timeout) (\(keys)): \(last)")
  }

  /// Runs the loop until the stream is open or cannot be.
  private static func open(
    _ loop: EventLoop, _ host: StreamTarget, _ hello: Hello, _ timeout: Duration
  ) throws(SystemError) -> StreamOpening.Outcome {
    var outcome = StreamOpening.Outcome.refused(.timedOut)
    let opening = StreamOpening(loop: loop, target: host, hello: hello, timeout: timeout) {
      outcome = $0
      loop.stop()
    }
    // The loop runs until it is told to stop, so what ends before it runs must not tell it.
    let begin = TimerSource { opening.start() }
    loop.schedule(after: .zero, begin)
    try loop.run()
    return outcome
  }
}
