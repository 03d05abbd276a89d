import EventLoop
import HTTP
import LinuxSystem
import SecurityModule
import Testing

@testable import Attesting

/// A security module that answers anything at all: its clients get an error, and the service goes on.
struct HostileModuleTests {
  private final class Module: ModuleDevice {
    var body: ([UInt8]) throws(ModuleFailure) -> [UInt8]
    init(_ body: @escaping ([UInt8]) throws(ModuleFailure) -> [UInt8]) { self.body = body }
    func perform(_ request: [UInt8]) throws(ModuleFailure) -> [UInt8] { try body(request) }
  }

  private func get(_ target: String, _ method: String = "GET", _ body: String = "") throws -> HTTPRequest {
    var parser = HTTPParser()
    parser.feed(
      Array("\(method) \(target) HTTP/1.1\r\nHost: a\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)".utf8))
    return try #require(try parser.next())
  }

  private func all() throws -> [HTTPRequest] {
    try [
      get("/attestation"), get("/attestation/hex"), get("/pcr"), get("/pcr/16"), get("/random?bytes=1024"),
      get("/pcr/17/extend", "POST", "x"), get("/pcr/17/lock", "POST"), get("/v1/attestation", "POST"),
    ]
  }

  private func server(_ module: any ModuleDevice, callers: Set<UInt32>? = nil, rate: Int = 10_000) throws
    -> AttestationServer
  {
    try AttestationServer(
      loop: EventLoop(), module: module, listeners: [],
      settings: .init(callers: callers, registers: [17, 18], rate: rate), report: { _ in })
  }

  @Test func anyAnswer() throws {
    var random = SystemRandomNumberGenerator()
    let memory = ModuleInMemory()
    var round = 0
    let module = Module { (request) throws(ModuleFailure) in
      var bytes = try memory.perform(request)
      switch round % 6 {
      case 0: bytes = Array(bytes.prefix(Int.random(in: 0..<max(1, bytes.count), using: &random)))
      case 1: bytes += [0]
      case 2: bytes = [UInt8](repeating: 0, count: 0x3000)
      case 3: bytes = (0..<Int.random(in: 0...60)).map { _ in UInt8.random(in: 0...255) }
      case 4: bytes = ModuleError.internalError.bytes
      default: throw .unreachable("ioctl")
      }
      return bytes
    }
    let server = try server(module)
    for _ in 0..<600 {
      for (caller, request) in try all().enumerated() {
        let status = server.answer(request, UInt32(round * 10 + caller)).status
        #expect([502, 503].contains(status), "round \(round % 6): \(request.path): \(status)")
      }
      round += 1
    }
  }

  /// Empty random numbers must not keep it asking for more.
  @Test func noRandomNumbers() throws {
    let module = Module { (_) throws(ModuleFailure) in
      [0xa1, 0x69] + Array("GetRandom".utf8) + [0xa1, 0x66] + Array("random".utf8) + [0x40]
    }
    #expect(try server(module).answer(get("/random"), 0).status == 502)
  }

  @Test func whatIsAllowed() throws {
    let module = ModuleInMemory()
    try RuntimeMeasurement.record(Array("text".utf8), in: 16, of: module)
    let server = try server(module, callers: [7], rate: 1)
    func ask(_ method: String, _ target: String, _ body: String = "", _ caller: UInt32 = 7) throws -> (Int, String) {
      let response = server.answer(try get(target, method, body), caller)
      return (response.status, String(decoding: response.body, as: UTF8.self))
    }
    #expect(try ask("POST", "/pcr/16/extend", "x") == (409, "PCR16 is locked (ReadOnlyIndex)\n"))
    #expect(try ask("POST", "/pcr/0/lock") == (409, "PCR0 is locked (ReadOnlyIndex)\n"))
    #expect(try ask("POST", "/pcr/19/extend", "x") == (403, "PCR19 is none of attestation.pcrs\n"))
    #expect(try ask("POST", "/pcr/17/extend", "x").0 == 200)
    #expect(try ask("POST", "/pcr/17/lock").1.contains("\"locked\":true"))
    #expect(try ask("POST", "/pcr/17/lock") == (409, "PCR17 is locked (ReadOnlyIndex)\n"))
    #expect(try ask("GET", "/attestation", "", 8) == (403, "user 8 is none of attestation.callers\n"))
    let statuses = try (0..<200).map { _ in try ask("GET", "/attestation").0 }
    #expect(statuses.first == 200 && statuses.contains(429))
  }

  /// What another has put into the register is in every document: the service must not run then.
  @Test func theRegisterOfTheRuntime() throws {
    let text = Array("tombolo runtime 1\n".utf8)
    let module = ModuleInMemory()
    try RuntimeMeasurement.record(text, in: 16, of: module)
    try RuntimeMeasurement.record(text, in: 16, of: module)
    #expect(throws: RuntimeMeasurement.Failure.self) { try RuntimeMeasurement.record([1], in: 16, of: module) }
    #expect(try module.register(16).value == measuredRegister(text))
    let other = ModuleInMemory()
    _ = try other.ask(.extendPCR(16, [1]))
    #expect(throws: RuntimeMeasurement.Failure.self) { try RuntimeMeasurement.record(text, in: 16, of: other) }
  }
}
