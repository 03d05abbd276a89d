import HeldConnections
import Inet
import Packets

/// Packets of a program that knows the addresses, answers of the host in any order, sockets that are accepted and closed at any
/// time: nothing is read outside of a frame, what is kept is bounded, and no connection is handed out twice.
let heldSegments = Harness("held-segments", limit: 2048) { bytes in
  var choices = Choices(bytes)
  var settings = HeldConnections.Settings(
    listener4: IPv4Address(10, 118, 0, 2), listener6: IPv6Address(high: 1, low: 2), listenerPort: 61080,
    virtual4: IPv4Address(10, 118, 0, 8), virtual6: IPv6Address(high: 1, low: 256))
  settings.ports = 2000...2003
  settings.virtualCount = 2
  settings.heldLimit = 4
  var table = HeldConnections(settings)
  var ids: [HeldConnections.ID] = []
  var accepted: Set<HeldConnections.ID> = []
  var now: UInt32 = 0
  while !choices.isEmpty {
    switch choices.below(8) {
    case 0: take(choices.bytes(choices.below(256)))
    case 1: now &+= UInt32(choices.byte())
    case 2:
      for id in table.tick(now: now) { check(!accepted.contains(id), "an accepted connection was given up") }
    case 3:
      guard !ids.isEmpty else { continue }
      let id = ids[choices.below(ids.count)]
      let answers: [HeldConnections.Answer] = [
        .connected, .connected, .connected, .refused, .silence, .unreachable(.network), .unreachable(.prohibited),
      ]
      switch table.answer(id, answers[choices.below(answers.count)], now: now) {
      case .frame(let frame), .reset(let frame): check(frame.count >= 50, "a frame without a packet")
      case .nothing: break
      }
    case 4:
      let port = UInt16(2000 + choices.below(4))
      let number = choices.below(2)
      let peer =
        choices.flag()
        ? IPEndpoint(.v4(IPv4Address(10, 118, 0, 8 + UInt8(number))), port)
        : IPEndpoint(.v6(IPv6Address(high: 1, low: 256 + UInt64(number))), port)
      if let found = table.accepted(from: peer) {
        check(accepted.insert(found.id).inserted, "a connection was handed out twice")
      }
    case 5:
      guard !ids.isEmpty else { continue }
      table.closed(ids[choices.below(ids.count)])
    default: take(segment(&choices))
    }
    check(table.entryCount <= 8 && table.heldCount <= 4, "more is kept than may be")
  }

  func take(_ made: [UInt8]) {
    var frame = made
    let verdict = frame.withUnsafeMutableBytes { table.take($0, now: now) }
    check(frame.count == made.count, "a frame has another length")
    if case .ask(let id, _, _) = verdict { ids.append(id) }
  }
}

private func segment(_ choices: inout Choices) -> [UInt8] {
  let is6 = choices.flag()
  let program: [UInt8] = is6 ? [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2] : [10, 118, 0, 2]
  let server: [UInt8] = is6 ? [0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9] : [10, 9, 0, 2]
  let virtual: [UInt8] = is6 ? [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0] : [10, 118, 0, 8]
  let isListener = choices.flag()
  let ports: [UInt8] = isListener ? [0xee, 0x98, 7, 208 + choices.byte() & 3] : [156, choices.byte() & 7, 1, 187]
  let tcp = ports + [0, 0, 0, 1, 0, 0, 0, 1, 0x50, choices.byte() & 0x17, 255, 255, 0, 0, 0, 0]
  var frame = [UInt8](repeating: 0, count: PacketGuard.offloadHeaderLength)
  frame[0] = choices.byte() & 1
  if is6 {
    frame += [0x60, 0, 0, 0, 0, 20, 6, 64]
  } else {
    frame += [0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0]
  }
  return frame + program + (isListener ? virtual : server) + tcp
}
