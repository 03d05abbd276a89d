/// What a signal means that was sent to PID 1 or to `tombolo run`: both pass on what they can, so that the program gets
/// what it would get if it stood in their place.
public struct SignalRules: Equatable, Sendable {
  /// All of signal(7) but SIGKILL and SIGSTOP, which nobody can catch, SIGCHLD, which tells of one's own children, and
  /// those that tell of a fault in one's own code: SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV and SIGSYS.
  public static let passed: [Int32] = (1...64).filter { ![4, 5, 7, 8, 9, 11, 17, 19, 31].contains($0) }

  /// Two SIGINT within this time are meant: one alone is a program's own affair (an interpreter's prompt, psql's query).
  public static let interruptWindow: Duration = .seconds(2)

  private static let sigint: Int32 = 2
  private static let sigterm: Int32 = 15
  private var interrupted: Duration?

  public init() {}

  /// Whether the program has to end from here on: it is killed where it has not when its time is over.
  /// - Parameter time: of any clock that only goes forward.
  public mutating func endsProgram(_ signal: Int32, at time: Duration) -> Bool {
    guard signal == Self.sigint else { return signal == Self.sigterm }
    defer { interrupted = time }
    return interrupted.map { time - $0 <= Self.interruptWindow } ?? false
  }
}

/// Stopping and continuing the program as a shell does it with a job.
///
/// The program leads a session of its own, so its process group is an orphaned one, and what SIGTSTP, SIGTTIN and SIGTTOU
/// do by default the kernel leaves out there (`get_signal` in kernel/signal.c). So a program that does nothing about them
/// gets a SIGSTOP, with its whole group, as everything in a job would stop. One that handles them gets them as they are:
/// not every program takes SIGTSTP for a wish to stop (Sidekiq does not).
public struct JobControl: Equatable, Sendable {
  private static let sigcont: Int32 = 18
  private static let sigstop: Int32 = 19
  private static let stops: ClosedRange<Int32> = 20...22

  /// What the program does about a signal.
  public enum Disposition: Equatable, Sendable {
    case standard
    /// Ignored, caught, or blocked to be waited for.
    case handled

    /// - Parameter status: proc(5)'s /proc/pid/status.
    public init(of signal: Int32, status: String) {
      var handled: UInt64 = 0
      for line in status.utf8.split(separator: UInt8(ascii: "\n")) {
        let words = line.split(separator: UInt8(ascii: "\t")).map { Substring($0) }
        guard words.count == 2, ["SigBlk:", "SigIgn:", "SigCgt:"].contains(words[0]) else { continue }
        handled |= UInt64(words[1], radix: 16) ?? 0
      }
      let bit = (1...64).contains(signal) ? UInt64(1) << UInt64(signal - 1) : 0
      self = handled & bit == 0 ? .standard : .handled
    }
  }

  /// What to send instead of the signal, and whether to the program alone or to its process group.
  public struct Delivery: Equatable, Sendable {
    public var signal: Int32
    public var toGroup: Bool

    public init(_ signal: Int32, toGroup: Bool = false) {
      self.signal = signal
      self.toGroup = toGroup
    }
  }

  /// It was asked to stop and not yet to continue.
  public private(set) var isAskedToStop = false

  public init() {}

  public static func stopsJob(_ signal: Int32) -> Bool { stops.contains(signal) }

  /// Takes notice of a signal on its way to the program.
  public mutating func pass(_ signal: Int32) {
    if Self.stopsJob(signal) { isAskedToStop = true }
    if signal == Self.sigcont { isAskedToStop = false }
  }

  /// - Parameter disposition: asked for only where it matters.
  public mutating func delivery(of signal: Int32, _ disposition: () -> Disposition) -> Delivery {
    let wasAskedToStop = isAskedToStop
    pass(signal)
    if Self.stopsJob(signal), disposition() == .standard { return Delivery(Self.sigstop, toGroup: true) }
    return Delivery(signal, toGroup: signal == Self.sigcont && wasAskedToStop)
  }
}
