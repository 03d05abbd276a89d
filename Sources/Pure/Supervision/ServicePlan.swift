/// Services whose relations hold: every id is one of the list, nobody waits for itself, and one of them is the program.
public struct ServicePlan: Equatable, Sendable {
  public let services: [Service]
  public let program: ServiceID
  /// Those that the program waits for, directly or through others.
  private let needed: [Bool]

  public init(_ services: [Service]) throws(ServicePlanError) {
    var program: ServiceID?
    for (index, service) in services.enumerated() {
      for need in service.needs where !services.indices.contains(need.index) {
        throw .unknown(need, of: service.name)
      }
      switch service.end {
      case .endsEnclave:
        if let program { throw .severalPrograms(services[program.index].name, service.name) }
        program = ServiceID(index)
      case .startedAgainWith(let leader):
        guard services.indices.contains(leader.index) else { throw .unknown(leader, of: service.name) }
        let other = services[leader.index]
        guard other.end == .startedAgain, !other.readiness.isOneShot, !service.readiness.isOneShot else {
          throw .cannotShareLife(service.name, with: other.name)
        }
      case .startedAgain, .staysDown: break
      }
    }
    guard let program else { throw .noProgram }
    self.services = services
    self.program = program

    // Each round takes out those that wait for nobody that is left; a round without any has found a cycle.
    var left = Array(services.indices)
    while !left.isEmpty {
      let rest = left.filter { index in services[index].needs.contains { left.contains($0.index) } }
      guard rest.count < left.count else { throw .cycle(rest.map { services[$0].name }) }
      left = rest
    }

    var needed = [Bool](repeating: false, count: services.count)
    var waiting = services[program.index].needs
    while let next = waiting.popLast() {
      guard !needed[next.index] else { continue }
      needed[next.index] = true
      waiting += services[next.index].needs
    }
    self.needed = needed
  }

  public func programNeeds(_ id: ServiceID) -> Bool { needed.indices.contains(id.index) && needed[id.index] }
}

/// Why a list of services is none that can be started.
public enum ServicePlanError: Error, Equatable, Sendable, CustomStringConvertible {
  case unknown(ServiceID, of: String)
  /// Those that are left when all others have been started.
  case cycle([String])
  case noProgram
  case severalPrograms(String, String)
  /// Only what runs on can live with another, and only with one that is started again by itself.
  case cannotShareLife(String, with: String)

  public var description: String {
    switch self {
    case .unknown(let id, let name): "services: \(name) names service \(id.index), which there is not"
    case .cycle(let names):
      "services: these wait for each other, or for those that do:"
        + names.reduce(into: "") { text, name in text += (text.isEmpty ? " " : ", ") + name }
    case .noProgram: "services: none of them is the program, whose end is the enclave's"
    case .severalPrograms(let first, let second):
      "services: \(first) and \(second) are both to end the enclave; one may"
    case .cannotShareLife(let name, let leader):
      "services: \(name) cannot live and die with \(leader): one of them is a one-shot or is not started again by itself"
    }
  }
}
