import Testing

@testable import HostGateway

/// How the descriptors of one host side are shared.
struct BudgetTests {
  private func limits(_ openFiles: Int, connections: Int = 1 << 20) -> HostLimits {
    var limits = HostLimits(openFiles: openFiles)
    limits.connections = connections
    return limits
  }

  private func takeAll(_ ledger: inout BudgetLedger, _ kind: Holding, _ peer: PeerKey) -> Int {
    var count = 0
    while ledger.take(kind, for: peer) { count += 1 }
    return count
  }

  /// An enclave whose connections take what they can get has names and published ports all the same.
  @Test func connectionsLeaveRoomForTheRest() {
    for openFiles in [64, 256, 1024, 1 << 20] {
      var ledger = BudgetLedger(limits(openFiles), isShared: false)
      let all = ledger.free
      let out = takeAll(&ledger, .outgoing, 0)
      #expect(out * 2 >= all * 3 / 4 && ledger.free >= all / 8, "\(openFiles)")
      #expect(takeAll(&ledger, .incoming, 0) >= all / 20, "\(openFiles)")
      #expect(ledger.take(.hellos, for: 0) && ledger.take(.resolvers, for: 0) && ledger.take(.queries, for: 0))
      #expect(ledger.free > 0)
    }
  }

  /// One enclave takes everything that it can of every kind; a second one has a good share, and a third.
  @Test func oneEnclaveLeavesRoomForOthers() {
    var ledger = BudgetLedger(limits(1024), isShared: true)
    let all = ledger.free
    for kind in Holding.allCases { _ = takeAll(&ledger, kind, 3) }
    #expect(all - ledger.free <= all * 2 / 3 && all - ledger.free > all / 2)
    let second = takeAll(&ledger, .outgoing, 4)
    #expect(second * 2 >= all / 6)
    #expect(takeAll(&ledger, .outgoing, 5) * 2 >= all / 20)
  }

  @Test func theLimitsOfEachKind() {
    var ledger = BudgetLedger(limits(1 << 20, connections: 100), isShared: false)
    #expect(takeAll(&ledger, .outgoing, 0) == 100 && takeAll(&ledger, .incoming, 0) == 100)
    #expect(takeAll(&ledger, .hellos, 0) == 512 && takeAll(&ledger, .resolvers, 0) == 8)
    #expect(takeAll(&ledger, .queries, 0) == 1024)
    // Few, but long.
    var long = 0
    while ledger.take(.queries, bytes: 65535, for: 7) { long += 1 }
    #expect(long == 16)
  }

  /// Whatever comes and goes in whatever order, nothing is lost or made.
  @Test func whatIsGivenBackIsThereAgain() {
    var random = SystemRandomNumberGenerator()
    for isShared in [false, true] {
      var ledger = BudgetLedger(limits(600), isShared: isShared)
      let all = ledger.free
      var held: [(kind: Holding, bytes: Int, peer: PeerKey)] = []
      for _ in 0..<20_000 {
        if Bool.random(using: &random), let kind = Holding.allCases.randomElement(using: &random) {
          let peer = PeerKey.random(in: 3...6, using: &random)
          let bytes = kind == .queries ? Int.random(in: 12...9000, using: &random) : 0
          if ledger.take(kind, bytes: bytes, for: peer) { held.append((kind, bytes, peer)) }
        } else if !held.isEmpty {
          let one = held.remove(at: Int.random(in: held.indices, using: &random))
          ledger.giveBack(one.kind, bytes: one.bytes, of: one.peer)
        }
        #expect(ledger.free >= 0 && ledger.free == all - held.reduce(0) { $0 + $1.kind.descriptors })
      }
      for one in held { ledger.giveBack(one.kind, bytes: one.bytes, of: one.peer) }
      #expect(ledger.free == all && (3...6).allSatisfy { ledger.count(.outgoing, of: $0) == 0 })
    }
  }
}
