import CLinux
import Capabilities
import LinuxSystem
import Seccomp

/// A part of a host side's work in a process of its own: a child made by fork(2), with what was opened before.
enum HelperProcess {
  /// - Parameters:
  ///   - kept: descriptors that it needs.
  ///   - reduce: gives up its rights.
  ///   - work: what it does then; it ends with that.
  static func start(
    _ name: String, kept: [FileReference], reduce: () throws(SystemError) -> Void, work: () -> Void
  ) throws(SystemError) -> Int32 {
    let null = FileReference(try openFile("/dev/null", O_RDWR))
    let pid = try forkProcess()
    guard pid == 0 else { return pid }
    setProcessName(name)
    // A terminal's signals are the host side's business.
    blockEverySignal()
    for standard in 0..<2 as Range<Int32> { replaceDescriptor(standard, by: null.rawValue) }
    closeDescriptors(except: kept.map(\.rawValue))
    do throws(SystemError) {
      try reduce()
    } catch {
      _ = try? writeAll(2, "\(name): \(error)\n".utf8)
      exitNow(1)
    }
    work()
    exitNow(0)
  }
}

/// The keeper of verdicts of a host side: CAP_NET_ADMIN, and nothing that it could be used for but verdicts.
public struct Keeper {
  private let process: Int32

  public init(kept: [FileReference], work: () -> Void) throws(SystemError) {
    process = try HelperProcess.start("tombolo-keeper", kept: kept) { () throws(SystemError) in
      try HostRights.reduce(to: .keeper, keeping: .verdicts, readable: [], note: { _ in })
    } work: {
      work()
    }
  }

  /// Waits for its end.
  public func wait() { clinux_wait(process) }
}
