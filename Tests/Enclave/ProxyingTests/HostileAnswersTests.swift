import CLinux
import DNS
import EventLoop
import Inet
import LinuxSystem
import NameService
import PacketRelaying
import Policy
import Relaying
import Testing
import Wire

@testable import Proxying

/// The forwarder inside the enclave, beside a host that answers queries with everything but their answers. The program gets an
/// answer to its question or SERVFAIL, nothing that it did not ask for is kept or may be reached, and the next query works.
@Suite(.serialized) struct HostileAnswersTests {
  private static let good = "10.9.0.2"
  private static let evil = "10.66.6.6"

  /// What the host sends for a query, in place of its answer or before it.
  private struct Way: CustomTestStringConvertible, Sendable {
    var testDescription: String
    /// Whether the host gives the right answer behind it, on the same stream.
    var isFollowed = true
    /// Whether the response is the question's own, so that the program gets it with what stands beside the answer.
    var isOwn = false
    var messages: @Sendable (DNSMessage) -> [[UInt8]]
  }

  fileprivate static func right(_ query: DNSMessage, _ address: String = good, name: String = "ok.test") -> DNSMessage {
    Made.response(to: query, [.a(name, address)])
  }

  private static let ways: [Way] = [
    Way(testDescription: "other ids") { query in
      (1...200).map { index in
        var wrong = right(query, evil)
        wrong.id = query.id &+ UInt16(index)
        return wrong.bytes
      }
    },
    Way(testDescription: "another question") { query in
      ["evil.test", "www.ok.test", "test"].map { right(Made.query($0, id: query.id), evil, name: $0).bytes }
        + [right(Made.query("ok.test", 28, id: query.id), "fd66::6").bytes]
    },
    Way(testDescription: "more questions, and none", isFollowed: false) { query in
      var two = right(query, evil).bytes
      two[5] = 2
      var none = right(query, evil).bytes
      none[5] = 0
      return [two, none]
    },
    Way(testDescription: "a flood of responses that nobody asked for") { query in
      (0..<20_000).map { index in
        right(
          Made.query("n\(index).evil.test", id: query.id &+ UInt16(index % 1000 + 1)), evil, name: "n\(index).evil.test"
        ).bytes
      }
    },
    Way(testDescription: "records of other names beside the answer", isFollowed: false, isOwn: true) { query in
      [
        Made.response(
          to: query, [.a("ok.test", good), .a("evil.test", evil), .a("www.ok.test", evil)],
          authority: [.a("test", evil)],
          additional: [.a("ns.evil.test", evil), .a("ok.test", evil)]
        ).bytes
      ]
    },
    Way(testDescription: "an alias that leads into itself", isFollowed: false, isOwn: true) { query in
      [Made.response(to: query, [.init("ok.test", 5, Made.name("ok.test")), .a("evil.test", evil)]).bytes]
    },
    Way(testDescription: "a name that points at itself", isFollowed: false) { query in
      let place = query.question?.end ?? 0
      return [
        Made.response(to: query, [.init(raw: [0xc0 | UInt8(place >> 8), UInt8(place & 0xff)], 1, [10, 66, 6, 6])]).bytes
      ]
    },
    Way(testDescription: "two names that point at each other", isFollowed: false) { query in
      let place = query.question?.end ?? 0
      return [
        Made.response(
          to: query,
          [.init(raw: [0xc0, UInt8(place + 2), 0xc0, UInt8(place)], 1, [10, 66, 6, 6]), .a("ok.test", evil)]
        ).bytes
      ]
    },
    Way(testDescription: "an answer that is cut", isFollowed: false) { query in [right(query, evil).bytes.dropLast(2)]
    },
    Way(testDescription: "counts of 65,535 records", isFollowed: false) { query in
      var bytes = right(query, evil).bytes
      bytes.replaceSubrange(6..<12, with: [UInt8](repeating: 0xff, count: 6))
      return [bytes]
    },
    Way(testDescription: "64 KiB behind the right header", isFollowed: false) { query in
      var random = SplitMix(seed: 9)
      let head = Array(right(query, evil).bytes[..<(query.question?.end ?? 12)])
      return [head + (0..<(65535 - head.count)).map { _ in UInt8(truncatingIfNeeded: random.next()) }]
    },
    // What is no response at all ends the stream.
    Way(testDescription: "64 KiB of garbage", isFollowed: false) { _ in
      var random = SplitMix(seed: 3)
      return [(0..<65535).map { _ in UInt8(truncatingIfNeeded: random.next()) & 0x7f }]
    },
    Way(testDescription: "queries", isFollowed: false) { query in [query.bytes] },
    Way(testDescription: "three bytes", isFollowed: false) { _ in [[1, 2, 3]] },
    Way(testDescription: "nothing", isFollowed: false) { _ in [[]] },
  ]

  /// A host, a forwarder and a program in one loop.
  private final class World {
    let loop: EventLoop
    private var forwarder: DNSForwarder!
    private let names: Locked<NameService>
    private var listener: Listener!
    private var streams: [MessageStream] = []
    private let client: FileReference
    private let server: IPEndpoint
    private var source: DatagramSource!
    private(set) var received: [DNSMessage] = []
    /// nil: right answers.
    var way: Way?

    init(_ directory: String) throws {
      loop = try EventLoop()
      let path = directory + "/host"
      let socket = FileReference(try bindDatagram(IPEndpoint(.v4(.loopback), 0)))
      server = try #require(localEndpoint(socket.rawValue))
      client = FileReference(try connectDatagram(server))
      var settings = NameSettings()
      settings.hold = 3600
      names = Locked(
        NameService(
          Destinations(EgressRules(isOpen: false, allow: [try DestinationRule("*.test")])), settings,
          removesHiding: false))
      forwarder = try DNSForwarder(
        loop: loop, target: StreamTarget(.unix(path)), token: .none,
        names: names,
        datagramSockets: [socket], listeners: []
      ) { _ in }
      listener = try Listener(loop: loop, socket: FileReference(try listenStream(.unix(path)))) {
        Issue.record("\($0)")
      } accepted: {
        [unowned self] stream, _ in
        _ = try? StreamServing(loop: loop, stream: stream) { [unowned self] _, outcome in
          guard case .hello(let stream, _, let early) = outcome else { return }
          answer(stream, Answer(.ok))
          serve(stream, early)
        }
      }
      source = DatagramSource(loop: loop, socket: client, room: DatagramRoom()) { [unowned self] bytes, _, _ in
        if let message = DNSMessage(bytes) { received.append(message) }
        loop.stop()
      }
      _ = try loop.add(client.rawValue, [.readable], source)
    }

    private func serve(_ stream: FileReference, _ early: [UInt8]) {
      let made = try? MessageStream(loop: loop, socket: stream, early: early, outputLimit: 64 << 20) {
        [unowned self] stream, bytes in
        guard let query = DNSMessage(bytes) else { return }
        for message in way?.messages(query) ?? [] { stream.send(message) }
        if way?.isFollowed ?? true, let question = query.question {
          stream.send(HostileAnswersTests.right(query, name: question.name).bytes)
        }
      } closed: { [unowned self] stream in
        streams.removeAll { $0 === stream }
      }
      if let made { streams.append(made) }
    }

    /// The response, or nil where none comes.
    func ask(_ name: String, _ id: UInt16) throws -> DNSMessage? {
      received = []
      _ = sendDatagram(client.rawValue, Made.query(name, id: id).bytes, to: nil)
      let overdue = TimerSource { [loop] in loop.stop() }
      let token = loop.schedule(after: .seconds(20), overdue)
      try loop.run()
      loop.cancel(token)
      #expect(received.count <= 1)
      return received.first
    }

    func names(of address: String) throws -> [String] {
      let address = try #require(IPAddress(address))
      return names.with { $0.names(of: address, now: monotonicNanoseconds() / 1_000_000_000) }.map { "\($0)" }
    }
  }

  @Test(arguments: ways.indices)
  func aHostThatLies(_ index: Int) throws {
    let way = Self.ways[index]
    let directory = try makeTemporaryDirectory("/tmp/tombolo-answers-")
    defer { removeTree(directory) }
    let world = try World(directory)
    world.way = way
    let response = try #require(try world.ask("ok.test", 77), "\(way.testDescription): no answer")
    #expect(response.id == 77 && response.question?.name == "ok.test")
    // The right answer, where there was one; otherwise SERVFAIL, or what is left when everything false is taken out.
    if way.isFollowed {
      #expect(response.code == 0 && response.bytes.suffix(4) == [10, 9, 0, 2], "\(way.testDescription)")
    }
    if !way.isOwn { #expect(!Array(response.bytes).containsSequence([10, 66, 6, 6]), "\(way.testDescription)") }
    #expect(try world.names(of: Self.evil) == [] && world.names(of: "fd66::6") == [], "\(way.testDescription)")
    // Nothing false was kept: other names are asked for, and answered, as if nothing had been.
    world.way = nil
    for name in ["evil.test", "www.ok.test", "n3.evil.test"] {
      let next = try #require(try world.ask(name, 78), "\(way.testDescription): no answer for \(name)")
      #expect(next.code == 0 && next.bytes.suffix(4) == [10, 9, 0, 2], "\(way.testDescription): \(name)")
    }
    #expect(try world.names(of: Self.evil) == [])
  }
}

extension [UInt8] {
  fileprivate func containsSequence(_ part: [UInt8]) -> Bool {
    count >= part.count && (0...(count - part.count)).contains { self[$0..<($0 + part.count)].elementsEqual(part) }
  }
}
