import CLinux
import Inet
import LinuxSystem
import Netfilter
import Netlink

// What of a shared address changes the machine, and its undoing: a ruleset, and the range from which the host's own connections
// take their ports. Both are written down before they are made (`HostState`). In words: `configure` with two prefixes, the MTU
// and the number of queues.

/// The machine's side of an enclave that shares its address.
final class SharedLink: PrivilegedLink {
  /// The first queue of nfnetlink_queue, for datagrams; those for TCP follow.
  static let firstQueue: UInt16 = 7766
  /// Hundreds of rules would be looked at for every packet.
  private static let keptLimit = 256

  let name: String
  /// The socket of the first two queues, until its user takes it.
  private var first: FileReference?
  private let ports: PortRanges
  private let firewall: PacketFilter?
  private let log: (String) -> Void
  private var state: HostState
  private var isOver = false

  /// Binds the first queues, so that a missing right is found before anything is started, and takes over what a killed
  /// gateway left.
  init(on link: String, ports: PortRanges, firewall: PacketFilter?, log: @escaping (String) -> Void) throws {
    name = link
    self.ports = ports
    self.firewall = firewall
    self.log = log
    state = try HostState()
    first = try state.enter { former in
      // Of another kind, whose traces are removed instead.
      if let former, former != SharedRuleset.name { throw SystemError("open", former, errno: EEXIST) }
      return (try Self.openFirst(), name: SharedRuleset.name)
    }
  }

  deinit { close() }

  /// Those that a killed gateway leaves hold its queues until they have seen that: for a moment a queue that is another's
  /// says nothing.
  private static func openFirst() throws -> FileReference {
    for _ in 0..<50 {
      guard CaptureSocket.isBound(firstQueue) else { break }
      sleepMilliseconds(20)
    }
    do throws(NetlinkError) {
      return try CaptureSocket.open([
        .init(firstQueue, takesSuperPackets: false), .init(firstQueue + 1, takesSuperPackets: true),
      ])
    } catch {
      if let missing = CaptureSocket.missing(error) {
        throw RawGatewayError(sentence: "capture = \"nfqueue\": \(missing) (\(error))")
      }
      guard error.errno == EPERM else { throw error }
      // The same error for a missing right and for somebody else's queue.
      if CaptureSocket.isBound(firstQueue) {
        throw RawGatewayError(
          sentence: "another enclave shares this machine's address already, or another program has packet queue "
            + "\(firstQueue) (\(error))")
      }
      throw RawGatewayError(
        sentence:
          "raw mode joins the enclave to this machine's network, which needs root or CAP_NET_ADMIN here (\(error))")
    }
  }

  /// - Returns: the sockets that it has opened: the one of the first two queues.
  func takeSockets() -> [FileReference] {
    defer { first = nil }
    return first.map { [$0] } ?? []
  }

  var held: [FileReference] { state.held }

  func answer(_ words: [String]) throws -> (words: [String], files: [FileReference]) {
    guard words.first == "configure" else { throw RawGatewayError(sentence: "no such request") }
    return ([try configure(HostTunnel.Shape(words: words.dropFirst())).rawValue], [])
  }

  /// Sets up ports and rules, for queues that are bound.
  private func configure(_ wanted: HostTunnel.Shape) throws -> PacketFilter {
    let asked = [wanted.address4?.address, wanted.address6?.address].compactMap { $0 }
    guard let range = ports.rest.widest else {
      throw RawGatewayError(sentence: "the enclave's ports leave none for the host's own connections")
    }
    try state.usePorts(range)
    let kept = connections(asked)
    func rules(whole: Bool) -> Ruleset {
      SharedRuleset.make(
        addresses: asked, ports: ports, firstQueue: Self.firstQueue, queues: Int(wanted.queues), kept: kept,
        whole: whole)
    }
    do {
      do {
        return try PacketFilter.install(rules(whole: true), with: firewall)
      } catch is NoPacketFilter {
        let backend = try PacketFilter.install(rules(whole: false), with: firewall)
        if wanted.address6 != nil {
          log("raw mode: without nft_socket or xt_socket in this kernel, fragments of IPv6 do not reach the enclave")
        }
        return backend
      }
    } catch let error as NoPacketFilter {
      throw RawGatewayError(
        sentence: "capture = \"nfqueue\" needs nft_queue (CONFIG_NFT_QUEUE) or xt_NFQUEUE "
          + "(CONFIG_NETFILTER_XT_TARGET_NFQUEUE): \(error)")
    }
  }

  /// Those of the host's connections that go on, and a word on programs that will wait in vain.
  private func connections(_ asked: [IPAddress]) -> [HostConnection] {
    let texts = ["tcp", "tcp6"].compactMap { try? readText("/proc/thread-self/net/\($0)", limit: 16 << 20) }
    let listening = Set(
      texts.flatMap { HostConnection.listeners($0) }.filter {
        ($0.local.address == .v4(.any) || $0.local.address == .v6(.any) || asked.contains($0.local.address))
          && ports.contains($0.local.port)
      }.map(\.local.port)
    )
    if !listening.isEmpty {
      log(
        "raw mode: programs of this machine listen on ports that are the enclave's now: "
          + PortRanges(listening.map { $0...$0 }).description)
    }
    let kept = texts.flatMap { HostConnection.parse($0) }.filter {
      asked.contains($0.local.address) && !asked.contains($0.remote.address) && ports.contains($0.local.port)
    }
    if kept.count > Self.keptLimit {
      log("raw mode: of this machine's \(kept.count) connections from the enclave's ports \(Self.keptLimit) go on")
    }
    return Array(kept.prefix(Self.keptLimit))
  }

  func abandon() {
    isOver = true
    state.abandon()
  }

  func close() {
    guard !isOver else { return }
    isOver = true
    state.leave()
  }
}

extension LinkAccess where Link == SharedLink {
  /// - Returns: what the rules are made with.
  func configure(_ wanted: HostTunnel.Shape) throws -> PacketFilter {
    guard let backend = PacketFilter(rawValue: try request(["configure"] + wanted.words).words.joined(separator: " "))
    else { throw SystemError("configure", name, errno: EPROTO) }
    return backend
  }
}
