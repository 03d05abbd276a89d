import CLinux
import EnclaveConfig
import LinuxSystem
import Volumes

/// Mounts what is not on a network, and finds the places of what is.
///
/// The target is looked up component by component from the root of this process (`ForeignTree`), so that a link of the image
/// leads nowhere that the enclave does not have, and what was found is mounted on by its descriptor: a name that changes
/// meanwhile changes nothing.
public enum Mounter {
  /// - Throws: `MountFailure`.
  public static func mount(_ work: MountWork) throws(MountFailure) {
    do {
      if work.type == "bind" {
        try bind(work)
      } else {
        let place = try openTarget(work.target)
        try mountFileSystem(
          work.source, path(place.rawValue), type: work.type, flags: MountFlags(rawValue: UInt(work.flags)),
          data: work.plainData)
      }
    } catch {
      throw failure(error, work)
    }
  }

  /// The place that something is mounted on; a missing directory is made, for everybody to enter.
  /// - Parameter file: an empty file is made where it is missing.
  public static func openTarget(_ target: String, file: Bool = false) throws -> OwnedFileDescriptor {
    let place = try ForeignTree("/").open(target, making: file ? .file : .directories)
    let real = try readLink(path(place.rawValue))
    guard !MountSettings.isReserved(real) else {
      throw MountFailure(
        "mount \(target): a link leads to \(real), where nothing is mounted by configuration", isFinal: true)
    }
    return place
  }

  static func path(_ fd: Int32) -> String { "/proc/self/fd/\(fd)" }

  /// Its flags are a second step of the kernel's (mount(8), "bind"). Those that the source has stay: in a user namespace
  /// they are locked.
  private static func bind(_ work: MountWork) throws {
    let source = try ForeignTree("/").open(work.source)
    let isFile = fileKind(path(source.rawValue)) != .directory
    let place = try openTarget(work.target, file: isFile)
    try mountFileSystem(path(source.rawValue), path(place.rawValue), type: nil, flags: [.bind])
    do {
      // What is mounted there now, and not what it covers.
      let made = try ForeignTree("/").open(work.target)
      try remountBind(path(made.rawValue), MountFlags(rawValue: UInt(work.flags)))
    } catch {
      // One that could be written, where it was to be read only, must not stay.
      if let made = try? ForeignTree("/").open(work.target) { try? unmountFileSystem(path(made.rawValue), .detach) }
      throw error
    }
  }

  /// An errno with what follows from it.
  static func failure(_ error: any Error, _ work: MountWork) -> MountFailure {
    if let known = error as? MountFailure { return known }
    guard let system = error as? SystemError else {
      return MountFailure("mount \(work.target): \(error)", isFinal: true)
    }
    let isMount = system.call == "mount"
    let text = SystemError(
      "mount", isMount ? "\(work.source) on \(work.target)" : "\(work.target): \(system.call) \(system.object)",
      errno: system.errno
    ).description
    return isMount
      ? .mount(system.errno, text, isNetwork: work.server != nil) : MountFailure(text, isFinal: work.server == nil)
  }
}
