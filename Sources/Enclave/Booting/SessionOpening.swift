import EventLoop
import LinuxSystem
import Relaying
import Wire

/// Opens the first session of a boot, before there is anything else in the enclave that could open one.
public enum SessionOpening {
  private static let longestPause = 500

  public struct Failure: Error, CustomStringConvertible {
    public var description: String
  }

  /// - Parameter timeout: for the whole of it; a host that is not there yet is tried again until then.
  /// - Returns: the stream, and bytes that came behind the host's answer.
  public static func open(
    _ host: StreamTarget, _ hello: Hello, timeout: Duration
  ) throws -> (stream: FileHandle, early: [UInt8]) {
    let loop = try EventLoop()
    let start = monotonicNanoseconds()
    var pause = 10
    var last = ""
    while true {
      let gone = monotonicNanoseconds() &- start
      guard gone < timeout.nanoseconds else { break }
      switch try openStream(loop, host, hello, .nanoseconds(Int64(clamping: timeout.nanoseconds &- gone))) {
      case .opened(let stream, _, let early): return (stream, early)
      case .refused(.timedOut): last = "it does not answer"
      case .refused(.noResources): last = "it has no room"
      case .refused(let status):
        throw Failure(description: "the host at \(host) refuses this enclave's session: \(status)")
      case .failed(let sentence): last = sentence
      }
      sleepMilliseconds(pause)
      pause = min(pause * 2, longestPause)
    }
    throw Failure(description: "no session with the host within \(timeout) (boot.host_timeout): \(last)")
  }
}

/// Runs the loop until the stream is open or cannot be.
func openStream(
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
