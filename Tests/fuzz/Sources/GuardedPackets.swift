import Inet
import Policy

@testable import Packets

/// A frame of raw mode, as the guards of both sides judge it; what passes is divided and answered without a read outside of
/// it. The frame lies in memory of exactly its length, so that the address sanitizer sees the next byte.
let packets = Harness("packets", limit: 2048) { bytes in
  bytes.withUnsafeBytes { frame in
    judge(host, frame)
    judge(enclave, frame)
    let outgoing = DestinationGuard(Destinations())
    if outgoing.denies(frame) { check(outgoing.denial(of: frame) != nil, "denied without a reason") }
    _ = DestinationGuard.endpoint(frame)
    refuse(frame, copied: frame.count)
    refuse(frame, copied: min(frame.count, 256))
  }
}

private let own4 = IPv4Address("10.118.0.2")
private let own6 = IPv6Address("fd74::2")
private let host = PacketGuard(.host, address4: own4, address6: own6)
private let enclave = PacketGuard(.enclave, address4: own4, address6: own6, ports: [80])

private func judge(_ one: PacketGuard, _ frame: UnsafeRawBufferPointer) {
  let near = UnsafeRawBufferPointer(rebasing: frame.prefix(256))
  guard one.defect(in: frame) == nil, frame.count > 256, !PacketGuard.mayReachFar(near) else { return }
  // What lies behind the first 256 bytes must not count: the other side can change it after the verdict.
  var changed = Array(frame)
  for index in 256..<changed.count { changed[index] ^= 0xff }
  check(changed.withUnsafeBytes { one.defect(in: $0) } == nil, "a verdict reads what was not copied")
}

private func refuse(_ frame: UnsafeRawBufferPointer, copied: Int) {
  let room = UnsafeMutableRawPointer.allocate(byteCount: Refusal.frameLimit, alignment: 16)
  defer { room.deallocate() }
  let length = Refusal.answer(to: frame, copied: copied, room)
  check((0...Refusal.frameLimit).contains(length), "an answer of \(length) bytes")
}
