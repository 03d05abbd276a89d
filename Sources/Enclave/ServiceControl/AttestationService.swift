import BootPlanning
import EnclaveConfig
import LinuxSystem
import Roles
import Supervision
import Wire

/// What has been opened for the attestation service.
public struct AttestationHandOver {
  public var executable: FileReference
  /// nil: one is simulated.
  public var module: FileReference?
  public var listeners: [FileReference]
  /// nil: all.
  public var callers: [UInt32]?
  /// What the host gave, as it is measured.
  public var runtime: [UInt8]
  /// The files of private halves, in the configuration's order.
  public var keys: [FileReference] = []
  /// Where the service keeps the public halves for its next life; nil without keys.
  public var publicHalves: FileReference?
  /// The two files of `attestation.document`; empty without.
  public var document: [FileReference] = []

  public init(
    executable: FileReference, module: FileReference?, listeners: [FileReference], callers: [UInt32]?, runtime: [UInt8]
  ) {
    self.executable = executable
    self.module = module
    self.listeners = listeners
    self.callers = callers
    self.runtime = runtime
  }
}

/// The process that has the security module: a user of its own, which opens nothing.
struct AttestationService: ServiceDescription {
  var handOver: AttestationHandOver
  var settings: AttestationSettings
  /// False in a user namespace with a single id.
  var hasSeparateUser: Bool

  /// The document, and behind it what it names.
  private static let firstDescriptor: UInt32 = 4

  var service: Service {
    // The driver itself waits for the device for up to 120 s.
    Service("the attestation service", readiness: .notified(within: .seconds(150)), end: .startedAgain)
  }

  var reportName: String { "attestation" }
  var output: ServiceOutput { .together(.proxy) }

  func request(_ ends: inout ServiceEnds) throws -> SpawnRequest {
    var files = [ends.readiness.rawValue]
    func number(_ file: FileReference) -> UInt32 {
      files.append(file.rawValue)
      return Self.firstDescriptor + UInt32(clamping: files.count - 1)
    }
    let keys = zip(settings.keys, handOver.keys).map { key, file in
      AttestationPlan.Key(
        name: key.name, type: key.kind.rawValue, isRaw: key.publicForm == .raw, file: number(file))
    }
    let plan = AttestationPlan(
      module: handOver.module.map(number), listeners: handOver.listeners.map(number), callers: handOver.callers,
      registers: settings.registers.map { UInt32($0) }, runtimeRegister: UInt32(settings.runtimeRegister),
      runtime: handOver.runtime, rate: settings.rate, keys: keys,
      publicHalves: handOver.publicHalves.map(number), documentFiles: handOver.document.map(number),
      readiness: Self.firstDescriptor)
    let handed = ends.hold(try makeMemoryFile(plan.document))
    var request = SpawnRequest(
      .descriptor(handOver.executable.rawValue), arguments: ["tombolo-attest", "--handed"], environment: [],
      descriptors: [ends.null.rawValue, ends.output.rawValue, ends.error.rawValue, handed] + files)
    if hasSeparateUser { request.identity = (Configuration.attestationID, Configuration.attestationID, []) }
    // The one directory in which it may do something.
    if !handOver.document.isEmpty { request.workingDirectory = EnclaveLayout.documentDirectory }
    request.keptCapabilities = 0
    request.clearsCapabilities = true
    request.noNewPrivileges = true
    return request
  }
}
