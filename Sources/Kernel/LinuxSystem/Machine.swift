import Glibc

/// The corresponding C function is `sethostname`.
public func setHostname(_ name: String) throws(SystemError) {
  try checkErrno("sethostname", name) { sethostname(name, name.utf8.count) }
}

/// Writes everything that has not been written, for at most that long: a server that is away must not hold up an end.
/// The corresponding C function is `sync`.
/// - Returns: false where it was not done in time.
@discardableResult
public func syncFileSystems(within milliseconds: Int32) -> Bool {
  guard let (reading, writing) = try? makePipe() else { return false }
  do throws(SystemError) {
    try startThread {
      sync()
      _ = try? writeAll(writing.rawValue, [UInt8(1)])
    }
  } catch {
    // No thread to be had: then there is nobody to wait for a server either.
    return false
  }
  return waitReadable(reading.rawValue, milliseconds: milliseconds)
}
