import EventLoop
import LinuxSystem

/// A process of a host side's own has ended: it has made a system call that it must not make, or was killed.
public enum LostHelper: Error, CustomStringConvertible {
  case caretaker, keeper

  public var description: String {
    switch self {
    case .caretaker:
      "the caretaker has ended: what this process has made on this machine stays until the next start takes it away"
    case .keeper: "the keeper of verdicts has ended: no more packets pass"
    }
  }
}

/// Sees the end of the process at the other end of a socket or a pipe.
final class HelperWatch: EventSource {
  private let loop: EventLoop
  private var registration: Registration?
  private let ended: () -> Void

  init(_ file: FileReference, _ loop: EventLoop, ended: @escaping () -> Void) throws(SystemError) {
    self.loop = loop
    self.ended = ended
    super.init()
    // An end is always reported; what it writes is somebody else's.
    registration = try loop.add(file.rawValue, [], self)
  }

  override func ready(_ events: EventSet, tag: Int) {
    guard registration != nil else { return }
    stop()
    ended()
  }

  func stop() {
    if let registration { loop.remove(registration) }
    registration = nil
  }
}
