import LinuxSystem
import Testing

@testable import HostGateway

/// Whom a host side serves: somebody whose end cannot be told is nobody's enclave.
struct PeersTests {
  /// Issue 12, 10: a stream passed where getpeername(2) told no CID.
  @Test func aPeerWithoutACIDIsNotServed() throws {
    let (stream, other) = try makeSocketPair()
    for rule in [PeerRule.any, .cid(0), .cid(1), .cid(16), .cid(.max)] {
      #expect(rule.peer(of: stream) == nil, "\(rule)")
      #expect(rule.peer(of: other) == nil, "\(rule)")
    }
    let (pipe, _) = try makePipe()
    for rule in [PeerRule.any, .cid(0), .cid(16), .users([0])] { #expect(rule.peer(of: pipe) == nil, "\(rule)") }
  }

  @Test func usersOfUnixSockets() throws {
    let (stream, _) = try makeSocketPair()
    #expect(PeerRule.users([effectiveUserID()]).peer(of: stream) == 0)
    #expect(PeerRule.users([effectiveUserID() + 1, 61042]).peer(of: stream) == nil)
    #expect(PeerRule.users([]).peer(of: stream) == nil)
  }
}
