import Roles
import Testing

/// What PID 1 hands to the attestation service: nothing has a default, and no bytes are half understood.
struct AttestationPlanTests {
  private static let plans = [
    AttestationPlan(
      module: 5, listeners: [6, 7], callers: [0, 33], registers: [17, 18], runtimeRegister: 16,
      runtime: RuntimeText.text(["address 10.0.0.2/30"]), rate: 100, readiness: 4),
    AttestationPlan(
      module: 5, listeners: [6], callers: nil, registers: [], runtimeRegister: 16, runtime: [], rate: 1,
      keys: [
        .init(name: "a.1", type: "p256", isRaw: false, file: 7), .init(name: "b", type: "x25519", isRaw: true, file: 8),
      ], publicHalves: 9, documentFiles: [10, 11], readiness: 4),
    AttestationPlan(
      module: nil, listeners: [5], callers: nil, registers: [], runtimeRegister: 31, runtime: RuntimeText.text([]),
      rate: 1,
      readiness: 4),
  ]

  @Test(arguments: plans) func roundTrip(plan: AttestationPlan) throws {
    #expect(try AttestationPlan(document: plan.document) == plan)
    let document = plan.document
    for count in 0..<document.count {
      #expect(throws: RoleError.self) { try AttestationPlan(document: Array(document.prefix(count))) }
    }
    for index in document.indices {
      var changed = document
      changed[index] ^= 0x55
      if let read = try? AttestationPlan(document: changed) { #expect(read != plan && read.document == changed) }
    }
  }

  @Test func whatIsOutOfRange() {
    func refused(_ change: (inout AttestationPlan) -> Void) -> Bool {
      var plan = Self.plans[0]
      change(&plan)
      return (try? AttestationPlan(document: plan.document)) == nil
    }
    #expect(refused { $0.module = 3 } && refused { $0.listeners = [] } && refused { $0.listeners = [2] })
    #expect(refused { $0.callers = [] } && refused { $0.registers = [15] } && refused { $0.registers = [16] })
    let key = AttestationPlan.Key(name: "a", type: "p256", isRaw: false, file: 7)
    #expect(refused { $0.keys = [key] } && refused { $0.publicHalves = 7 })
    #expect(refused { ($0.keys, $0.publicHalves) = ([key], 3) } && !refused { ($0.keys, $0.publicHalves) = ([key], 8) })
    #expect(refused { ($0.keys, $0.publicHalves) = ([key, key], 8) })
    for (name, type, file) in [("", "p256", 7), ("a b", "p256", 7), ("a", "", 7), ("a\n", "p256", 7), ("a", "p256", 2)]
    {
      let bad = AttestationPlan.Key(name: name, type: type, isRaw: false, file: UInt32(file))
      #expect(refused { ($0.keys, $0.publicHalves) = ([bad], 8) }, "\(bad)")
    }
    #expect(refused { $0.documentFiles = [8] } && refused { $0.documentFiles = [8, 3] })
    #expect(refused { $0.runtimeRegister = 32 } && refused { $0.rate = 0 } && refused { $0.readiness = 1 })
  }
}
