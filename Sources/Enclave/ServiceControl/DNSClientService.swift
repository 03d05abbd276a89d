import EnclaveConfig
import LinuxSystem
import Policy
import Roles
import Supervision
import Wire

/// The process that asks the servers of `dns.upstream`: a program of its own, because the TLS in it is a library's. It is the
/// proxy's user, opens nothing, and talks to the proxy alone.
struct DNSClientService: ServiceDescription {
  var needs: [ServiceID]
  var executable: FileReference
  var servers: [UpstreamServer]
  var certificates: [UInt8]
  /// Its end of the pair to the proxy.
  var link: FileReference
  /// False in a user namespace with a single id.
  var hasSeparateUser: Bool

  /// The document, and behind it what it names.
  private static let firstDescriptor: UInt32 = 4

  var service: Service {
    Service("the DNS client", needs: needs, readiness: .notified(within: .seconds(10)), end: .startedAgain)
  }

  var reportName: String { "dns" }
  var output: ServiceOutput { .together(.proxy) }

  func request(_ ends: inout ServiceEnds) throws -> SpawnRequest {
    let plan = UpstreamPlan(
      servers: servers, certificates: certificates, link: Self.firstDescriptor, readiness: Self.firstDescriptor + 1)
    let handed = ends.hold(try makeMemoryFile(plan.document))
    var request = SpawnRequest(
      .descriptor(executable.rawValue), arguments: ["tombolo-dns", "--handed"], environment: [],
      descriptors: [
        ends.null.rawValue, ends.output.rawValue, ends.error.rawValue, handed, link.rawValue, ends.readiness.rawValue,
      ])
    if hasSeparateUser { request.identity = (Configuration.proxyID, Configuration.proxyID, []) }
    request.keptCapabilities = 0
    request.clearsCapabilities = true
    request.noNewPrivileges = true
    return request
  }
}
