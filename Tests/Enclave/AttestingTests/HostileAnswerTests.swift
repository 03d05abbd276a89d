import CBORCodec
import EventLoop
import Foundation
import HTTP
import SecurityModule
import Testing

@testable import Attesting

/// Every answer of the security module is foreign bytes: whatever they are, clients get an answer of HTTP, the service stays
/// as small as it was, and serves as before when the module does again.
struct HostileAnswerTests {
  /// What a good module says, but for the answers that `change` makes.
  private final class Module: ModuleDevice {
    private let memory = ModuleInMemory()
    private(set) var answers = 0
    var change: ((_ request: [UInt8], _ answer: () throws(ModuleFailure) -> [UInt8]) throws(ModuleFailure) -> [UInt8])?

    func perform(_ request: [UInt8]) throws(ModuleFailure) -> [UInt8] {
      answers += 1
      guard let change else { return try memory.perform(request) }
      return try change(request) { () throws(ModuleFailure) in try memory.perform(request) }
    }
  }

  private static let calls = [
    ("GET", "/attestation", ""), ("GET", "/attestation/hex?nonce=00", ""), ("GET", "/pcr", ""), ("GET", "/pcr/16", ""),
    ("GET", "/random?bytes=600", ""), ("POST", "/pcr/17/extend", "x"), ("POST", "/pcr/18/lock", ""),
    ("POST", "/v1/attestation", ""),
  ]

  private func requests() throws -> [HTTPRequest] {
    try Self.calls.map { method, target, body in
      var parser = HTTPParser()
      let length = body.utf8.count
      parser.feed(Array("\(method) \(target) HTTP/1.1\r\nHost: a\r\nContent-Length: \(length)\r\n\r\n\(body)".utf8))
      return try #require(try parser.next())
    }
  }

  private func server(_ module: Module) throws -> AttestationServer {
    try AttestationServer(
      loop: EventLoop(), module: module, listeners: [], settings: .init(registers: [17, 18], rate: 1 << 30),
      report: { _ in })
  }

  // MARK: every answer

  /// One answer is not what it should be, all others are.
  private func status(_ request: HTTPRequest, place: Int, _ answer: [UInt8]) throws -> Int {
    let module = Module()
    var count = 0
    module.change = { (_, good) throws(ModuleFailure) in
      count += 1
      return count == place + 1 ? answer : try good()
    }
    return try server(module).answer(request, 0).status
  }

  /// The answers that a good module gives to a request.
  private func goodAnswers(_ request: HTTPRequest) throws -> [(name: String, bytes: [UInt8])] {
    let module = Module()
    var answers: [(name: String, bytes: [UInt8])] = []
    module.change = { (request, good) throws(ModuleFailure) in
      let answer = try good()
      answers.append((ModuleRequest(bytes: request)?.name ?? "", answer))
      return answer
    }
    #expect(try server(module).answer(request, 0).status == 200)
    return answers
  }

  @Test func everyAnswerTruncatedOversizedOrOfAnotherType() throws {
    var wrong: [String] = []
    for request in try requests() {
      for (place, (_, good)) in try goodAnswers(request).enumerated() where place < 4 {
        func check(_ answer: [UInt8], _ what: String) throws {
          let status = try status(request, place: place, answer)
          if status != 502 { wrong.append("\(request.path), answer \(place), \(what): \(status)") }
        }
        for count in 0..<good.count { try check(Array(good.prefix(count)), "\(count) of \(good.count) bytes") }
        for more in [1, 100, ModuleAnswer.limit - good.count, ModuleAnswer.limit + 1 - good.count, 1 << 20] {
          try check(good + [UInt8](repeating: 0, count: more), "\(more) bytes more")
        }
        let value = try CBOR(good)
        for variant in Self.variants(value) { try check(variant.encoded, "\(variant)") }
        // One that is well-formed, and longer than a module's may be.
        let long = CBOR.map([
          .init(
            key: .text("Attestation"),
            value: .map([.init(key: .text("document"), value: .bytes([UInt8](repeating: 0, count: ModuleAnswer.limit)))]
            ))
        ])
        try check(long.encoded, "too long a document")
      }
    }
    #expect(wrong.prefix(20) == [])
  }

  private static let kinds: [CBOR] = [
    .unsigned(1 << 20), .negative(0), .bytes([1]), .text("x"), .array([]), .map([]), .tagged(18, .null), .bool(true),
    .null,
  ]

  private static func kind(_ value: CBOR) -> Int {
    switch value {
    case .unsigned: 0
    case .negative: 1
    case .bytes: 2
    case .text: 3
    case .array: 4
    case .map: 5
    case .tagged: 6
    case .bool: 7
    case .null: 8
    }
  }

  /// With each value of another type in turn, and each key and field missing. The digest's name is nobody's business here.
  private static func variants(_ value: CBOR) -> [CBOR] {
    var variants = kinds.filter { kind($0) != kind(value) }
    switch value {
    case .map(let pairs):
      for (index, pair) in pairs.enumerated() where pair.key != .text("digest") {
        var others = pairs
        others.remove(at: index)
        variants.append(.map(others))
        for key in kinds where key != pair.key {
          others = pairs
          others[index].key = key
          variants.append(.map(others))
        }
        for inner in self.variants(pair.value) {
          others = pairs
          others[index].value = inner
          variants.append(.map(others))
        }
      }
    case .array(let items):
      for index in items.indices {
        for inner in self.variants(items[index]) {
          var others = items
          others[index] = inner
          variants.append(.array(others))
        }
      }
    default: break
    }
    return variants
  }

  // MARK: any answers

  /// `TOMBOLO_HOSTILE_ANSWERS=10000000` is for once, by hand: minutes.
  private static let count =
    ProcessInfo.processInfo.environment["TOMBOLO_HOSTILE_ANSWERS"].flatMap(Int.init) ?? 100_000

  @Test func anyAnswers() throws {
    let requests = try requests()
    let pool = Dictionary(grouping: try requests.flatMap { try goodAnswers($0) }) { $0.name }.mapValues {
      $0.map(\.bytes)
    }
    let module = Module()
    let server = try server(module)
    var random = SplitMix(seed: 15)
    module.change = { (request, _) throws(ModuleFailure) in
      if Int.random(in: 0..<64, using: &random) == 0 { throw .unreachable("ioctl") }
      return Self.answer(to: request, pool, &random)
    }
    var statuses: [Int: Int] = [:]
    var size = 0
    let register = Array("tombolo runtime 1\n".utf8)
    var measured = 0
    while module.answers < Self.count {
      // What grows at first is what is made once.
      if size == 0, module.answers > Self.count / 2 { size = try Self.residentBytes() }
      for (index, request) in requests.enumerated() {
        statuses[server.answer(request, UInt32(truncatingIfNeeded: module.answers + index)).status, default: 0] += 1
      }
      // What keeps the service from its start where the register is not what it should be.
      if (try? RuntimeMeasurement.record(register, in: 16, of: module)) != nil { measured += 1 }
    }
    #expect(Set(statuses.keys).isSubset(of: [200, 400, 409, 502, 503]), "\(statuses)")
    #expect(statuses[502, default: 0] > Self.count / 10, "\(statuses)")
    #expect(measured == 0)
    let growth = try Self.residentBytes() - size
    #expect(growth < 32 << 20, "it has grown by \(growth) bytes")
    print("hostile module: \(module.answers) answers, \(statuses.sorted { $0.key < $1.key }), grown by \(growth) bytes")
    module.change = nil
    for request in requests { #expect(server.answer(request, 7).status == 200, "\(request.path)") }
  }

  private static func residentBytes() throws -> Int {
    let words = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
    return try #require(words.count > 1 ? Int(words[1]) : nil) * 4096
  }

  /// Mostly something that begins as an answer does, or it would never come far.
  private static func answer(to request: [UInt8], _ pool: [String: [[UInt8]]], _ random: inout SplitMix)
    -> [UInt8]
  {
    func below(_ count: Int, _ random: inout SplitMix) -> Int { Int.random(in: 0..<max(1, count), using: &random) }
    func byte(_ random: inout SplitMix) -> UInt8 { UInt8.random(in: 0...255, using: &random) }
    let way = below(16, &random)
    if way == 0 { return (0..<below(200, &random)).map { _ in byte(&random) } }
    if way == 1 { return value(0, &random).encoded }
    if way == 2 { return ModuleError.allCases.randomElement(using: &random)?.bytes ?? [] }
    let name = ModuleRequest(bytes: request)?.name ?? ""
    let own = below(8, &random) == 0 ? pool.randomElement(using: &random)?.value : pool[name]
    var bytes = own?.randomElement(using: &random) ?? []
    switch way {
    case 3: return bytes
    case 4: return Array(bytes.prefix(below(bytes.count, &random)))
    case 5: return bytes + (0..<below(20, &random)).map { _ in byte(&random) }
    case 6: return bytes + [UInt8](repeating: byte(&random), count: below(2 * ModuleAnswer.limit, &random))
    case 7, 8: return (try? CBOR(bytes)).map { changed($0, &random).encoded } ?? bytes
    default:
      // Near the beginning are names, types and lengths.
      for _ in 0...below(4, &random) where !bytes.isEmpty {
        let place = Bool.random(using: &random) ? below(min(bytes.count, 40), &random) : below(bytes.count, &random)
        switch below(4, &random) {
        case 0: bytes.remove(at: place)
        case 1: bytes.insert(byte(&random), at: place)
        default: bytes[place] = byte(&random)
        }
      }
      return bytes
    }
  }

  private static func value(_ depth: Int, _ random: inout SplitMix) -> CBOR {
    let count = Int.random(in: 0..<4, using: &random)
    switch Int.random(in: 0..<(depth > 20 ? 4 : 8), using: &random) {
    case 0:
      return .unsigned(UInt64.random(in: 0...UInt64.max, using: &random) >> UInt64.random(in: 0..<64, using: &random))
    case 1: return .bytes([UInt8](repeating: 7, count: [0, 1, 32, 48, 64].randomElement(using: &random) ?? 0))
    case 2:
      return .text(
        ["data", "lock", "Error", "DescribePCR", "random", "\u{0}\u{202e}"].randomElement(using: &random) ?? "")
    case 3: return kinds.randomElement(using: &random) ?? .null
    case 4: return .array((0..<count).map { _ in value(depth + 1, &random) })
    case 5: return .tagged(UInt64.random(in: 0...100, using: &random), value(depth + 1, &random))
    default:
      return .map((0..<count).map { _ in .init(key: value(depth + 8, &random), value: value(depth + 1, &random)) })
    }
  }

  /// One value somewhere in it is another one.
  private static func changed(_ old: CBOR, _ random: inout SplitMix) -> CBOR {
    switch old {
    case .map(var pairs) where !pairs.isEmpty:
      let index = Int.random(in: 0..<pairs.count, using: &random)
      switch Int.random(in: 0..<8, using: &random) {
      case 0: pairs.remove(at: index)
      case 1: pairs.append(pairs[index])
      case 2: pairs[index].key = value(0, &random)
      default: pairs[index].value = changed(pairs[index].value, &random)
      }
      return .map(pairs)
    case .array(var items) where !items.isEmpty:
      let index = Int.random(in: 0..<items.count, using: &random)
      items[index] = changed(items[index], &random)
      return .array(items)
    default: return value(0, &random)
    }
  }
}
