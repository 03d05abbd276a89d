import Flows
import Inet
import Packets
import Policy
import TLS

/// Packets of a program that knows the rules, of any bytes, and segments of one connection that are lost, come again and
/// overlap: nothing is read outside of a frame, what is remembered is bounded, and the server never has a whole ClientHello for a
/// name that is denied.
let flows = Harness("flows", limit: 2048) { bytes in
  var choices = Choices(bytes)
  var sni = SNISettings()
  sni.check = choices.flag() ? .require : .check
  var judge = FlowJudge(
    Destinations(EgressRules(isOpen: false, allow: [DestinationRule(.name(ok))])), sni: sni, queries: .nobody,
    published: [80], limit: 16)
  var now: UInt32 = 1
  func leaving(_ frame: [UInt8]) -> Bool {
    frame.withUnsafeBytes { bytes in
      guard let packet = FlowPacket(bytes, isLeaving: true) else { return false }
      check(packet.payload.upperBound <= bytes.count, "a payload behind the frame")
      for datagram in packet.datagrams { check(datagram.upperBound <= bytes.count, "a datagram behind the frame") }
      switch judge.leaving(packet, packet.mark, bytes, now: now, { $0 == server ? [ok] : [] }) {
      case .open, .pass, .release: return true
      case .drop: return false
      case .refuse(let denial), .end(let denial, _):
        check(!denial.description.isEmpty, "a denial without a reason")
        return false
      }
    }
  }
  func entering(_ frame: [UInt8]) {
    frame.withUnsafeBytes { bytes in
      guard let packet = FlowPacket(bytes, isLeaving: false), judge.watch.isWanted(packet) else { return }
      _ = judge.entering(packet, packet.mark, now: now)
    }
  }
  _ = leaving(segment(leaving: true, 2, 0, 0, []))
  entering(segment(leaving: false, 0x12, 7, 1, []))
  var got: [UInt8?] = Array(repeating: nil, count: 512)
  var row = 0
  while !choices.isEmpty {
    switch choices.below(8) {
    case 0: _ = leaving(choices.bytes(choices.below(256)))
    case 1: entering(choices.bytes(choices.below(256)))
    case 2:
      now += UInt32(choices.byte())
      for (headers, verdict) in judge.overdue(now: now).ended {
        guard case .end = verdict, headers.count <= 130 else { fatalError("what is overdue does not end") }
      }
    case 3: entering(segment(leaving: false, 0x10, 8, 1 + UInt32(row), []))
    default:
      let start = Int(choices.number(UInt16.self)) % got.count
      let data = choices.bytes(min(choices.below(256), got.count - start))
      let flags: UInt8 = choices.flag() ? 0x10 : choices.byte() & ~2
      guard leaving(segment(leaving: true, flags, 1 + UInt32(start), 8, data)), choices.flag() else { continue }
      for (place, byte) in data.enumerated() where got[start + place] == nil { got[start + place] = byte }
      while row < got.count, got[row] != nil { row += 1 }
    }
    check(judge.openFlows <= 16, "more flows than there may be")
  }
  let stream = got.prefix(row).compactMap { $0 }
  if case .hello(let hello) = stream.withUnsafeBytes({ ClientHello.read($0) }), let name = hello.serverName {
    check(name == ok, "the server has a hello for \(name)")
  }
}

private let ok = (try? DomainName(text: "ok.test")) ?? DomainName(labels: [0]).unsafelyUnwrapped
private let server = IPAddress.v4(IPv4Address(10, 9, 0, 2))

private func segment(
  leaving: Bool, _ flags: UInt8, _ sequence: UInt32, _ acknowledged: UInt32, _ data: [UInt8]
) -> [UInt8] {
  func big(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) } }
  let length = 40 + data.count
  let ends: [[UInt8]] = [[10, 118, 0, 2], [10, 9, 0, 2]]
  let ports: [[UInt8]] = [[0x9c, 0x40], [1, 0xbb]]
  var frame = [UInt8](repeating: 0, count: PacketGuard.offloadHeaderLength)
  frame += [0x45, 0, UInt8(length >> 8), UInt8(length & 0xff), 0, 1, 0, 0, 64, 6, 0, 0]
  frame += leaving ? ends[0] + ends[1] : ends[1] + ends[0]
  frame += leaving ? ports[0] + ports[1] : ports[1] + ports[0]
  return frame + big(sequence) + big(acknowledged) + [0x50, flags, 0xff, 0xff, 0, 0, 0, 0] + data
}
