/// Why a packet from the other side is not given to the kernel. Every drop is counted under one of these.
public enum PacketDefect: UInt8, CaseIterable, Sendable, CustomStringConvertible {
  case truncated
  case badVersion
  case badHeaderLength
  case badTotalLength
  /// Flags or a segmentation type of the virtio header that were not agreed on.
  case badOffload
  case badSegmentSize
  /// The checksum's place is outside the packet or, in a super-packet, not where its protocol has it.
  case badChecksumPlace
  /// The host: a source that is not the enclave's. The enclave: a source that no other machine can have.
  case badSource
  /// The enclave: a destination that is not its own. The host: loopback, multicast, link-local.
  case badDestination
  /// A TCP connection to a port of the enclave that is not in its configuration.
  case unpublishedPort
  /// The kernel did not take it.
  case notTaken
  /// With a shared address: not TCP or UDP, or from a port that is the host's own.
  case foreignPort
  /// A first fragment without all headers, or a later one that could replace them.
  case tinyFragment
  /// The enclave, of the program's own: not of a flow that may be open, or before it can be judged.
  case heldBack

  public var description: String {
    switch self {
    case .truncated: "truncated"
    case .badVersion: "bad version"
    case .badHeaderLength: "bad header length"
    case .badTotalLength: "bad total length"
    case .badOffload: "bad offload"
    case .badSegmentSize: "bad segment size"
    case .badChecksumPlace: "bad checksum place"
    case .badSource: "bad source"
    case .badDestination: "bad destination"
    case .unpublishedPort: "unpublished port"
    case .notTaken: "not taken by the kernel"
    case .foreignPort: "foreign port"
    case .tinyFragment: "tiny fragment"
    case .heldBack: "held back"
    }
  }
}
