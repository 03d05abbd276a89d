import Inet
import Packets
import Wire

extension PacketLink {
  /// Gives the enclave's kernel ICMP's error about a packet of a flow, as its sender would have it from a router, or from the
  /// other end.
  /// - Parameters:
  ///   - local: the program's port, or an echo's identifier.
  ///   - mtu: not 0: of the path, for which the packet was too long.
  func tell(_ kind: DatagramFlow.Kind, of local: UInt16, to remote: IPEndpoint, _ status: Status, mtu: UInt16) {
    let own = address(like: remote.address)
    let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
    let made = withUnsafeTemporaryAllocation(byteCount: 128, alignment: 16) { packet in
      let length =
        switch kind {
        case .udp: DatagramPacket.udp(from: IPEndpoint(own, local), to: remote, nothing, into: packet)
        case .echo:
          [0, 0].withUnsafeBytes {
            DatagramPacket.echo(
              isReply: false, from: own, to: remote.address, identifier: local,
              UnsafeRawBufferPointer(rebasing: $0[..<2]), into: packet)
          }
        }
      let sent = UnsafeRawBufferPointer(rebasing: packet[..<length])
      return mtu > 0
        ? UnreachableAnswer.make(sent, tooLongFor: mtu) : UnreachableAnswer.make(sent, Self.reason(status))
    }
    made.withUnsafeBytes { write($0) }
  }

  private static func reason(_ status: Status) -> UnreachableAnswer.Reason {
    switch status {
    case .refused: .port
    case .networkUnreachable: .network
    case .denied: .prohibited
    default: .host
    }
  }
}
