/// What PID 1 hands to the attestation service.
public struct AttestationPlan: Equatable, Sendable {
  /// A key pair that is made at the start.
  public struct Key: Equatable, Sendable {
    /// Neither of these two has a space or a line feed.
    public var name: String
    public var type: String
    /// The public half is said without SubjectPublicKeyInfo.
    public var isRaw: Bool
    /// The descriptor of the private half's file, which can be written.
    public var file: UInt32

    public init(name: String, type: String, isRaw: Bool, file: UInt32) {
      self.name = name
      self.type = type
      self.isRaw = isRaw
      self.file = file
    }
  }

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
  public var keys: [Key]
  /// The descriptor of a file in memory where the public halves are kept for the next life of the service; there where there
  /// are keys.
  public var publicHalves: UInt32?
  /// The descriptors of the two files of `attestation.document`, which can be written; empty without. The working directory is
  /// theirs.
  public var documentFiles: [UInt32]
  /// The pipe that gets one byte when the service is ready.
  public var readiness: UInt32

  public static let role = "attestation"
  public static let registerRange: ClosedRange<UInt32> = 16...31
  public static let rateRange: ClosedRange<UInt32> = 1...10_000
  public static let listenerLimit = 9
  public static let callerLimit = 256
  public static let runtimeLimit = 1 << 20
  public static let keyLimit = 16
  /// The file that programs read, and the one beside it that is to be the next.
  public static let documentName = "attestation.cbor"
  public static let spareName = ".attestation.cbor"

  public init(
    module: UInt32?, listeners: [UInt32], callers: [UInt32]?, registers: [UInt32], runtimeRegister: UInt32,
    runtime: [UInt8], rate: UInt32, keys: [Key] = [], publicHalves: UInt32? = nil, documentFiles: [UInt32] = [],
    readiness: UInt32
  ) {
    self.module = module
    self.listeners = listeners
    self.callers = callers
    self.registers = registers
    self.runtimeRegister = runtimeRegister
    self.runtime = runtime
    self.rate = rate
    self.keys = keys
    self.publicHalves = publicHalves
    self.documentFiles = documentFiles
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
    writer.put("keys", text: keys.reduce(into: "") { $0 += "\($1.name) \($1.type) \($1.isRaw ? "raw" : "der")\n" })
    writer.put("key-files", numbers: keys.map(\.file))
    writer.put("public-halves", numbers: publicHalves.map { [$0] } ?? [])
    writer.put("document", numbers: documentFiles)
    writer.put("ready", numbers: [readiness])
    return writer.bytes
  }

  /// - Throws: a sentence that names the field.
  public init(document bytes: [UInt8]) throws(RoleError) {
    var reader = try RoleReader(bytes, role: Self.role)
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
    keys = try Self.keys(&reader, descriptors)
    publicHalves = try reader.numbers("public-halves", count: keys.isEmpty ? 0...0 : 1...1).first
    guard publicHalves.map(descriptors.contains) != false else {
      throw RoleError(Self.role, "\"public-halves\" is no descriptor")
    }
    documentFiles = try reader.numbers("document", count: 0...2)
    guard documentFiles.count != 1, documentFiles.allSatisfy(descriptors.contains) else {
      throw RoleError(Self.role, "\"document\" is not two descriptors")
    }
    readiness = try reader.number("ready", in: descriptors)
    try reader.finish()
  }

  /// A line `NAME TYPE der` or `NAME TYPE raw` for each, and a descriptor.
  private static func keys(
    _ reader: inout RoleReader, _ descriptors: ClosedRange<UInt32>
  ) throws(RoleError) -> [Key] {
    let text = try reader.text("keys")
    let files = try reader.numbers("key-files", count: 0...keyLimit)
    let lines = text.utf8.split(separator: 0x0a, omittingEmptySubsequences: false)
    guard lines.last?.isEmpty == true, lines.count - 1 == files.count, files.allSatisfy(descriptors.contains) else {
      throw RoleError(role, "\"keys\" and \"key-files\" do not fit together")
    }
    var keys: [Key] = []
    for (line, file) in zip(lines, files) {
      let words = line.split(separator: 0x20, omittingEmptySubsequences: false).map {
        String(decoding: $0, as: UTF8.self)
      }
      guard words.count == 3, !words[0].isEmpty, !words[1].isEmpty, ["der", "raw"].contains(words[2]),
        !keys.contains(where: { $0.name == words[0] })
      else { throw RoleError(role, "\"keys\" has a line that is no key") }
      keys.append(Key(name: words[0], type: words[1], isRaw: words[2] == "raw", file: file))
    }
    return keys
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
