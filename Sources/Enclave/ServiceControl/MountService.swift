import EnclaveConfig
import LinuxSystem
import Supervision
import Volumes
import Wire

/// A `[[mount]]` that needs the network: a process that mounts it, stays, and unmounts it (`VolumeKeeper`).
struct MountService: ServiceDescription {
  /// From 1, for the host, which knows no paths of the enclave.
  var number: Int
  /// The proxy, where there is one, and other mounts.
  var needs: [ServiceID]
  var executable: FileReference
  var mount: MountSettings

  /// The document, and behind it the pipe of readiness.
  private static let readinessDescriptor = 4
  /// For a mount that is tried without limit.
  private static let noLimit: Duration = .seconds(31_536_000)
  /// Beyond the time that the configuration gives for writing: 3 s to unmount, 2 s by force, and some (`VolumeKeeper`).
  private static let detachTime: Duration = .seconds(8)

  var service: Service {
    Service(
      "the mount of \(mount.target)", needs: needs,
      readiness: .notified(within: mount.timeout ?? Self.noLimit), end: .staysDown,
      stop: .init(timeout: mount.unmountTimeout + Self.detachTime), holdsFiles: true)
  }

  var reportName: String { "mount-\(number)" }
  var output: ServiceOutput { .together(.service) }

  /// CAP_SYS_ADMIN to mount; CAP_DAC_OVERRIDE for targets in directories that are not open to everybody.
  static let capabilities: UInt64 = 1 << 21 | 1 << 1

  func request(_ ends: inout ServiceEnds) throws -> SpawnRequest {
    let handed = ends.hold(try makeMemoryFile(MountWork(mount).document))
    var request = SpawnRequest(
      .descriptor(executable.rawValue), arguments: ["tombolo-init", "mount"], environment: [],
      descriptors: [ends.null.rawValue, ends.output.rawValue, ends.error.rawValue, handed, ends.readiness.rawValue])
    request.keptCapabilities = Self.capabilities
    return request
  }
}
