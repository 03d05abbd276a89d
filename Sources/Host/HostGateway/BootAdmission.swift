import Wire

// Which boot the enclave at the other end is in, and what it must prove. Pure: time is handed in, streams are elsewhere.
//
// The first session that comes from a peer is believed: PID 1 opens it before there is any other process in the enclave. From
// then on that boot's secrets are needed, until it has ended. A session of another boot is a new start of the enclave, or
// somebody inside who would like to be taken for one. So the boot that is known has time to come back first: while its
// session lives every other is refused, and for two seconds after it was lost every other is put off.

/// Who is at the other end: a vsock CID, or 0 where the transport has one enclave.
typealias PeerKey = UInt32

/// One boot as the host knows it.
struct KnownBoot: Equatable, Sendable {
  var boot: BootID
  var secrets: BootSecrets
  /// It has said how its program ended, and will not be back.
  var hasEnded = false
}

struct BootAdmission {
  enum Decision: Equatable {
    /// `isNew`: the first session of that boot.
    case admitted(isNew: Bool)
    /// To be tried again: the boot that is known may still come back.
    case later
    /// There are as many enclaves as are remembered.
    case full
    case refused(String)
  }

  /// From the loss of a session, or from the start of a host side that knows the boot, until another one is believed: eight
  /// times the longest pause of a PID 1 that comes back.
  static let grace: Duration = .seconds(2)
  /// CIDs that are remembered at most; more enclaves than one machine holds.
  static let limit = 4096

  private struct Peer {
    var known: KnownBoot
    var isLive: Bool
    /// Nanoseconds of the monotonic clock.
    var reservedUntil: UInt64
  }

  private var peers: [PeerKey: Peer] = [:]

  init() {}

  /// - Parameter saved: boots that a host side before this one knew.
  init(saved: [(peer: PeerKey, known: KnownBoot)], now: UInt64) {
    for (peer, known) in saved.prefix(Self.limit) {
      peers[peer] = Peer(known: known, isLive: false, reservedUntil: now &+ Self.grace.nanosecondCount)
    }
  }

  var known: [(peer: PeerKey, known: KnownBoot)] {
    peers.map { ($0.key, $0.value.known) }.sorted { $0.peer < $1.peer }
  }

  mutating func open(_ report: StartReport, token: Token, from peer: PeerKey, now: UInt64) -> Decision {
    let secrets = BootSecrets(session: token, proxy: report.proxyToken, host: report.hostToken)
    guard let current = peers[peer] else {
      guard peers.count < Self.limit || makeRoom(now) else { return .full }
      return admit(report.boot, secrets, peer)
    }
    if current.known.boot == report.boot {
      // All three, so that nobody with one of them can change the others.
      guard current.known.secrets.session.matches(token), current.known.secrets.proxy.matches(report.proxyToken),
        current.known.secrets.host.matches(report.hostToken)
      else { return .refused("it does not have the secrets of the boot that it names") }
      guard !current.isLive else { return .refused("this boot has a session already") }
      peers[peer]?.isLive = true
      return .admitted(isNew: false)
    }
    if current.isLive { return .refused("another boot has a session") }
    guard current.known.hasEnded || now >= current.reservedUntil else { return .later }
    return admit(report.boot, secrets, peer)
  }

  /// Forgets those who may not come back: their boot has ended, or has had its time for that.
  private mutating func makeRoom(_ now: UInt64) -> Bool {
    peers = peers.filter { $0.value.isLive || !$0.value.known.hasEnded && now < $0.value.reservedUntil }
    return peers.count < Self.limit
  }

  func remembers(_ peer: PeerKey) -> Bool { peers[peer] != nil }

  private mutating func admit(_ boot: BootID, _ secrets: BootSecrets, _ peer: PeerKey) -> Decision {
    guard secrets.session != .none else { return .refused("its token is zeros") }
    peers[peer] = Peer(known: KnownBoot(boot: boot, secrets: secrets), isLive: true, reservedUntil: 0)
    return .admitted(isNew: true)
  }

  /// The session of that peer was lost or has ended.
  mutating func closed(_ peer: PeerKey, now: UInt64) {
    peers[peer]?.isLive = false
    peers[peer]?.reservedUntil = now &+ Self.grace.nanosecondCount
  }

  /// - Returns: whether that is new.
  @discardableResult
  mutating func ended(_ peer: PeerKey) -> Bool {
    guard let known = peers[peer]?.known, !known.hasEnded else { return false }
    peers[peer]?.known.hasEnded = true
    return true
  }

  /// The boot that a stream belongs to, where it proves it. Also while there is no session: PID 1 is about to open it again.
  func boot(of hello: Hello, from peer: PeerKey) -> BootID? {
    guard let known = peers[peer]?.known, known.secrets.token(for: hello.channel).matches(hello.token) else {
      return nil
    }
    return known.boot
  }

  /// What opens streams to the enclave.
  func hostToken(_ peer: PeerKey) -> Token? { peers[peer]?.known.secrets.host }

  func isLive(_ peer: PeerKey) -> Bool { peers[peer]?.isLive == true }
}

extension Duration {
  fileprivate var nanosecondCount: UInt64 {
    let (seconds, attoseconds) = components
    return UInt64(clamping: seconds) &* 1_000_000_000 &+ UInt64(clamping: attoseconds / 1_000_000_000)
  }
}

// MARK: what is kept for a host side that comes after this one

extension BootAdmission {
  private static let heading = "tombolo boots 1"

  /// A line for each boot that has not ended: peer, boot, three tokens in hexadecimal.
  static func encode(_ boots: [(peer: PeerKey, known: KnownBoot)]) -> String {
    boots.filter { !$0.known.hasEnded }.reduce(into: heading + "\n") { text, entry in
      let secrets = entry.known.secrets
      text += "\(entry.peer) \(entry.known.boot)"
      for token in [secrets.session, secrets.proxy, secrets.host] { text += " " + hexadecimal(token.bytes) }
      text += "\n"
    }
  }

  /// nil where the text is not what `encode` makes.
  static func decode(_ text: String) -> [(peer: PeerKey, known: KnownBoot)]? {
    var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    guard lines.first == Substring(heading), lines.last == "" else { return nil }
    lines = Array(lines.dropFirst().dropLast())
    var boots: [(peer: PeerKey, known: KnownBoot)] = []
    for line in lines {
      let words = line.split(separator: " ", omittingEmptySubsequences: false)
      guard words.count == 5, let peer = PeerKey(words[0]), let boot = BootID(words[1]),
        let session = token(words[2]), let proxy = token(words[3]), let host = token(words[4])
      else { return nil }
      boots.append((peer, KnownBoot(boot: boot, secrets: BootSecrets(session: session, proxy: proxy, host: host))))
    }
    return boots
  }

  private static func token(_ text: Substring) -> Token? {
    let digits = Array(text.utf8)
    guard digits.count == 2 * Token.length else { return nil }
    var bytes: [UInt8] = []
    for index in stride(from: 0, to: digits.count, by: 2) {
      guard digits[index..<index + 2].allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }),
        let byte = UInt8(String(decoding: digits[index..<index + 2], as: UTF8.self), radix: 16)
      else { return nil }
      bytes.append(byte)
    }
    return Token(bytes)
  }
}
