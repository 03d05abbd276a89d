import CLinux
import EnclaveConfig
import LinuxSystem
import Supervision
import Wire

/// The user's program.
struct ProgramService: ServiceDescription {
  /// The proxy, where there is a network.
  var needs: [ServiceID]
  var configuration: Configuration
  var isLocal: Bool
  var input: FileReference
  /// False in a user namespace with a single id.
  var hasOtherUsers: Bool
  var warn: (String) -> Void

  var service: Service {
    Service(
      "the program", needs: needs, readiness: .started, end: .endsEnclave,
      stop: .init(
        signal: configuration.program.stopSignal, timeout: configuration.program.stopTimeout, patience: .seconds(2)))
  }

  var reportName: String { "program" }
  var output: ServiceOutput { .apart(output: .programOutput, error: .programError) }

  func request(_ ends: inout ServiceEnds) throws -> SpawnRequest {
    let launch = try ProgramLaunch(
      configuration.program, hostname: configuration.hostname, hasAttestation: configuration.needsAttestation)
    var request = SpawnRequest(
      .path(launch.path), arguments: launch.arguments, environment: launch.environment,
      descriptors: [input.rawValue, ends.output.rawValue, ends.error.rawValue])
    request.workingDirectory = launch.workingDirectory
    request.confine(configuration.program.rights, isLocal: isLocal, warn: warn)
    // Root too: the process that started us may have had supplementary groups.
    if configuration.program.user != nil || hasOtherUsers {
      // With its own group among the supplementary ones, as initgroups(3) and Docker do: else a program that changes its
      // group (a set-group-ID one) would get past a mode that denies that group (CVE-2022-36109).
      let account = launch.account
      request.identity = (account.uid, account.gid, [account.gid] + account.groups.filter { $0 != account.gid })
      request.setsGroups = hasOtherUsers
      if launch.account.uid != userID() { givePipes(request.descriptors, to: launch.account.uid) }
    }
    return request
  }

  /// A process that opens /dev/stdout anew needs a right to the pipe, which PID 1 has made as root.
  private func givePipes(_ descriptors: [Int32], to user: UInt32) {
    for fd in descriptors {
      do throws(SystemError) {
        try givePipe(fd, to: user)
      } catch {
        // Under an init that has kept CAP_CHOWN from us: what is open works all the same.
        warn("the program's user cannot open descriptor \(fd) again: \(error)")
      }
    }
  }

  func failure(_ error: any Error) -> (sentence: String, status: UInt8) {
    let failure = (error as? SpawnError).map { ProgramLaunch.failure($0) } ?? error as? ProgramLaunch.Failure
    return failure.map { ($0.sentence, $0.status) } ?? ("\(error)", 125)
  }
}
