import CLinux
import EnclaveConfig
import LinuxSystem
import Proxying
import Supervision

/// The services of an enclave, from what the boot has found and opened.
public struct EnclaveServices {
  public var configuration: Configuration
  /// nil in mode "none".
  public var proxyHandOver: ProxyHandOver?
  /// What the keeper of verdicts is handed; empty where there is none.
  public var keeperSockets: [FileHandle] = []
  /// The program's standard input; nil for /dev/null.
  public var programInput: FileHandle?
  /// Users and groups from 0 to below this exist: 1 in a user namespace with a single id.
  public var userCount: UInt32 = .max

  /// The enclave is made of namespaces of a machine whose devices are not its own.
  public var isLocal = false

  public init(_ configuration: Configuration) { self.configuration = configuration }

  /// The keeper, the proxy and the program, as far as there are such. A service's place in the list is its id.
  func descriptions(_ log: @escaping (Configuration.LogLevel, String) -> Void) throws -> [any ServiceDescription] {
    var list: [any ServiceDescription] = []
    var needs: [ServiceID] = []
    if let proxyHandOver {
      // By descriptor: after the root has changed the file may have no name any more.
      let executable = FileHandle(try openFile("/proc/self/exe", O_PATH))
      if !keeperSockets.isEmpty {
        needs = [ServiceID(0)]
        list.append(KeeperService(proxy: ServiceID(1), executable: executable, sockets: keeperSockets))
      }
      let proxy = ServiceID(list.count)
      list.append(
        ProxyService(
          needs: needs, executable: executable, handOver: proxyHandOver,
          hasSeparateUser: userCount > Configuration.proxyID))
      needs = [proxy]
    }
    list.append(
      ProgramService(
        needs: needs, configuration: configuration, isLocal: isLocal,
        input: try programInput ?? FileHandle(openFile("/dev/null", O_RDONLY)), hasOtherUsers: userCount > 1,
        warn: { log(.warning, $0) }))
    return list
  }
}
