import EnclaveConfig
import LinuxSystem
import Proxying
import Supervision
import Wire

/// The networking proxy. Its sockets stay open in PID 1, so that clients of one that died wait for the next.
struct ProxyService: ServiceDescription {
  /// Those that it must not start without: its keeper of verdicts.
  var needs: [ServiceID]
  var executable: FileReference
  var handOver: ProxyHandOver
  /// False in a user namespace with a single id.
  var hasSeparateUser: Bool

  var service: Service {
    Service(
      "the proxy", needs: needs, readiness: .notified(within: .seconds(10)), end: .startedAgain,
      drain: handOver.settings.drain > .zero ? handOver.settings.drain : nil)
  }

  var reportName: String { "proxy" }
  var output: ServiceOutput { .together(.proxy) }

  func request(_ ends: inout ServiceEnds) throws -> SpawnRequest {
    var handOver = handOver
    handOver.descriptors.readiness = ends.readiness
    let (document, files) = handOver.encoded()
    let handed = ends.hold(try makeMemoryFile(document))
    var request = SpawnRequest(
      .descriptor(executable.rawValue), arguments: ["tombolo-init", "proxy"], environment: [],
      descriptors: [ends.null.rawValue, ends.output.rawValue, ends.error.rawValue, handed] + files.map(\.rawValue))
    if hasSeparateUser { request.identity = (Configuration.proxyID, Configuration.proxyID, []) }
    request.keptCapabilities = 0
    request.clearsCapabilities = true
    request.noNewPrivileges = true
    request.openFilesLimit = openFilesCeiling()
    return request
  }
}
