import Inet
import LinuxSystem

/// What of a gateway needs rights, for processes that go on with it while its maker gives up its own.
public struct PrivilegedPart {
  /// Descriptors that it needs.
  public var held: [FileReference]
  /// Answers one request, as `ask` has it.
  public var answer: ([UInt8]) -> (bytes: [UInt8], files: [FileReference])
  /// Undoes what it has made.
  public var end: () -> Void
  /// To be called when those processes are there.
  public var goesOn: (_ ask: @escaping ([UInt8]) throws -> (bytes: [UInt8], files: [FileReference])) -> Void
  /// What needs a right for every packet, and so a process of its own.
  public var keeper: Keeper?

  /// Gives the verdicts on the packets of queues.
  public struct Keeper {
    /// Descriptors that it needs.
    public var held: [FileReference]
    /// Its work, until `end` or the end of its maker.
    public var run: () -> Void
    /// What its maker tells it by; an error is reported on it when it has ended.
    public var orders: FileReference
    /// Ends its work.
    public var end: () -> Void
  }
}

/// What changes the machine for an enclave in raw mode and undoes that: in the process that made it, or in a caretaker. It
/// takes and gives few words, and gives descriptors.
protocol PrivilegedLink: AnyObject {
  var name: String { get }
  /// What another process needs to go on with it.
  var held: [FileReference] { get }
  func answer(_ words: [String]) throws -> (words: [String], files: [FileReference])
  /// Another process goes on with it: nothing is undone here any more.
  func abandon()
  /// Undoes what it has made.
  func close()
}

/// A `PrivilegedLink` in this process or in another: a line of words goes there, and words and descriptors come back, or a
/// sentence.
final class LinkAccess<Link: PrivilegedLink> {
  private let link: Link
  private var ask: (([UInt8]) throws -> (bytes: [UInt8], files: [FileReference]))?
  let name: String

  init(_ link: Link) {
    self.link = link
    name = link.name
  }

  func request(_ words: [String]) throws -> (words: [String], files: [FileReference]) {
    guard let ask else { return try link.answer(words) }
    let answer = try ask(Array(words.joined(separator: " ").utf8))
    let text = String(decoding: answer.bytes, as: UTF8.self)
    // The first word says whether it is an answer.
    guard text.hasPrefix("ok ") else { throw RawGatewayError(sentence: String(text.dropFirst(3))) }
    return (Self.words(String(text.dropFirst(3))), answer.files)
  }

  func close() { if ask == nil { link.close() } }

  /// The other process is a copy of this one, with the link in it.
  func handOver() -> PrivilegedPart {
    PrivilegedPart(
      held: link.held,
      answer: { [link] request in
        do {
          let answer = try link.answer(Self.words(String(decoding: request, as: UTF8.self)))
          return (Array("ok \(answer.words.joined(separator: " "))".utf8), answer.files)
        } catch {
          return (Array("no \(error)".utf8), [])
        }
      }, end: { [link] in link.close() },
      goesOn: { [self] ask in
        self.ask = ask
        link.abandon()
      })
  }

  private static func words(_ text: String) -> [String] { text.split(separator: " ").map(String.init) }
}

extension HostTunnel.Shape {
  /// As words.
  var words: [String] {
    [address4, address6].map { $0?.description ?? "-" } + ["\(mtu)", "\(queues)"]
  }

  init(words: some Collection<String>) throws(RawGatewayError) {
    let words = Array(words)
    guard words.count == 4, let mtu = UInt16(words[2]), let queues = UInt8(words[3]), (1...64).contains(queues) else {
      throw RawGatewayError(sentence: "no such request")
    }
    self.init(address4: IPPrefix(words[0]), address6: IPPrefix(words[1]), mtu: mtu, queues: queues)
  }
}
