import CLinux
import LinuxSystem

/// Keeps the clock with the hypervisor's: an enclave has no network time, and its own clock drifts.
///
/// The source is /dev/ptp0 (KVM's, Documentation/virt/kvm/ptp_kvm.rst): set at boot, and from then on slewed, or
/// stepped where it is off by more than half a second (after the machine was paused).
public struct EnclaveClock {
  public static let interval: Duration = .seconds(60)
  private static let stepLimit: Int64 = 500_000_000

  private let device: FileReference

  /// nil where there is no such device.
  public init?(path: String = "/dev/ptp0") {
    guard let opened = try? openFile(path, O_RDONLY) else { return nil }
    device = FileReference(opened)
  }

  /// Nanoseconds that our clock is behind the source.
  private func offset() throws(SystemError) -> Int64 {
    var seconds: Int64 = 0
    var nanoseconds: Int64 = 0
    let before = Int64(clamping: realtimeNanoseconds())
    try check("clock_gettime", "/dev/ptp0", clinux_read_clock(device.rawValue, &seconds, &nanoseconds))
    let after = Int64(clamping: realtimeNanoseconds())
    let source = seconds.multipliedReportingOverflow(by: 1_000_000_000).partialValue &+ nanoseconds
    return source &- (before &+ (after &- before) / 2)
  }

  /// Sets or slews the clock.
  /// - Returns: a sentence where it was stepped.
  public func discipline() throws(SystemError) -> String? {
    let offset = try offset()
    guard offset.magnitude > UInt64(Self.stepLimit) else {
      try check("adjtime", "", clinux_slew_clock(offset / 1000))
      return nil
    }
    let wanted = Int64(clamping: realtimeNanoseconds()) &+ offset
    try check("clock_settime", "", clinux_set_clock(wanted / 1_000_000_000, wanted % 1_000_000_000))
    return "the clock was off by \(Double(offset) / 1e9) s and has been set from /dev/ptp0"
  }
}
