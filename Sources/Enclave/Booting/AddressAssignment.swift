import BootPlanning
import EnclaveConfig
import EventLoop
import Inet
import LinuxSystem
import Relaying
import Wire

/// Asks the host for the enclave's addresses, before there is a link that could have them.
///
/// PID 1 does this itself, as it opens the log's stream itself: an answer is a header and 24 bytes of fixed layout, read by
/// the same bounded code, and every value is checked against the configuration. A helper process would hand PID 1 the
/// same 24 bytes, to be checked in the same way.
public enum AddressAssignment {
  private static let longestPause = 500

  public struct Failure: Error, CustomStringConvertible {
    public var description: String
  }

  /// - Parameters:
  ///   - raw: what is asked for and what is allowed.
  ///   - token: opens the question's stream.
  ///   - timeout: for the whole of it; a host that is not there yet is tried again until then.
  /// - Returns: `raw` with the host's addresses.
  public static func ask(
    _ host: StreamTarget, token: Token, _ raw: RawNetwork, timeout: Duration
  ) throws -> RawNetwork {
    let request = AddressRequest(
      wants4: raw.asksForAddress, wants6: raw.asksForAddress6, mtu: UInt16(clamping: raw.mtu))
    let loop = try EventLoop()
    let start = monotonicNanoseconds()
    var pause = 10
    var last = ""
    while true {
      let gone = monotonicNanoseconds() &- start
      guard gone < timeout.nanoseconds else { break }
      switch try openStream(
        loop, host, request.hello.proven(by: token), .nanoseconds(Int64(clamping: timeout.nanoseconds &- gone)))
      {
      case .opened(_, let parameters, _):
        let answer: AddressAnswer
        do throws(WireError) {
          answer = try AddressAnswer(parameters: parameters)
        } catch {
          throw Failure(description: "asked for an address, the host answered with something else: \(error)")
        }
        var taken = raw
        try taken.take(address4: answer.address4, address6: answer.address6, mtu: answer.mtu)
        return taken
      case .refused(.timedOut): last = "it does not answer"
      case .refused(.unsupported):
        throw Failure(
          description:
            "the host gives no addresses (network.address = \"host\"): it was not started for raw mode (--raw)"
        )
      case .refused(let status): throw Failure(description: "asked for an address, the host answered: \(status)")
      case .failed(let sentence): last = sentence
      }
      sleepMilliseconds(pause)
      pause = min(pause * 2, longestPause)
    }
    throw Failure(
      description: "the host gave no address within \(timeout) (network.address = \"host\", boot.host_timeout): \(last)"
    )
  }
}
