import Glibc

/// The corresponding C function is `sethostname`.
public func setHostname(_ name: String) throws(SystemError) {
  try checkErrno("sethostname", name) { sethostname(name, name.utf8.count) }
}

/// The corresponding C function is `sync`.
public func syncFileSystems() { sync() }
