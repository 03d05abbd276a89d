import CBORCodec

/// What the module answers.
public enum ModuleAnswer: Equatable, Sendable {
  case register(isLocked: Bool, value: [UInt8])
  /// The register's new value.
  case extended([UInt8])
  case locked
  case description(ModuleDescription)
  /// A COSE_Sign1, whose contents are nobody's business here.
  case document([UInt8])
  case random([UInt8])

  /// The driver offers the device no more (drivers/misc/nsm.c).
  public static let limit = 0x3000

  /// - Parameter request: what was asked; an answer to something else is none.
  public init(_ bytes: [UInt8], to request: ModuleRequest) throws(ModuleFailure) {
    guard bytes.count <= Self.limit else { throw .unintelligible("it has \(bytes.count) bytes") }
    let value: CBOR
    do { value = try CBOR(bytes) } catch { throw .unintelligible("\(error)") }
    if case .text(let name)? = value["Error"] { throw .refused(ModuleError(name)) }
    switch request {
    case .describePCR:
      guard let fields = value["DescribePCR"], case .bool(let isLocked)? = fields["lock"] else { throw .other(request) }
      self = .register(isLocked: isLocked, value: try Self.digest(fields["data"], request))
    case .extendPCR:
      guard let fields = value["ExtendPCR"] else { throw .other(request) }
      self = .extended(try Self.digest(fields["data"], request))
    case .lockPCR, .lockPCRs:
      guard value == .text(request.name) else { throw .other(request) }
      self = .locked
    case .describe: self = .description(try ModuleDescription(value["DescribeNSM"]))
    case .attestation:
      guard case .bytes(let document)? = value["Attestation"]?["document"], !document.isEmpty else {
        throw .other(request)
      }
      self = .document(document)
    case .random:
      guard case .bytes(let random)? = value["GetRandom"]?["random"], !random.isEmpty else { throw .other(request) }
      self = .random(random)
    }
  }

  private static func digest(_ value: CBOR?, _ request: ModuleRequest) throws(ModuleFailure) -> [UInt8] {
    guard case .bytes(let digest)? = value, [32, 48, 64].contains(digest.count) else { throw .other(request) }
    return digest
  }

  /// As the module writes it: for `SimulatedModule`.
  public func bytes(to request: ModuleRequest) -> [UInt8] {
    func map(_ fields: [(String, CBOR)]) -> [UInt8] {
      CBOR.map([
        .init(key: .text(request.name), value: .map(fields.map { .init(key: .text($0.0), value: $0.1) }))
      ]).encoded
    }
    switch self {
    case .register(let isLocked, let value): return map([("data", .bytes(value)), ("lock", .bool(isLocked))])
    case .extended(let value): return map([("data", .bytes(value))])
    case .locked: return CBOR.text(request.name).encoded
    case .description(let description): return map(description.fields)
    case .document(let document): return map([("document", .bytes(document))])
    case .random(let random): return map([("random", .bytes(random))])
    }
  }
}

extension ModuleRequest {
  /// AWS's name of the request, which is also its answer's.
  public var name: String {
    switch self {
    case .describePCR: "DescribePCR"
    case .extendPCR: "ExtendPCR"
    case .lockPCR: "LockPCR"
    case .lockPCRs: "LockPCRs"
    case .describe: "DescribeNSM"
    case .attestation: "Attestation"
    case .random: "GetRandom"
    }
  }
}

public struct ModuleDescription: Equatable, Sendable {
  public var version: [UInt16]
  public var moduleID: String
  /// How many registers there are.
  public var registers: UInt16
  public var locked: [UInt16]

  public init(version: [UInt16], moduleID: String, registers: UInt16, locked: [UInt16]) {
    self.version = version
    self.moduleID = moduleID
    self.registers = registers
    self.locked = locked
  }

  init(_ fields: CBOR?) throws(ModuleFailure) {
    func number(_ value: CBOR?) throws(ModuleFailure) -> UInt16 {
      guard case .unsigned(let number)? = value, let small = UInt16(exactly: number) else { throw .other(.describe) }
      return small
    }
    var version: [UInt16] = []
    for part in ["version_major", "version_minor", "version_patch"] { version.append(try number(fields?[part])) }
    guard case .text(let moduleID)? = fields?["module_id"], case .array(let list)? = fields?["locked_pcrs"] else {
      throw .other(.describe)
    }
    var locked: [UInt16] = []
    for item in list { locked.append(try number(item)) }
    self.init(version: version, moduleID: moduleID, registers: try number(fields?["max_pcrs"]), locked: locked)
  }

  var fields: [(String, CBOR)] {
    zip(["version_major", "version_minor", "version_patch"], version).map { ($0, .unsigned(UInt64($1))) } + [
      ("module_id", .text(moduleID)), ("max_pcrs", .unsigned(UInt64(registers))),
      ("locked_pcrs", .array(locked.map { .unsigned(UInt64($0)) })), ("digest", .text("SHA384")),
    ]
  }
}

/// The module's own words for why it did not do something.
public enum ModuleError: String, Equatable, Sendable, CaseIterable {
  case invalidArgument = "InvalidArgument"
  case invalidIndex = "InvalidIndex"
  case invalidResponse = "InvalidResponse"
  case readOnlyIndex = "ReadOnlyIndex"
  case invalidOperation = "InvalidOperation"
  case bufferTooSmall = "BufferTooSmall"
  case inputTooLarge = "InputTooLarge"
  case internalError = "InternalError"
  /// A word that AWS has not had when this was written, or "Success".
  case unknown = "an error of an unknown name"

  init(_ name: String) { self = Self.allCases.first { $0.rawValue == name } ?? .unknown }

  public var bytes: [UInt8] { CBOR.map([.init(key: .text("Error"), value: .text(rawValue))]).encoded }
}

/// Why there is no answer.
public enum ModuleFailure: Error, Equatable, Sendable, CustomStringConvertible {
  case refused(ModuleError)
  /// What came is no answer to what was asked.
  case unintelligible(String)
  /// The call itself did not work.
  case unreachable(String)

  static func other(_ request: ModuleRequest) -> ModuleFailure {
    .unintelligible("it is none to \(request.name)")
  }

  public var description: String {
    switch self {
    case .refused(let error): "the security module refuses: \(error.rawValue)"
    case .unintelligible(let reason): "the security module's answer cannot be understood: \(reason)"
    case .unreachable(let reason): "the security module cannot be asked: \(reason)"
    }
  }
}
