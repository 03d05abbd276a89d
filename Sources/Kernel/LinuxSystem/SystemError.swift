import CLinux
import Glibc
import SystemText

/// A failed system call: which call, on what, and why.
///
/// Prints as `mount /proc: Device or resource busy (EBUSY)`.
public struct SystemError: Error, Equatable, CustomStringConvertible, Sendable {
  public var call: String
  public var object: String
  public var errno: Int32

  public init(_ call: String, _ object: String = "", errno: Int32) {
    self.call = call
    self.object = object
    self.errno = errno
  }

  public var description: String {
    let name = Self.name(of: errno).map { " (\($0))" } ?? ""
    return "\(call)\(object.isEmpty ? "" : " \(shownText(object))"): \(Self.text(of: errno))\(name)"
  }

  /// Whether this machine had too little of something, and not the other side.
  public var isExhaustion: Bool { [EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL, ENOSPC].contains(errno) }

  /// The sentence of strerror(3).
  public static func text(of errno: Int32) -> String {
    String(cString: strerror(errno))
  }

  /// The symbolic name (`EBUSY`), where glibc knows one. The corresponding C function is `strerrorname_np`.
  public static func name(of errno: Int32) -> String? {
    clinux_errno_name(errno).map { String(cString: $0) }
  }
}

/// Turns the "negative errno" convention of `CLinux` into a thrown `SystemError`.
@discardableResult
public func check<T: SignedInteger>(
  _ call: String, _ object: @autoclosure () -> String, _ result: T
) throws(SystemError) -> T {
  guard result < 0 else { return result }
  throw SystemError(call, object(), errno: Int32(truncatingIfNeeded: -result))
}

/// The same for calls that answer -1 and set `errno`.
@discardableResult
public func checkErrno<T: SignedInteger>(
  _ call: String, _ object: @autoclosure () -> String = "", _ body: () -> T
) throws(SystemError) -> T {
  while true {
    let result = body()
    guard result < 0 else { return result }
    let code = errno
    if code != EINTR { throw SystemError(call, object(), errno: code) }
  }
}

/// The calling thread's errno, for modules that do not import Glibc.
public func errnoValue() -> Int32 { errno }
