import LinuxSystem

/// A request that the kernel refused.
///
/// Prints as `add route default dev lo: Network is unreachable (ENETUNREACH): Nexthop has invalid gateway`.
public struct NetlinkError: Error, Equatable, CustomStringConvertible, Sendable {
  public var request: String
  public var errno: Int32
  /// The kernel's own words (extended ack, Linux 4.12 and later), where it had any.
  public var explanation: String?

  public init(_ request: String, errno: Int32, explanation: String? = nil) {
    self.request = request
    self.errno = errno
    self.explanation = explanation
  }

  init(_ request: String, _ error: SystemError) {
    self.init("\(request): \(error.call)\(error.object.isEmpty ? "" : " \(error.object)")", errno: error.errno)
  }

  public var description: String {
    SystemError(request, errno: errno).description + (explanation.map { ": \($0)" } ?? "")
  }
}
