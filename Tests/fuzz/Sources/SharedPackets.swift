import Inet
import Policy

@testable import Packets

/// With the host's own address: what the enclave sends as pieces for a raw socket, and what the host's rules hand over.
let sharedPackets = Harness("shared-packets", limit: 2048) { bytes in
  bytes.withUnsafeBytes { frame in
    send(frame)
    var flows = DatagramFlows(count: 64)
    var sizes = SegmentTable(mtu: 1500, limit: 16)
    for _ in 0..<2 {
      flows.note(sent: frame, now: 1)
      sizes.learn(from: frame)
      _ = sizes.segmentSize(of: frame)
    }
    let decision = capture.decide(frame) { flows.isAnswer($0, now: 2) }
    if decision == .refuse {
      let room = UnsafeMutableRawPointer.allocate(byteCount: 256, alignment: 16)
      defer { room.deallocate() }
      check((0...60).contains(SharedCapture.reset(frame, room)), "a reset that is too long")
    }
  }
}

private let own4 = IPv4Address("10.9.0.1")
private let own6 = IPv6Address("fd09::1")
private let ports = PortSet(ranges: [80...80, 1024...61439])
private let shared = PacketGuard(.host, address4: own4, address6: own6, shared: ports)
private let capture = SharedCapture(
  address4: own4, address6: own6, ports: ports, published: PortSet([80]), publishedDatagrams: PortSet([53]))

private func send(_ frame: UnsafeRawBufferPointer) {
  guard shared.defect(in: frame) == nil else { return }
  let header = UnsafeMutableRawPointer.allocate(byteCount: PacketPieces.headerLimit, alignment: 16)
  defer { header.deallocate() }
  if var pieces = try? PacketPieces(frame, mtu: 1500, identification: 7) {
    var left = 70_000
    while let piece = pieces.next(header) {
      check((20...PacketPieces.headerLimit).contains(piece.header), "a header of \(piece.header) bytes")
      if piece.payload.count > 0, let start = piece.payload.baseAddress, let base = frame.baseAddress {
        check(start >= base && start + piece.payload.count <= base + frame.count, "a piece outside of its frame")
      }
      left -= 1
      check(left > 0, "pieces without end")
    }
  }
  for reason in UnreachableAnswer.Reason.allCases { _ = UnreachableAnswer.make(frame, reason) }
}
