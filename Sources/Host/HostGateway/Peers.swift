import LinuxSystem
import Relaying

/// Which peers a host side serves.
public enum PeerRule: Equatable, Sendable {
  /// The transport has one enclave at its other end.
  case only
  /// As `only`, over a Unix socket, where one of these users must be at its other end (SO_PEERCRED, unix(7)).
  case users(Set<UInt32>)
  /// Connections of other machines are refused.
  case cid(UInt32)
  /// Every enclave of this host; the log tells them apart.
  case any

  /// The one enclave that published ports lead to (`any` has none).
  var enclave: PeerKey {
    if case .cid(let cid) = self { cid } else { 0 }
  }

  /// Who is at the other end; nil for somebody whom this host side does not serve.
  func peer(of stream: FileReference) -> PeerKey? {
    switch self {
    case .only: 0
    case .users(let users): peerUserID(stream.rawValue).flatMap { users.contains($0) ? 0 : nil }
    case .cid(let expected): peerCID(stream.rawValue).flatMap { $0 == expected ? $0 : nil }
    case .any: peerCID(stream.rawValue)
    }
  }
}
