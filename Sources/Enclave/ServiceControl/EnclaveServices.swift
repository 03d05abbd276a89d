import BootPlanning
import CLinux
import EnclaveConfig
import LinuxSystem
import Proxying
import Supervision

/// The services of an enclave, from what the boot has found and opened.
public struct EnclaveServices {
  public var configuration: Configuration
  /// What is to be started, in the plan's order.
  public var planned: [PlannedService]
  /// What the proxy is handed, where one is planned.
  public var proxyHandOver: ProxyHandOver?
  /// What the keeper of verdicts is handed, where one is planned.
  public var keeperSockets: [FileReference] = []
  /// What the DNS client is handed, where one is planned.
  public var dnsClient: DNSClientHandOver?
  /// What the attestation service is handed, where one is planned.
  public var attestation: AttestationHandOver?
  /// The program's standard input; nil for /dev/null.
  public var programInput: FileReference?
  /// Users and groups from 0 to below this exist: 1 in a user namespace with a single id.
  public var userCount: UInt32 = .max

  /// The enclave is made of namespaces of a machine whose devices are not its own.
  public var isLocal = false

  public init(_ configuration: Configuration, _ planned: [PlannedService]) {
    self.configuration = configuration
    self.planned = planned
  }

  /// A service's place in the list is its id.
  func descriptions(_ log: @escaping (Configuration.LogLevel, String) -> Void) throws -> [any ServiceDescription] {
    var list: [any ServiceDescription] = []
    // What the next one waits for.
    var needs: [ServiceID] = []
    // What brings the network, and what has been mounted over it.
    var network: [ServiceID] = []
    var mounts: [(target: String, id: ServiceID)] = []
    // By descriptor: after the root has changed the file may have no name any more.
    func executable() throws(SystemError) -> FileReference { FileReference(try openFile("/proc/self/exe", O_PATH)) }
    for service in planned {
      let id = ServiceID(list.count)
      if case .mount(let mount) = service {
        // Each waits for those that it needs, and the next service for none of them but those that are required.
        let others = mount.after.compactMap { target in mounts.first { $0.target == target }?.id }
        list.append(
          MountService(
            number: mounts.count + 1, needs: network + others, executable: try executable(), mount: mount.settings))
        mounts.append((mount.settings.target, id))
        if mount.settings.isRequired { needs.append(id) }
        continue
      }
      switch service {
      case .keeper:
        list.append(
          KeeperService(proxy: ServiceID(id.index + 1), executable: try executable(), sockets: keeperSockets))
      case .dnsClient(let servers):
        guard let dnsClient else { throw MissingHandOver(service: "the DNS client") }
        list.append(
          DNSClientService(
            needs: needs, executable: dnsClient.executable, servers: servers, certificates: dnsClient.certificates,
            link: dnsClient.link, hasSeparateUser: userCount > Configuration.proxyID))
      case .attestation(let settings):
        guard let attestation else { throw MissingHandOver(service: "the attestation service") }
        list.append(
          AttestationService(
            handOver: attestation, settings: settings, hasSeparateUser: userCount > Configuration.attestationID))
      case .proxy:
        guard let proxyHandOver else { throw MissingHandOver(service: "the proxy") }
        list.append(
          ProxyService(
            needs: needs, executable: try executable(), handOver: proxyHandOver,
            hasSeparateUser: userCount > Configuration.proxyID))
      case .mount: break
      case .program:
        list.append(
          ProgramService(
            needs: needs, configuration: configuration, isLocal: isLocal,
            input: try programInput ?? FileReference(openFile("/dev/null", O_RDONLY)), hasOtherUsers: userCount > 1,
            warn: { log(.warning, $0) }))
      }
      // The keeper waits for nobody; who comes next waits for what stood before it as well.
      if case .keeper = service { needs.append(id) } else { needs = [id] }
      network = needs
    }
    return list
  }
}

/// What has been opened for the DNS client.
public struct DNSClientHandOver {
  public var executable: FileReference
  public var certificates: [UInt8]
  public var link: FileReference

  public init(executable: FileReference, certificates: [UInt8], link: FileReference) {
    self.executable = executable
    self.certificates = certificates
    self.link = link
  }
}

/// A service is planned, and nothing has been opened for it.
struct MissingHandOver: Error, CustomStringConvertible {
  var service: String
  var description: String { "\(service) has nothing to be handed" }
}
