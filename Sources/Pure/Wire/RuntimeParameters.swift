/// What a host gives an enclave at run time besides addresses: further arguments of its program, and variables. The image says
/// whether it takes any (`attestation.runtime`), and measures what it takes. See docs/protocol.md, "Arguments and variables".
public struct RuntimeParameters: Equatable, Sendable {
  /// Any bytes but NUL.
  public private(set) var arguments: [[UInt8]] = []
  /// By name, each once, in the order of their names' bytes.
  public private(set) var variables: [(name: String, value: [UInt8])] = []

  public static let argumentLimit = 256
  public static let variableLimit = 256
  /// In bytes: of an argument or value, of a name, of all as they are sent.
  public static let valueLimit = 8192
  public static let nameLimit = 128
  public static let sizeLimit = 32768

  public init() {}

  public var isEmpty: Bool { arguments.isEmpty && variables.isEmpty }

  public static func == (a: Self, b: Self) -> Bool {
    a.arguments == b.arguments && a.variables.count == b.variables.count
      && zip(a.variables, b.variables).allSatisfy { $0.name == $1.name && $0.value == $1.value }
  }

  public mutating func add(argument: [UInt8]) throws(WireError) {
    guard arguments.count < Self.argumentLimit else {
      throw .badLength(what: "arguments", found: arguments.count + 1, limit: Self.argumentLimit)
    }
    try Self.check(argument, "argument")
    arguments.append(argument)
    try checkSize()
  }

  /// - Parameter name: as shells take it: letters, digits and "_", the first no digit.
  public mutating func add(variable name: String, _ value: [UInt8]) throws(WireError) {
    guard variables.count < Self.variableLimit else {
      throw .badLength(what: "variables", found: variables.count + 1, limit: Self.variableLimit)
    }
    guard Self.isName(name) else { throw .badValue(what: "variable's name") }
    try Self.check(value, "value of \(name)")
    guard !variables.contains(where: { $0.name == name }) else { throw .badValue(what: "variable: \(name) twice") }
    let place = variables.firstIndex { $0.name.utf8.lexicographicallyPrecedes(name.utf8) == false }
    variables.insert((name, value), at: place ?? variables.count)
    try checkSize()
  }

  private static func check(_ bytes: [UInt8], _ what: String) throws(WireError) {
    guard bytes.count <= valueLimit else { throw .badLength(what: what, found: bytes.count, limit: valueLimit) }
    guard !bytes.contains(0) else { throw .badValue(what: "\(what), with a NUL byte") }
  }

  private func checkSize() throws(WireError) {
    let size = encoded.count
    guard size <= Self.sizeLimit else {
      throw .badLength(what: "arguments and variables", found: size, limit: Self.sizeLimit)
    }
  }

  private static func isName(_ name: String) -> Bool {
    let bytes = Array(name.utf8)
    return (1...nameLimit).contains(bytes.count) && !(0x30...0x39).contains(bytes[0])
      && bytes.allSatisfy { byte in
        (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte) || byte == 0x5f
      }
  }

  /// Counts and lengths of two bytes each.
  public var encoded: [UInt8] {
    var bytes: [UInt8] = []
    func put(_ value: [UInt8]) {
      bytes.append(integer: UInt16(clamping: value.count))
      bytes += value
    }
    bytes.append(integer: UInt16(clamping: arguments.count))
    for argument in arguments { put(argument) }
    bytes.append(integer: UInt16(clamping: variables.count))
    for variable in variables {
      put(Array(variable.name.utf8))
      put(variable.value)
    }
    return bytes
  }

  /// There is one encoding of each value, and no other is read.
  public init(encoded bytes: [UInt8]) throws(WireError) {
    guard bytes.count <= Self.sizeLimit else {
      throw .badLength(what: "arguments and variables", found: bytes.count, limit: Self.sizeLimit)
    }
    var reader = ByteReader(bytes)
    func value() throws(WireError) -> [UInt8] {
      let count: UInt16 = try reader.integer()
      return Array(try reader.bytes(Int(count)))
    }
    let argumentCount: UInt16 = try reader.integer()
    guard argumentCount <= Self.argumentLimit else {
      throw .badLength(what: "arguments", found: Int(argumentCount), limit: Self.argumentLimit)
    }
    for _ in 0..<argumentCount {
      let argument = try value()
      try Self.check(argument, "argument")
      arguments.append(argument)
    }
    let variableCount: UInt16 = try reader.integer()
    guard variableCount <= Self.variableLimit else {
      throw .badLength(what: "variables", found: Int(variableCount), limit: Self.variableLimit)
    }
    for _ in 0..<variableCount {
      let name = String(decoding: try value(), as: UTF8.self)
      guard Self.isName(name) else { throw .badValue(what: "variable's name") }
      if let last = variables.last, !last.name.utf8.lexicographicallyPrecedes(name.utf8) {
        throw .badValue(what: "order of variables")
      }
      let value = try value()
      try Self.check(value, "value of \(name)")
      variables.append((name, value))
    }
    try reader.finish()
  }

  /// As it is measured: a line for each, arguments first, in order. Bytes are in hexadecimal digits, so that no value can look
  /// like another line.
  public var lines: [String] {
    arguments.map { "argument \(hexadecimal($0))" } + variables.map { "variable \($0.name) \(hexadecimal($0.value))" }
  }
}

/// Which kinds of these a host has for the enclave: the parameters of its answer to the first session. Empty for none, so that
/// it is the answer of a host that has never heard of them.
public struct RuntimeOffer: Equatable, Sendable {
  public var hasArguments: Bool
  public var hasVariables: Bool

  public init(_ given: RuntimeParameters) {
    hasArguments = !given.arguments.isEmpty
    hasVariables = !given.variables.isEmpty
  }

  public var parameters: [UInt8] {
    let bits: UInt8 = (hasArguments ? 1 : 0) | (hasVariables ? 2 : 0)
    return bits == 0 ? [] : [bits]
  }

  public init(parameters: [UInt8]) throws(WireError) {
    guard parameters.count <= 1 else { throw .trailingBytes(parameters.count - 1) }
    let bits = parameters.first ?? 0
    guard bits < 4 else { throw .badValue(what: "kind of what the host gives") }
    hasArguments = bits & 1 != 0
    hasVariables = bits & 2 != 0
  }
}

/// The parameters of a control hello that asks for them, a piece at a time: an answer has room for a kilobyte.
public struct RuntimeRequest: Equatable, Sendable {
  public static let kind: UInt8 = 2
  /// From which byte on.
  public var offset: UInt32

  public init(offset: UInt32) { self.offset = offset }

  public var hello: Hello {
    var bytes: [UInt8] = [Self.kind]
    bytes.append(integer: offset)
    return Hello(.control, parameters: bytes)
  }

  /// nil for another question.
  public init?(parameters: [UInt8]) throws(WireError) {
    var reader = ByteReader(parameters)
    let kind: UInt8 = try reader.integer()
    guard kind == Self.kind else { return nil }
    offset = try reader.integer()
    try reader.finish()
  }

  /// The parameters of the answer: how many bytes there are in all, and some from the offset on.
  public func answer(_ encoded: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(integer: UInt32(clamping: encoded.count))
    return bytes + encoded.dropFirst(Int(offset)).prefix(Hello.parameterLimit - 4)
  }
}

/// The pieces put together; foreign bytes, of which there are never more than `RuntimeParameters.sizeLimit`.
public struct RuntimeAssembly: Sendable {
  private var total: UInt32?
  private var bytes: [UInt8] = []

  public init() {}

  public var next: RuntimeRequest { RuntimeRequest(offset: UInt32(clamping: bytes.count)) }

  /// - Returns: what was given, when it is whole.
  public mutating func take(_ parameters: [UInt8]) throws(WireError) -> RuntimeParameters? {
    var reader = ByteReader(parameters)
    let size: UInt32 = try reader.integer()
    guard size <= RuntimeParameters.sizeLimit else {
      throw .badLength(what: "arguments and variables", found: Int(size), limit: RuntimeParameters.sizeLimit)
    }
    let piece = reader.remainder()
    guard total == nil || total == size, !piece.isEmpty, bytes.count + piece.count <= Int(size) else {
      throw .badValue(what: "piece of arguments and variables")
    }
    total = size
    bytes += piece
    return bytes.count == Int(size) ? try RuntimeParameters(encoded: bytes) : nil
  }
}
