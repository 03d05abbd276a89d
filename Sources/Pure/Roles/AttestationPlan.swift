/// What PID 1 hands to the attestation service.
public struct AttestationPlan: Equatable, Sendable {
  /// The descriptor of /dev/nsm; nil: there is none, and a module is simulated.
  public var module: UInt32?
  /// Listening sockets: the Unix one, then those on 127.0.0.1.
  public var listeners: [UInt32]
  /// Users who are served; nil: all.
  public var callers: [UInt32]?
  /// Registers that callers may extend and lock.
  public var registers: [UInt32]
  /// The register of what the host gave, and the text that it is measured by.
  public var runtimeRegister: UInt32
  public var runtime: [UInt8]
  /// Requests to the device, a second and caller.
  public var rate: UInt32
  /// The pipe that gets one byte when the service is ready.
  public var readiness: UInt32

  public static let role = "attestation"
  public static let registerRange: ClosedRange<UInt32> = 16...31
  public static let rateRange: ClosedRange<UInt32> = 1...10_000
  public static let listenerLimit = 9
  public static let callerLimit = 256
  public static let runtimeLimit = 1 << 20

  public init(
    module: UInt32?, listeners: [UInt32], callers: [UInt32]?, registers: [UInt32], runtimeRegister: UInt32,
    runtime: [UInt8], rate: UInt32, readiness: UInt32
  ) {
    self.module = module
    self.listeners = listeners
    self.callers = callers
    self.registers = registers
    self.runtimeRegister = runtimeRegister
    self.runtime = runtime
    self.rate = rate
    self.readiness = readiness
  }

  public var document: [UInt8] {
    var writer = RoleWriter()
    writer.put("module", numbers: module.map { [$0] } ?? [])
    writer.put("listeners", numbers: listeners)
    writer.put("everybody", flag: callers == nil)
    writer.put("callers", numbers: callers ?? [])
    writer.put("registers", numbers: registers)
    writer.put("runtime-register", numbers: [runtimeRegister])
    writer.put("runtime", runtime)
    writer.put("rate", numbers: [rate])
    writer.put("ready", numbers: [readiness])
    return writer.bytes
  }

  /// - Throws: a sentence that names the field.
  public init(document: [UInt8]) throws(RoleError) {
    var reader = try RoleReader(document, role: Self.role)
    // Behind the document's descriptor.
    let descriptors: ClosedRange<UInt32> = 4...65535
    module = try reader.numbers("module", count: 0...1).first
    guard module.map(descriptors.contains) != false else {
      throw RoleError(Self.role, "\"module\" is no descriptor")
    }
    listeners = try reader.numbers("listeners", count: 1...Self.listenerLimit)
    guard listeners.allSatisfy(descriptors.contains) else {
      throw RoleError(Self.role, "\"listeners\" has one that is no descriptor")
    }
    let isForAll = try reader.flag("everybody")
    let list = try reader.numbers("callers", count: isForAll ? 0...0 : 1...Self.callerLimit)
    callers = isForAll ? nil : list
    registers = try reader.numbers("registers", count: 0...16)
    guard registers.allSatisfy(Self.registerRange.contains) else {
      throw RoleError(Self.role, "\"registers\" has one that is not from 16 to 31")
    }
    runtimeRegister = try reader.number("runtime-register", in: Self.registerRange)
    guard !registers.contains(runtimeRegister) else {
      throw RoleError(Self.role, "\"registers\" has the one of \"runtime-register\"")
    }
    runtime = Array(try reader.take("runtime"))
    guard runtime.count <= Self.runtimeLimit else {
      throw RoleError(Self.role, "\"runtime\" has \(runtime.count) bytes, expected at most 1 MiB")
    }
    rate = try reader.number("rate", in: Self.rateRange)
    readiness = try reader.number("ready", in: descriptors)
    try reader.finish()
  }
}

/// What the host gave at run time, as the text that is measured: a line that names the form, then a line for each thing. The
/// register is extended with the SHA-384 of the text, always, also where nothing was given.
public enum RuntimeText {
  public static let head = "tombolo runtime 1\n"

  /// - Parameter addresses: those that the host chose, with their links' prefixes, IPv4 before IPv6.
  /// - Parameter lines: `address ADDRESS/LENGTH`, IPv4 before IPv6, and `mtu BYTES` behind them.
  public static func text(_ lines: [String]) -> [UInt8] {
    Array(lines.reduce(into: head) { text, line in text += line + "\n" }.utf8)
  }
}
