import HTTP
import SecurityModule

/// What a client of the attestation service wants: the requests of our own, and those of the neighbours', whose clients work
/// as they are.
public enum AttestationCall: Equatable, Sendable {
  case document(ModuleRequest.DocumentContents, DocumentForm)
  case registers
  case register(UInt16)
  case extend(UInt16, [UInt8])
  case lock(UInt16)
  case random(Int, RandomForm)
  /// The public halves of all keys.
  case keys([AttestationKey])
  case key(AttestationKey, isDefault: Bool, RandomForm)

  public enum DocumentForm: Equatable, Sendable {
    case raw(contentType: String)
    case hex
    case base64
    case json
  }

  public enum RandomForm: Equatable, Sendable { case raw, hex, base64, json }

  /// Of /random, in bytes.
  public static let randomLimit = 1024
  public static let randomDefault = 256
  /// What a register can be extended with at a time, in bytes.
  public static let extensionLimit = 512

  /// How many requests to the device it takes, at most.
  public var cost: Int {
    switch self {
    case .document, .register, .lock: 1
    case .extend: 1
    case .registers: SimulatedModule.count + 1
    case .random(let count, _): max(1, (count + 255) / 256)
    case .keys, .key: 0
    }
  }
}

/// Why a request is not carried out.
public struct CallDefect: Error, Equatable, Sendable {
  public var status: Int
  public var sentence: String
  /// The methods that the path has, where that is the reason.
  public var allowed: String?

  public init(_ status: Int, _ sentence: String, allowed: String? = nil) {
    self.status = status
    self.sentence = sentence
    self.allowed = allowed
  }

  public var response: HTTPResponse {
    var response = HTTPResponse(status, sentence)
    if let allowed { response.headers.append(.init("Allow", allowed)) }
    return response
  }
}

extension AttestationCall {
  /// - Parameter keys: those that were made at the start. The first one's public half is in every document for which the client
  ///   names no other, as in Marlin's images.
  public init(_ request: HTTPRequest, keys: [AttestationKey] = []) throws(CallDefect) {
    self = try Self.read(request, keys)
    if case .document(var contents, let form) = self, contents.publicKey == nil, let key = keys.first {
      contents.publicKey = key.publicHalf
      self = .document(contents, form)
    }
  }

  private static func read(_ request: HTTPRequest, _ keys: [AttestationKey]) throws(CallDefect) -> AttestationCall {
    switch request.path {
    case "/attestation":
      try Self.expect("GET", request)
      return .document(try Self.query(request, keys), Self.form(request))
    // Marlin's oyster-attestation-server.
    case "/attestation/raw":
      try Self.expect("GET", request)
      return .document(try Self.query(request, keys), .raw(contentType: "application/octet-stream"))
    case "/attestation/hex":
      try Self.expect("GET", request)
      return .document(try Self.query(request, keys), .hex)
    // enclaver's.
    case "/v1/attestation":
      try Self.expect("POST", request)
      let members = try Self.json(request, known: ["nonce", "public_key", "user_data"])
      let contents = ModuleRequest.DocumentContents(
        userData: try Self.bytes(members, "user_data", "base64", TextCodings.bytes(base64:)),
        nonce: try Self.bytes(members, "nonce", "base64", TextCodings.bytes(base64:)),
        publicKey: try Self.bytes(members, "public_key", "PEM", TextCodings.bytes(pem:)))
      return .document(try Self.bounded(contents), .raw(contentType: "application/cbor"))
    // nitriding's.
    case "/enclave/attestation":
      try Self.expect("GET", request)
      guard let text = request.query.first(where: { $0.name == "nonce" })?.value, text.utf8.count == 40,
        let nonce = TextCodings.bytes(hex: text)
      else { throw CallDefect(400, "nonce: expected 40 hexadecimal digits") }
      return .document(.init(nonce: nonce), .base64)
    // Evervault's.
    case "/attestation-doc":
      try Self.expect("POST", request)
      let members = try Self.json(request, known: ["challenge", "nonce", "publicKey"])
      let contents = ModuleRequest.DocumentContents(
        userData: try Self.bytes(members, "challenge", "text") { Array($0.utf8) },
        nonce: try Self.bytes(members, "nonce", "text") { Array($0.utf8) },
        publicKey: try Self.bytes(members, "publicKey", "base64", TextCodings.bytes(base64:)))
      return .document(try Self.bounded(contents), .raw(contentType: "application/octet-stream"))
    case "/pcr":
      try Self.expect("GET", request)
      return .registers
    case "/random":
      try Self.expect("GET", request)
      return .random(try Self.count(request), Self.randomForm(request))
    case "/key":
      try Self.expect("GET", request)
      return .keys(keys)
    default:
      let prefix = "/key/"
      guard request.path.hasPrefix(prefix) else { return try Self.register(request) }
      try Self.expect("GET", request)
      let name = String(request.path.dropFirst(prefix.count))
      let key = try Self.key(name, of: keys, status: 404)
      return .key(key, isDefault: key == keys.first, Self.randomForm(request))
    }
  }

  private static func key(
    _ name: String, of keys: [AttestationKey], status: Int
  ) throws(CallDefect) -> AttestationKey {
    if let key = keys.first(where: { $0.name == name }) { return key }
    let names = keys.isEmpty ? "none (attestation.key)" : keys.map(\.name).joined(separator: ", ")
    throw CallDefect(status, "key: found \(shown(name)); there is \(names)")
  }

  /// `/pcr/N`, `/pcr/N/extend`, `/pcr/N/lock`
  private static func register(_ request: HTTPRequest) throws(CallDefect) -> AttestationCall {
    let parts = request.path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).map {
      String(decoding: $0, as: UTF8.self)
    }
    guard (3...4).contains(parts.count), parts[0].isEmpty, parts[1] == "pcr" else { throw notFound(request) }
    guard (1...2).contains(parts[2].utf8.count), parts[2].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
      let index = UInt16(parts[2]), index < SimulatedModule.count
    else { throw CallDefect(404, "there are PCR0 to PCR31, and no \"\(parts[2])\"") }
    switch parts.count == 4 ? parts[3] : nil {
    case nil:
      try expect("GET", request)
      return .register(index)
    case "extend":
      try expect("POST", request)
      var data = request.body
      if data.isEmpty, let text = request.query.first(where: { $0.name == "data" })?.value {
        data = try value("data", text)
      }
      guard (1...extensionLimit).contains(data.count) else {
        throw CallDefect(
          400,
          "PCR\(index): found \(data.count) bytes to extend it with, expected 1 to \(extensionLimit), as the body or as "
            + "data=HEX")
      }
      return .extend(index, data)
    case "lock":
      try expect("POST", request)
      return .lock(index)
    default: throw notFound(request)
    }
  }

  private static func notFound(_ request: HTTPRequest) -> CallDefect {
    CallDefect(
      404,
      "there is nothing at \(shown(request.path)); there are /attestation, /attestation/raw, /attestation/hex, "
        + "/v1/attestation, /enclave/attestation, /attestation-doc, /key, /key/NAME, /pcr, /pcr/N, /pcr/N/extend, "
        + "/pcr/N/lock, /random")
  }

  private static func shown(_ text: String) -> String { JSONText.quoted(String(text.prefix(64))) }

  private static func expect(_ method: String, _ request: HTTPRequest) throws(CallDefect) {
    guard request.method == method else {
      throw CallDefect(
        405, "\(shown(request.path)): found \(request.method.prefix(16)), expected \(method)", allowed: method)
    }
  }

  /// Hexadecimal digits where it is these; else base64 of either alphabet. "base64:" before it says the latter.
  private static func value(_ name: String, _ text: String) throws(CallDefect) -> [UInt8] {
    let word = "base64:"
    if text.hasPrefix(word) {
      if let bytes = TextCodings.bytes(base64: String(text.dropFirst(word.count))) { return bytes }
    } else if let bytes = TextCodings.bytes(hex: text) ?? TextCodings.bytes(base64: text) {
      return bytes
    }
    throw CallDefect(400, "\(name): expected hexadecimal digits or base64url")
  }

  private static func query(
    _ request: HTTPRequest, _ keys: [AttestationKey]
  ) throws(CallDefect) -> ModuleRequest.DocumentContents {
    var contents = ModuleRequest.DocumentContents()
    var seen: [String] = []
    for field in request.query {
      guard ["nonce", "public_key", "user_data", "key"].contains(field.name) else {
        throw CallDefect(400, "\(shown(field.name)): expected nonce, public_key, user_data and key")
      }
      guard !seen.contains(field.name) else { throw CallDefect(400, "\(field.name) is there twice") }
      seen.append(field.name)
      guard !seen.contains("key") || !seen.contains("public_key") else {
        throw CallDefect(400, "key and public_key are there together, expected one of them")
      }
      if field.name == "key" {
        contents.publicKey = try key(field.value, of: keys, status: 400).publicHalf
        continue
      }
      let bytes = try value(field.name, field.value)
      switch field.name {
      case "nonce": contents.nonce = bytes
      case "public_key": contents.publicKey = bytes
      default: contents.userData = bytes
      }
    }
    return try bounded(contents)
  }

  /// What is empty is not there: the module has one word for both.
  private static func bounded(
    _ contents: ModuleRequest.DocumentContents
  ) throws(CallDefect) -> ModuleRequest.DocumentContents {
    func checked(_ name: String, _ bytes: [UInt8]?, _ limit: Int) throws(CallDefect) -> [UInt8]? {
      guard let bytes, !bytes.isEmpty else { return nil }
      guard bytes.count <= limit else {
        throw CallDefect(400, "\(name): found \(bytes.count) bytes, expected at most \(limit)")
      }
      return bytes
    }
    typealias Contents = ModuleRequest.DocumentContents
    return Contents(
      userData: try checked("user data", contents.userData, Contents.userDataLimit),
      nonce: try checked("nonce", contents.nonce, Contents.nonceLimit),
      publicKey: try checked("public key", contents.publicKey, Contents.publicKeyLimit))
  }

  private static func json(
    _ request: HTTPRequest, known: [String]
  ) throws(CallDefect) -> [(name: String, value: JSONText)] {
    // Each of them is optional: without a body none is there.
    guard !request.body.isEmpty else { return [] }
    guard let members = JSONText.object(request.body) else { throw CallDefect(400, "the body is not a JSON object") }
    return members.filter { known.contains($0.name) }
  }

  private static func bytes(
    _ members: [(name: String, value: JSONText)], _ name: String, _ form: String, _ decode: (String) -> [UInt8]?
  ) throws(CallDefect) -> [UInt8]? {
    switch members.first(where: { $0.name == name })?.value {
    case nil, .null?: return nil
    case .text(let text)?:
      guard let bytes = decode(text) else { throw CallDefect(400, "\(name): expected \(form)") }
      return bytes
    case .other?: throw CallDefect(400, "\(name): expected a text in \(form), or null")
    }
  }

  private static func count(_ request: HTTPRequest) throws(CallDefect) -> Int {
    guard let text = request.query.first(where: { $0.name == "bytes" })?.value else { return randomDefault }
    guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let count = Int(text), (1...randomLimit).contains(count)
    else { throw CallDefect(400, "bytes: expected a number from 1 to \(randomLimit)") }
    return count
  }

  /// The first of Accept's that there is; without one the device's own bytes.
  private static func form(_ request: HTTPRequest) -> DocumentForm {
    for type in accepted(request) {
      switch type {
      case "application/json": return .json
      case "text/plain", "text/*": return .base64
      case "application/cbor", "application/cose", "application/*", "*/*": return .raw(contentType: "application/cbor")
      case "application/octet-stream": return .raw(contentType: type)
      default: continue
      }
    }
    return .raw(contentType: "application/cbor")
  }

  private static func randomForm(_ request: HTTPRequest) -> RandomForm {
    for type in accepted(request) {
      switch type {
      case "application/json": return .json
      case "text/plain", "text/*": return .base64
      case "application/octet-stream", "application/*", "*/*": return .raw
      default: continue
      }
    }
    return .raw
  }

  private static func accepted(_ request: HTTPRequest) -> [String] {
    (request.header("accept") ?? "").utf8.split(separator: UInt8(ascii: ",")).map { part in
      let type = part.prefix { $0 != UInt8(ascii: ";") }.filter { $0 != 0x20 && $0 != 0x09 }
      return String(decoding: type, as: UTF8.self).lowercased()
    }
  }
}
