import Policy
import Testing

@Suite struct ConnectionLedgerTests {
  private func limits(_ outgoing: Int? = nil, _ incoming: Int? = nil) -> ConnectionLimits {
    var limits = ConnectionLimits(connect: .seconds(1))
    (limits.outgoing, limits.incoming) = (outgoing, incoming)
    return limits
  }

  /// A program that opens all the connections it can still leaves some to the clients of its published ports.
  @Test(arguments: [64, 300, 1024, 20000, 1 << 20]) func oneDirectionLeavesSomeToTheOther(_ openFiles: Int) {
    var ledger = ConnectionLedger(limits(), openFiles: openFiles)
    while ledger.take(.outgoing) == nil {}
    #expect(ledger.take(.outgoing) == .openFiles(openFiles))
    #expect(ledger.outgoing == ConnectionLedger.most(openFiles: openFiles))
    let free = openFiles - min(128, openFiles / 4)
    let another = ledger.take(.incoming)
    #expect(openFiles < 300 || another == nil)
    #expect(ledger.outgoing * 2 + ledger.incoming * 2 + 16 <= free)
  }

  /// What is refused at its limit may be had again when one has ended.
  @Test func limitsAreEachDirectionsOwn() {
    var ledger = ConnectionLedger(limits(3, 2), openFiles: 1024)
    for _ in 0..<3 { #expect(ledger.take(.outgoing) == nil) }
    #expect(ledger.take(.outgoing) == .limit(3))
    for _ in 0..<2 { #expect(ledger.take(.incoming) == nil) }
    #expect(ledger.take(.incoming) == .limit(2))
    ledger.giveBack(.outgoing)
    #expect(ledger.take(.incoming) == .limit(2))
    #expect(ledger.take(.outgoing) == nil)
  }

  @Test func whatIsGivenBackIsThereAgain() {
    var ledger = ConnectionLedger(limits(), openFiles: 256)
    for _ in 0..<10_000 {
      #expect(ledger.take(.incoming) == nil)
      ledger.giveBack(.incoming)
    }
    ledger.giveBack(.incoming)
    #expect(ledger.incoming == 0 && ledger.outgoing == 0)
  }

  @Test(arguments: [0, 1, 3, 16, 30]) func withoutDescriptorsThereIsNothing(_ openFiles: Int) {
    var ledger = ConnectionLedger(limits(), openFiles: openFiles)
    for _ in 0..<10 { _ = ledger.take(.outgoing) }
    #expect(ledger.outgoing * 2 <= openFiles && ConnectionLedger.most(openFiles: openFiles) >= 0)
  }
}
