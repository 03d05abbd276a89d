import Supervision
import Testing

/// What cannot be started is refused before anything is.
struct ServicePlanTests {
  private let program = Service("the program", readiness: .started, end: .endsEnclave)

  private func error(_ services: [Service]) -> ServicePlanError? {
    do throws(ServicePlanError) {
      _ = try ServicePlan(services)
      return nil
    } catch {
      return error
    }
  }

  @Test func whoWaitsForHimselfIsNamed() {
    let a = Service("a", needs: [ServiceID(2)], readiness: .started, end: .staysDown)
    let b = Service("b", needs: [ServiceID(1)], readiness: .started, end: .staysDown)
    #expect(error([program, a, b]) == .cycle(["a", "b"]))
    let itself = Service("a", needs: [ServiceID(1)], readiness: .started, end: .staysDown)
    #expect(error([program, itself]) == .cycle(["a"]))
    #expect(
      error([program, a, b])?.description == "services: these wait for each other, or for those that do: a, b")
  }

  @Test func anUnknownServiceIsNamed() {
    let a = Service("a", needs: [ServiceID(7)], readiness: .started, end: .staysDown)
    #expect(error([program, a]) == .unknown(ServiceID(7), of: "a"))
    let negative = Service("a", needs: [ServiceID(-1)], readiness: .started, end: .staysDown)
    #expect(error([program, negative]) == .unknown(ServiceID(-1), of: "a"))
    let companion = Service("a", readiness: .started, end: .startedAgainWith(ServiceID(2)))
    #expect(error([program, companion]) == .unknown(ServiceID(2), of: "a"))
  }

  @Test func thereIsOneProgram() {
    #expect(error([]) == .noProgram)
    #expect(error([Service("a", readiness: .started, end: .startedAgain)]) == .noProgram)
    let second = Service("another", readiness: .started, end: .endsEnclave)
    #expect(error([program, second]) == .severalPrograms("the program", "another"))
  }

  /// Who lives with a service that is not started again, or is a one-shot itself, would never be started again either.
  @Test func livesAreSharedOnlyWithThoseThatAreStartedAgain() {
    let withProgram = Service("a", readiness: .started, end: .startedAgainWith(ServiceID(0)))
    #expect(error([program, withProgram]) == .cannotShareLife("a", with: "the program"))
    let proxy = Service("b", readiness: .started, end: .startedAgain)
    let oneShot = Service("a", readiness: .completed(within: .seconds(1)), end: .startedAgainWith(ServiceID(1)))
    #expect(error([program, proxy, oneShot]) == .cannotShareLife("a", with: "b"))
    let companion = Service("a", readiness: .started, end: .startedAgainWith(ServiceID(1)))
    #expect(error([program, proxy, companion]) == nil)
  }

  @Test func timersHaveKeysOfTheirOwn() {
    let timers: [ServiceMachine.Timer] =
      [.rest, .drain] + (0..<3).flatMap { [.ready(ServiceID($0)), .restart(ServiceID($0)), .stop(ServiceID($0))] }
    #expect(timers.map(\.key) == Array(0..<ServiceMachine.Timer.keys(services: 3)))
    #expect(timers.map { ServiceMachine.Timer(key: $0.key) } == timers)
    #expect(ServiceMachine.Timer(key: -1) == nil)
  }
}
