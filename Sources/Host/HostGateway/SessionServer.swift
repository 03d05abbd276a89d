import CLinux
import EventLoop
import HostStatus
import LinuxSystem
import Relaying
import Wire

/// The host's end of sessions: admits boots, checks every other stream, takes reports, passes orders on.
final class SessionServer {
  /// One enclave's session and what it has told.
  private final class Session {
    let report: StartReport
    var stream: SessionStream?
    var services: [(name: String, state: ServiceReport)] = []
    var exit: UInt8?

    init(_ report: StartReport) { self.report = report }
  }

  /// Services that a session may name.
  private static let serviceLimit = 64

  private let loop: EventLoop
  private let offer: RuntimeOffer
  private let store: BootStore?
  private let counters: HostCounters
  private let complaints: ComplaintLog
  private let log: (String) -> Void
  private var admission: BootAdmission
  private var sessions: [PeerKey: Session] = [:]

  /// - Parameters:
  ///   - offer: what there is for every enclave that takes it.
  ///   - store: where boots outlive this process; nil where the enclaves end with it.
  init(
    loop: EventLoop, offer: RuntimeOffer, store: BootStore?, counters: HostCounters, complaints: ComplaintLog,
    log: @escaping (String) -> Void
  ) {
    self.loop = loop
    self.offer = offer
    self.store = store
    self.counters = counters
    self.complaints = complaints
    self.log = log
    let saved = store?.load(log) ?? []
    admission = BootAdmission(saved: saved, now: monotonicNanoseconds())
  }

  /// The boot that the stream belongs to; nil, counted and answered where it proves none.
  func check(_ stream: FileReference, _ hello: Hello, from peer: PeerKey) -> BootID? {
    if let boot = admission.boot(of: hello, from: peer) { return boot }
    counters.strangers.refused { log("\(hello.channel): \($0)") }
    answer(stream, Answer(.denied))
    return nil
  }

  /// What opens streams to the enclave; nil before it has come.
  func hostToken(_ peer: PeerKey) -> Token? { admission.hostToken(peer) }

  func serve(_ stream: FileReference, _ hello: Hello, _ early: [UInt8], from peer: PeerKey) throws {
    let report = try StartReport(parameters: hello.parameters)
    switch admission.open(report, token: hello.token, from: peer, now: monotonicNanoseconds()) {
    case .refused(let reason):
      counters.impostors.refused { log("\($0): \(reason)") }
      answer(stream, Answer(.denied))
    case .later:
      answer(stream, Answer(.noResources))
    case .full:
      complaints.say(.tooManyBoots, "\(BootAdmission.limit) enclaves have a session: there is no room for another one")
      answer(stream, Answer(.noResources))
    case .admitted:
      let session = Session(report)
      do throws(SystemError) {
        session.stream = try SessionStream(loop: loop, socket: stream, early: early) {
          [unowned self, unowned session] type, payload throws(WireError) in
          try take(EnclaveReport(type: type, payload: payload), session, peer)
        } closed: { [unowned self, unowned session] problem in
          if let problem {
            complaints.say(.brokenSessions, "the enclave's session broke the protocol: \(problem)")
          }
          session.stream = nil
          admission.closed(peer, now: monotonicNanoseconds())
        }
      } catch {
        admission.closed(peer, now: monotonicNanoseconds())
        throw error
      }
      if sessions.count >= BootAdmission.limit { sessions = sessions.filter { admission.remembers($0.key) } }
      sessions[peer] = session
      // Before the answer: from it on the enclave counts on being known.
      save()
      answer(stream, Answer(.ok, parameters: offer.parameters))
    }
  }

  private func take(_ report: EnclaveReport, _ session: Session, _ peer: PeerKey) throws(WireError) {
    switch report {
    case .service(let name, let state):
      if let index = session.services.firstIndex(where: { $0.name == name }) {
        session.services[index].state = state
      } else {
        guard session.services.count < Self.serviceLimit else { throw .badValue(what: "number of services") }
        session.services.append((name, state))
      }
    case .exit(let status):
      session.exit = status
      if admission.ended(peer) { save() }
    // Nobody here asks for them yet; metrics will.
    case .counters: break
    }
  }

  private func save() { store?.save(admission.known, log) }

  /// - Returns: false where there is no session to send it over.
  func order(_ order: HostOrder) -> Bool {
    var sent = false
    for session in sessions.values {
      guard let stream = session.stream else { continue }
      stream.send(order.encoded())
      sent = true
    }
    return sent
  }

  /// How the program ended, where a session has said so.
  var exit: UInt8? { sessions.values.compactMap(\.exit).first }

  var status: [HostStatus.Session] {
    sessions.sorted { $0.key < $1.key }.map { peer, session in
      HostStatus.Session(
        cid: peer == 0 ? nil : peer, boot: session.report.boot.description, version: session.report.version,
        configurationDigest: hexadecimal(session.report.configurationDigest),
        policyDigest: session.report.policyDigest.map { hexadecimal($0) }, connected: session.stream != nil,
        services: session.services.map { .init(name: $0.name, state: "\($0.state)") })
    }
  }
}

/// A file of boots, for us alone: it holds their secrets. In the directory of `tombolo status`, which is a runtime directory
/// with mode 0700. It is there for as long as a boot is known that has not ended.
public final class BootStore {
  private static let limit = 4 << 20
  private static let prefix = "boots-"
  private let path: String
  /// Writes it for a host side that may not; nil where it does so itself.
  var write: (([UInt8]) throws(SystemError) -> Void)?

  /// - Parameter place: where the host side listens; two host sides never listen at one place.
  public init(_ place: SocketAddress) throws(SystemError) {
    let directory = try StatusDirectory.make()
    path = "\(directory)/\(Self.name(place))"
    Self.forgetLostPlaces(directory)
  }

  /// The path of a Unix socket with its slashes as `%2f`, so that it can be read back.
  private static func name(_ place: SocketAddress) -> String {
    let text: String
    switch place {
    case .unix(let socket):
      text = "unix:" + (realPath(parent(socket)) ?? parent(socket)) + "/" + (socket.split(separator: "/").last ?? "")
    case .vsock(_, let port): text = "vsock:\(port)"
    case .ip(let endpoint): text = "ip:\(endpoint)"
    }
    return prefix
      + text.utf8.reduce(into: "") { name, byte in
        switch byte {
        case UInt8(ascii: "/"): name += "%2f"
        case UInt8(ascii: "%"): name += "%25"
        default: name.unicodeScalars.append(UnicodeScalar(byte))
        }
      }
  }

  private static func parent(_ path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  /// A directory that is gone has no enclave any more.
  private static func forgetLostPlaces(_ directory: String) {
    for name in (try? directoryEntries(directory)) ?? [] where name.hasPrefix(prefix + "unix:") {
      let socket = name.dropFirst(prefix.utf8.count + 5).split(separator: "%2f", omittingEmptySubsequences: false)
        .map { $0.split(separator: "%25", omittingEmptySubsequences: false).joined(separator: "%") }
        .joined(separator: "/")
      if fileKind(parent(socket)) == nil { removeFile("\(directory)/\(name)") }
    }
  }

  func load(_ log: (String) -> Void) -> [(peer: PeerKey, known: KnownBoot)] {
    guard fileKind(path, followLinks: false) == .file else { return [] }
    guard let owner = fileOwner(path, followLinks: false), owner.user == effectiveUserID(), owner.mode & 0o077 == 0,
      let text = try? readText(path, limit: Self.limit), let boots = BootAdmission.decode(text)
    else {
      log("\(path) is not what this program writes, and is passed over: enclaves that run must be started again")
      return []
    }
    return boots
  }

  /// Whole or not at all, under another name first.
  func save(_ boots: [(peer: PeerKey, known: KnownBoot)], _ log: (String) -> Void) {
    let isEmpty = !boots.contains { !$0.known.hasEnded }
    let bytes = isEmpty ? [] : Array(BootAdmission.encode(boots).utf8)
    do throws(SystemError) {
      if let write { try write(bytes) } else { try replace(bytes) }
    } catch {
      log("\(error): a restart of this daemon will not know the enclave's boot")
    }
  }

  /// - Parameter bytes: of the file; none for no file.
  func replace(_ bytes: [UInt8]) throws(SystemError) {
    guard !bytes.isEmpty else {
      removeFile(path)
      return
    }
    removeFile(path + ".new")
    try writeFile(path + ".new", bytes, mode: 0o600)
    try renameFile(path + ".new", to: path)
  }
}
