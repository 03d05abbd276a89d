import CLinux
import EventLoop
import Flows
import Inet
import LinuxSystem
import PacketRelaying
import Packets

// Theory of operation.
//
// In TCP mode what no rule turns to the proxy's sockets leaves through a TUN device that the proxy reads:
//
//   device ▶ is the packet whole, and from the enclave's own address? ▶ TCP: `connections`   everything else: `datagrams`
//
// An engine looks at a frame during the call, and keeps what it needs. What it answers goes back through `write`.

/// Takes packets that leave through the interface of TCP mode.
protocol PacketEngine: AnyObject {
  /// - Parameters:
  ///   - frame: a virtio-net header and a packet, whole; not longer than the call.
  ///   - packet: what of it tells its flow.
  func take(_ frame: UnsafeRawBufferPointer, _ packet: FlowPacket)

  /// Nothing more comes in this turn.
  func settle()
}

/// The interface of TCP mode.
final class PacketLink: EventSource {
  /// Packets before others have their turn.
  private static let turn = 64

  /// The enclave's own.
  private let address = AgreedAddresses.packets4.address
  let prefix6: IPPrefix

  private let device: FileReference
  private let buffer: UnsafeMutableRawBufferPointer
  private let sources: (four: [UInt8], six: [UInt8])
  /// nil with `network.connect = "early"`.
  var connections: (any PacketEngine)?
  var datagrams: (any PacketEngine)?

  /// - Parameter acceptsFirst: as the start has planned it (`PacketLinkPlan`), which gives the enclave's address.
  init(_ device: FileReference, loop: EventLoop, acceptsFirst: Bool) throws(SystemError) {
    self.device = device
    prefix6 = acceptsFirst ? AgreedAddresses.earlyPackets6 : AgreedAddresses.packets6
    sources = (address.bytes, prefix6.address.bytes)
    buffer = .allocate(byteCount: PacketGuard.frameLimit, alignment: 16)
    super.init()
    // Super-packets stay whole, and nobody sums what our kernel and we hand to each other in memory.
    _ = try setTunOffload(device.rawValue, .all)
    _ = try loop.add(device.rawValue, [.readable], self)
  }

  deinit { buffer.deallocate() }

  /// The enclave's address of the same family.
  func address(like other: IPAddress) -> IPAddress {
    switch other {
    case .v4: address
    case .v6: prefix6.address
    }
  }

  override func ready(_ events: EventSet, tag: Int) {
    guard let base = buffer.baseAddress else { return }
    for _ in 0..<Self.turn {
      let count = clinux_read(device.rawValue, base, buffer.count)
      guard count > 0 else { break }
      let frame = UnsafeRawBufferPointer(rebasing: buffer[..<count])
      guard let packet = FlowPacket(frame, isLeaving: true), isOwn(frame) else { continue }
      if packet.number != 6 {
        datagrams?.take(frame, packet)
      } else if let connections {
        connections.take(frame, packet)
      } else {
        refuse(frame)
      }
    }
    connections?.settle()
    datagrams?.settle()
  }

  /// A segment that a rule has turned to the proxy's socket, and that comes here all the same: its program has bound it to this
  /// interface (SO_BINDTODEVICE). Where it wanted to go is not to be seen any more. The kernel knows it, and turns the answer.
  private func refuse(_ frame: UnsafeRawBufferPointer) {
    let is4 = frame[PacketGuard.offloadHeaderLength] >> 4 == 4
    let router: IPAddress = is4 ? .v4(AgreedAddresses.virtual4) : .v6(AgreedAddresses.virtual6(of: prefix6))
    UnreachableAnswer.make(frame, .network, from: router).withUnsafeBytes { write($0) }
  }

  private func isOwn(_ frame: UnsafeRawBufferPointer) -> Bool {
    let start = PacketGuard.offloadHeaderLength
    // `FlowPacket` has found its version, 4 or 6, and all of that header.
    return frame[start] >> 4 == 4
      ? frame[(start + 12)..<(start + 16)].elementsEqual(sources.four)
      : frame[(start + 8)..<(start + 24)].elementsEqual(sources.six)
  }

  /// Gives the enclave's kernel a packet; one that it does not take is lost, as on any network.
  func write(_ frame: UnsafeRawBufferPointer) {
    guard let base = frame.baseAddress, !frame.isEmpty else { return }
    _ = clinux_write(device.rawValue, base, frame.count)
  }
}
