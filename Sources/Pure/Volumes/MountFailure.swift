/// Why something could not be mounted, for an operator.
public struct MountFailure: Error, Equatable, Sendable, CustomStringConvertible {
  public var description: String
  /// Nothing that comes by itself changes it.
  public var isFinal: Bool

  public init(_ description: String, isFinal: Bool) {
    self.description = description
    self.isFinal = isFinal
  }

  // asm-generic/errno-base.h and errno.h.
  private static let perm: Int32 = 1
  private static let noEntry: Int32 = 2
  private static let access: Int32 = 13
  private static let noDevice: Int32 = 19
  private static let notDirectory: Int32 = 20
  private static let invalid: Int32 = 22
  private static let readOnly: Int32 = 30
  private static let protocolUnsupported: Int32 = 93

  /// Of mount(2).
  /// - Parameters:
  ///   - text: the errno's sentence.
  ///   - isNetwork: of type nfs4.
  public static func mount(_ errno: Int32, _ text: String, isNetwork: Bool) -> MountFailure {
    switch (errno, isNetwork) {
    case (perm, _):
      final(text, "mounting needs CAP_SYS_ADMIN" + (isNetwork ? " outside of any user namespace" : ""))
    case (noDevice, true):
      final(text, "this kernel has no NFS client, or its modules (nfs, nfsv4) are not among those of the image")
    case (noDevice, false): final(text, "this kernel has no such file system")
    case (access, true):
      final(
        text,
        "the server does not let this client in; it sees the host's address, and a port above 1023 "
          + "(exports(5), \"insecure\")")
    case (noEntry, true): final(text, "the server has no such export")
    case (notDirectory, true): final(text, "the export is no directory")
    case (invalid, _): final(text, "the kernel does not take these options together; its own log says more")
    case (protocolUnsupported, true): final(text, "the server and this kernel have no version of NFS in common")
    case (noEntry, false), (notDirectory, false), (readOnly, false), (access, false): final(text, nil)
    default: MountFailure(text, isFinal: !isNetwork)
    }
  }

  private static func final(_ text: String, _ reason: String?) -> MountFailure {
    MountFailure(text + (reason.map { ": \($0)" } ?? ""), isFinal: true)
  }

  /// Whether an older version of the protocol may do: the server has not this one, or this kernel.
  public static func isOfVersion(_ errno: Int32) -> Bool { errno == protocolUnsupported || errno == invalid }
}
