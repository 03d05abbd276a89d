import HTTP
import SecurityModule
import Testing

@testable import AttestationCalls

/// Clients of Marlin, enclaver, nitriding and Evervault get what they ask for, as they ask for it.
struct AttestationCallTests {
  private func call(
    _ method: String, _ target: String, _ body: String = "", accept: String = "*/*", keys: [AttestationKey] = []
  ) throws -> AttestationCall {
    var parser = HTTPParser()
    parser.feed(
      Array(
        "\(method) \(target) HTTP/1.1\r\nHost: a\r\nAccept: \(accept)\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
          .utf8))
    return try AttestationCall(try #require(try parser.next()), keys: keys)
  }

  private func status(_ method: String, _ target: String, _ body: String = "") -> Int? {
    do {
      _ = try call(method, target, body)
      return nil
    } catch { return (error as? CallDefect)?.status }
  }

  private let cbor = AttestationCall.DocumentForm.raw(contentType: "application/cbor")
  private let bytes = AttestationCall.DocumentForm.raw(contentType: "application/octet-stream")

  @Test func documents() throws {
    #expect(try call("GET", "/attestation") == .document(.init(), cbor))
    #expect(
      try call("GET", "/attestation?nonce=0a0B&public_key=base64:-_8&user_data=Zm9vYg", accept: "application/json")
        == .document(.init(userData: Array("foob".utf8), nonce: [10, 11], publicKey: [0xfb, 0xff]), .json))
    #expect(try call("GET", "/attestation?nonce=", accept: "text/plain;q=1") == .document(.init(), .base64))
    #expect(try call("GET", "/attestation", accept: "text/html, application/cose;q=0.5") == .document(.init(), cbor))
    // Marlin
    #expect(
      try call("GET", "/attestation/raw?user_data=01&nonce=02") == .document(.init(userData: [1], nonce: [2]), bytes))
    #expect(try call("GET", "/attestation/hex?public_key=03") == .document(.init(publicKey: [3]), .hex))
    // enclaver
    let pem = #"-----BEGIN PUBLIC KEY-----\nZm9v\n-----END PUBLIC KEY-----\n"#
    #expect(
      try call("POST", "/v1/attestation", #"{"nonce":"AQ==","user_data":null,"public_key":"\#(pem)","more":1}"#)
        == .document(.init(nonce: [1], publicKey: Array("foo".utf8)), cbor))
    #expect(try call("POST", "/v1/attestation") == .document(.init(), cbor))
    // nitriding
    let nonce = String(repeating: "a1", count: 20)
    #expect(
      try call("GET", "/enclave/attestation?nonce=\(nonce)")
        == .document(.init(nonce: [UInt8](repeating: 0xa1, count: 20)), .base64))
    // Evervault
    #expect(
      try call("POST", "/attestation-doc", #"{"challenge":"c","nonce":"n","publicKey":"AQ=="}"#)
        == .document(.init(userData: [0x63], nonce: [0x6e], publicKey: [1]), bytes))
  }

  /// Where a client names no public key the first one's stands in the document, whichever client it is.
  @Test func keys() throws {
    let keys = [
      AttestationKey(name: "a", type: "p256", publicHalf: [1]),
      AttestationKey(name: "b", type: "ed25519", publicHalf: [2]),
    ]
    func half(_ method: String, _ target: String, _ body: String = "") throws -> [UInt8]? {
      guard case .document(let contents, _) = try call(method, target, body, keys: keys) else { return nil }
      return contents.publicKey
    }
    let nonce = String(repeating: "a1", count: 20)
    for (method, target, body) in [
      ("GET", "/attestation", ""), ("GET", "/attestation?public_key=", ""), ("GET", "/attestation/raw?nonce=01", ""),
      ("GET", "/attestation/hex", ""), ("POST", "/v1/attestation", ""), ("POST", "/attestation-doc", "{}"),
      ("GET", "/enclave/attestation?nonce=\(nonce)", ""), ("GET", "/attestation?key=a", ""),
    ] { #expect(try half(method, target, body) == [1], "\(target)") }
    #expect(try half("GET", "/attestation?key=b") == [2] && half("GET", "/attestation/hex?nonce=01&key=b") == [2])
    #expect(try half("GET", "/attestation?public_key=07") == [7])
    #expect(try half("POST", "/attestation-doc", #"{"publicKey":"Bw=="}"#) == [7])
    #expect(try call("GET", "/key", keys: keys) == .keys(keys))
    #expect(try call("GET", "/key/a", keys: keys) == .key(keys[0], isDefault: true, .raw))
    #expect(try call("GET", "/key/b", accept: "application/json", keys: keys) == .key(keys[1], isDefault: false, .json))
    for target in [
      "/attestation?key=c", "/attestation?key=a&public_key=01", "/attestation?key=a&key=b", "/key/c", "/key/",
    ] {
      #expect(throws: CallDefect.self, "\(target)") { try call("GET", target, keys: keys) }
    }
    #expect(status("GET", "/key/a") == 404 && status("GET", "/attestation?key=a") == 400)
    #expect(status("POST", "/key") == 405)
    let list = String(decoding: AttestationKey.response(keys).body, as: UTF8.self)
    #expect(
      list == """
        [{"name":"a","type":"p256","public_key":"01","default":true},
         {"name":"b","type":"ed25519","public_key":"02","default":false}]

        """)
  }

  @Test func registersAndRandom() throws {
    #expect(try call("GET", "/pcr") == .registers)
    #expect(try call("GET", "/pcr/31") == .register(31))
    #expect(try call("POST", "/pcr/17/extend", "data") == .extend(17, Array("data".utf8)))
    #expect(try call("POST", "/pcr/17/extend?data=0102") == .extend(17, [1, 2]))
    #expect(try call("POST", "/pcr/17/lock") == .lock(17))
    #expect(try call("GET", "/random") == .random(256, .raw))
    #expect(try call("GET", "/random?bytes=8", accept: "application/json") == .random(8, .json))
  }

  @Test func misuse() {
    for (method, target, body, expected) in [
      ("POST", "/attestation", "", 405), ("GET", "/v1/attestation", "", 405), ("GET", "/pcr/17/extend", "", 405),
      ("GET", "/", "", 404), ("GET", "/pcr/32", "", 404), ("GET", "/pcr/x", "", 404), ("GET", "/pcr/17/x", "", 404),
      ("GET", "/attestation?nonce=!", "", 400), ("GET", "/attestation?nonse=01", "", 400),
      ("GET", "/attestation?nonce=01&nonce=01", "", 400),
      ("GET", "/attestation?nonce=" + String(repeating: "00", count: 513), "", 400),
      ("GET", "/enclave/attestation", "", 400), ("GET", "/enclave/attestation?nonce=a1", "", 400),
      ("POST", "/v1/attestation", "[]", 400), ("POST", "/v1/attestation", #"{"nonce":1}"#, 400),
      ("POST", "/v1/attestation", #"{"public_key":"AQ=="}"#, 400), ("POST", "/pcr/17/extend", "", 400),
      ("POST", "/pcr/17/extend", String(repeating: "a", count: 513), 400), ("GET", "/random?bytes=0", "", 400),
      ("GET", "/random?bytes=1025", "", 400),
    ] { #expect(status(method, target, body) == expected, "\(method) \(target.prefix(60))") }
  }

  /// One that asks without end does not take the device from the others.
  @Test func budgets() {
    var budgets = CallerBudgets(rate: 10)
    func take(_ cost: Int, _ caller: UInt32, _ now: UInt64) -> Bool { budgets.take(cost, caller, now: now) }
    for _ in 0..<64 { #expect(take(1, 7, 0)) }
    #expect(!take(1, 7, 0))
    #expect(take(33, 8, 0))
    #expect(!take(1, 7, 99_000_000))
    #expect(take(1, 7, 101_000_000))
    for caller in 0..<1000 as Range<UInt32> { #expect(take(1, caller, 200_000_000)) }
    #expect(take(64, 7, .max))
  }
}
