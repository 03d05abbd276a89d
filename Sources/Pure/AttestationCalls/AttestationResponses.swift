import HTTP
import SecurityModule

// What clients are answered.

extension AttestationCall.DocumentForm {
  public func response(_ document: [UInt8]) -> HTTPResponse {
    switch self {
    case .raw(let contentType): HTTPResponse(200, contentType, document)
    case .hex: HTTPResponse(200, "text/plain", Array(TextCodings.hex(document).utf8))
    case .base64: HTTPResponse(200, "text/plain", Array((TextCodings.base64(document) + "\n").utf8))
    case .json:
      HTTPResponse(200, "application/json", Array("{\"document\":\"\(TextCodings.base64(document))\"}\n".utf8))
    }
  }
}

extension AttestationCall.RandomForm {
  public func response(_ bytes: [UInt8]) -> HTTPResponse {
    switch self {
    case .raw: HTTPResponse(200, "application/octet-stream", bytes)
    case .hex: HTTPResponse(200, "text/plain", Array((TextCodings.hex(bytes) + "\n").utf8))
    case .base64: HTTPResponse(200, "text/plain", Array((TextCodings.base64(bytes) + "\n").utf8))
    case .json: HTTPResponse(200, "application/json", Array("{\"random\":\"\(TextCodings.hex(bytes))\"}\n".utf8))
    }
  }
}

/// A key pair of the enclave, as clients see it: the private half is in a file, and not known here.
public struct AttestationKey: Equatable, Sendable {
  public var name: String
  public var type: String
  /// As it stands in documents: DER, or raw.
  public var publicHalf: [UInt8]

  public init(name: String, type: String, publicHalf: [UInt8]) {
    self.name = name
    self.type = type
    self.publicHalf = publicHalf
  }

  func json(isDefault: Bool) -> String {
    "{\"name\":\(JSONText.quoted(name)),\"type\":\(JSONText.quoted(type)),"
      + "\"public_key\":\"\(TextCodings.hex(publicHalf))\",\"default\":\(isDefault)}"
  }

  public func response(isDefault: Bool, _ form: AttestationCall.RandomForm) -> HTTPResponse {
    if form == .json { return HTTPResponse(200, "application/json", Array((json(isDefault: isDefault) + "\n").utf8)) }
    return form.response(publicHalf)
  }

  /// The first is the default.
  public static func response(_ keys: [AttestationKey]) -> HTTPResponse {
    let list = keys.enumerated().map { $0.element.json(isDefault: $0.offset == 0) }.joined(separator: ",\n ")
    return HTTPResponse(200, "application/json", Array("[\(list)]\n".utf8))
  }
}

/// A register as clients see it.
public struct ShownRegister: Equatable, Sendable {
  public var index: UInt16
  public var value: [UInt8]
  public var isLocked: Bool

  public init(_ index: UInt16, value: [UInt8], isLocked: Bool) {
    self.index = index
    self.value = value
    self.isLocked = isLocked
  }

  private var json: String { "{\"pcr\":\(index),\"value\":\"\(TextCodings.hex(value))\",\"locked\":\(isLocked)}" }

  public var response: HTTPResponse { HTTPResponse(200, "application/json", Array((json + "\n").utf8)) }

  public static func response(_ registers: [ShownRegister]) -> HTTPResponse {
    let list = registers.map(\.json).joined(separator: ",\n ")
    return HTTPResponse(200, "application/json", Array("[\(list)]\n".utf8))
  }
}

extension ModuleFailure {
  /// - Parameter index: the register that was meant.
  public func response(_ index: UInt16? = nil) -> HTTPResponse {
    switch self {
    case .refused(.readOnlyIndex):
      HTTPResponse(409, "\(index.map { "PCR\($0)" } ?? "it") is locked (ReadOnlyIndex)")
    case .refused(.inputTooLarge), .refused(.invalidArgument): HTTPResponse(400, "\(self)")
    case .refused, .unintelligible: HTTPResponse(502, "\(self)")
    case .unreachable: HTTPResponse(503, "\(self)")
    }
  }
}
