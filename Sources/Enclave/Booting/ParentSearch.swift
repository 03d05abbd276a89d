import BootPlanning
import CLinux
import LinuxSystem

/// Finds the host over vsock, and tells it that the enclave has booted.
public enum ParentSearch {
  private static let attemptMilliseconds: Int32 = 1000
  private static let longestPause = 500
  private static let heartbeatByte: UInt8 = 0xb7

  public struct Failure: Error, CustomStringConvertible {
    public var description: String
  }

  private static func explain(_ code: Int32, _ what: String) -> String {
    switch code {
    case EAFNOSUPPORT: "the kernel has no vsock (CONFIG_VSOCKETS, CONFIG_VIRTIO_VSOCKETS, or their modules)"
    case ENODEV: "there is no vsock device"
    default: SystemError("connect", what, errno: code).description
    }
  }

  /// Tries the candidates in turn, with growing pauses, until one has a host that listens on `port`.
  /// - Parameter cid: the only candidate, where it is configured.
  public static func find(cid: UInt32?, port: UInt32, timeout: Duration) throws(Failure) -> UInt32 {
    let start = monotonicNanoseconds()
    var pause = 10
    var last = ""
    while true {
      for candidate in cid.map({ [$0] }) ?? Question.candidates {
        let result = clinux_vsock_probe(candidate, port, attemptMilliseconds)
        if result == 0 { return candidate }
        last = explain(-result, "vsock \(candidate):\(port)")
        if result == -EAFNOSUPPORT { throw Failure(description: last) }
      }
      guard monotonicNanoseconds() &- start < milliseconds(timeout) * 1_000_000 else {
        throw Failure(description: "no host was found within \(timeout): \(last)")
      }
      sleepMilliseconds(pause)
      pause = min(pause * 2, longestPause)
    }
  }

  /// AWS's boot contract: connect to port 9000 of CID 3, send one byte, get it back.
  public static func beat(cid: UInt32?, timeout: Duration) throws(Failure) {
    let start = monotonicNanoseconds()
    let limit = milliseconds(timeout)
    var last = ""
    repeat {
      let result = clinux_vsock_exchange(cid ?? 3, Question.heartbeatPort, heartbeatByte, Int32(clamping: limit))
      switch result {
      case 0: return
      case -EPROTO: last = "another byte than 0xb7 came back"
      default: last = explain(-result, "vsock \(cid ?? 3):\(Question.heartbeatPort)")
      }
      if result == -EAFNOSUPPORT { break }
      sleepMilliseconds(50)
    } while monotonicNanoseconds() &- start < limit * 1_000_000
    throw Failure(description: "the heartbeat was not answered within \(timeout): \(last)")
  }

  private static func milliseconds(_ duration: Duration) -> UInt64 {
    let (seconds, attoseconds) = duration.components
    return UInt64(clamping: seconds) * 1000 + UInt64(clamping: attoseconds / 1_000_000_000_000_000)
  }
}
