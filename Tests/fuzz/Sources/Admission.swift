import Wire

@testable import HostGateway

/// Any order of sessions, losses, ends and restarts of the host side: there is one session at a time for each peer, a stream
/// without the right token belongs to no boot, and what is kept on disk is read back.
let admission = Harness("admission", limit: 512) { bytes in
  if let saved = BootAdmission.decode(String(decoding: bytes, as: UTF8.self)) {
    let again = BootAdmission.decode(BootAdmission.encode(saved))
    check(again?.count == saved.filter { !$0.known.hasEnded }.count, "what was kept is not read back")
  }
  var choices = Choices(bytes)
  var state = BootAdmission()
  var live: [PeerKey: UInt8] = [:]
  var now: UInt64 = 0
  while !choices.isEmpty {
    let peer = PeerKey(choices.below(3))
    let boot = choices.byte() & 3
    switch choices.below(6) {
    case 0:
      let wrong = choices.flag()
      let decision = state.open(report(boot), token: token(wrong ? 99 : boot * 3 + 1), from: peer, now: now)
      guard case .admitted = decision else { break }
      check(live[peer] == nil, "two sessions of one peer")
      live[peer] = boot
    case 1:
      guard live[peer] != nil else { break }
      state.closed(peer, now: now)
      live[peer] = nil
    case 2: if live[peer] != nil { state.ended(peer) }
    case 3: now &+= UInt64(choices.number(UInt32.self))
    case 4:
      let saved = BootAdmission.decode(BootAdmission.encode(state.known)) ?? []
      check(saved.count <= state.known.count, "more boots than were known")
      state = BootAdmission(saved: saved, now: now)
      live = [:]
    default:
      for channel in Channel.allCases {
        check(state.boot(of: Hello(channel), from: peer) == nil, "no token opens \(channel)")
        check(state.boot(of: Hello(channel, token: token(200)), from: peer) == nil, "a foreign token opens \(channel)")
      }
    }
    check(state.isLive(peer) == (live[peer] != nil), "a session that nobody has")
  }
}

private func token(_ seed: UInt8) -> Token { Token([UInt8](repeating: seed, count: Token.length)) ?? .none }

private func report(_ boot: UInt8) -> StartReport {
  StartReport(
    boot: BootID(high: 1, low: UInt64(boot)), proxyToken: token(boot * 3 + 2), hostToken: token(boot * 3 + 3),
    configurationDigest: [UInt8](repeating: 0, count: StartReport.digestLength), version: "0.1")
}
