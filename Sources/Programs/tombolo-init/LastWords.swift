import BootPlanning
import Booting
import Digests
import EnclaveConfig
import EventLoop
import LinuxSystem
import LogForwarding
import Relaying
import Wire

/// The end of a start that failed, told to the host over the log channel: an enclave in production has no console.
enum LastWords {
  /// What `tombolo run` and `tombolo boot` end with where no program ran.
  static let status: UInt8 = 125
  private static let capacity = 64 << 10
  private static let sessionTimeout: Duration = .seconds(1)
  private static let drain: Duration = .seconds(2)

  /// Waits for the host to have it: each CID is tried once, for at most a second, and the rest takes at most two more.
  /// Whatever goes wrong here stays unsaid: the sentence is on the console by now.
  static func deliver(_ sentence: String, _ configuration: Configuration) {
    guard let target = target(configuration), let loop = try? EventLoop() else { return }
    // A host that does not know this boot yet takes no log of it. Where there is a session already it refuses another.
    let session = try? HostQuestions.session(
      target, BootIdentity.own.hello(ConfigurationDigest()), timeout: sessionTimeout)
    let forwarder = LogForwarder(
      loop: loop, target: target, token: BootIdentity.own.secrets.session,
      settings: .init(capacity: capacity, patience: .zero, drain: drain))
    forwarder.append(.initProcess, Array("error: \(sentence)\n".utf8))
    forwarder.append(.initProcess, .exit(status))
    forwarder.start()
    forwarder.drain { loop.stop() }
    withExtendedLifetime((forwarder, session)) { try? loop.run() }
  }

  private static func target(_ configuration: Configuration) -> StreamTarget? {
    switch configuration.transport {
    case .unix(let directory): return StreamTarget(.unix(EnclaveLayout.hostSocket(in: directory)))
    case .vsock:
      let port = configuration.parentPort
      guard let cid = try? ParentSearch.find(cid: configuration.parentCID, port: port, timeout: .zero) else {
        return nil
      }
      return StreamTarget(.vsock(cid: cid, port: port))
    }
  }
}
