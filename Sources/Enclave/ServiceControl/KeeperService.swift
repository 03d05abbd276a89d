import CLinux
import Capabilities
import LinuxSystem
import Supervision

/// The proxy's keeper of verdicts, the one process besides PID 1's other children that has a right of its own; see
/// VerdictKeeper. It lives as long as the proxy.
struct KeeperService: ServiceDescription {
  var proxy: ServiceID
  var executable: FileReference
  /// Its pipe, then the queues' sockets.
  var sockets: [FileReference]

  var service: Service {
    // It has nothing to end in order.
    Service(
      "the proxy's keeper of verdicts", readiness: .started, end: .startedAgainWith(proxy),
      stop: .init(signal: SIGKILL, timeout: .seconds(1)))
  }

  var reportName: String { "keeper" }
  var output: ServiceOutput { .nowhere }

  func request(_ ends: inout ServiceEnds) throws -> SpawnRequest {
    var request = SpawnRequest(
      .descriptor(executable.rawValue), arguments: ["tombolo-init", "verdicts", "\(sockets.count - 1)"],
      environment: [],
      descriptors: [ends.null.rawValue, ends.output.rawValue, ends.error.rawValue] + sockets.map(\.rawValue))
    // Executed by root, it gets what the bounding set has and nothing else (capabilities(7)).
    request.keptCapabilities = CapabilitySet.verdicts.rawValue
    return request
  }
}
