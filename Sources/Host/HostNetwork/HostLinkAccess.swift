import CLinux
import Inet
import LinuxSystem
import Netlink

/// What of a gateway needs rights, for a process that goes on with it while its maker gives up its own.
public struct PrivilegedPart {
  /// Descriptors that it needs.
  public var held: [FileReference]
  /// Answers one request, as `ask` has it.
  public var answer: ([UInt8]) -> (bytes: [UInt8], files: [FileReference])
  /// Undoes what it has made.
  public var end: () -> Void
  /// To be called when that process is there.
  public var goesOn: (_ ask: @escaping ([UInt8]) throws -> (bytes: [UInt8], files: [FileReference])) -> Void
}

/// A `HostLink` in this process or in another. What goes to another one is a line of words: `choose`, or `configure` with two
/// prefixes, the MTU and the number of queues; and back come words and descriptors, or a sentence.
final class HostLinkAccess {
  private let link: HostLink
  private var ask: (([UInt8]) throws -> (bytes: [UInt8], files: [FileReference]))?
  let name: String

  init(_ link: HostLink) {
    self.link = link
    name = link.name
  }

  func chooseAddresses() throws -> (v4: IPPrefix?, v6: IPPrefix?) {
    guard let ask else { return try link.chooseAddresses() }
    let (words, _) = try Self.words(ask(Array("choose".utf8)))
    guard words.count == 2 else { throw SystemError("choose", name, errno: EPROTO) }
    return (IPPrefix(words[0]), IPPrefix(words[1]))
  }

  func configure(_ wanted: HostTunnel.Shape) throws -> HostLink.Opened {
    guard let ask else { return try link.configure(wanted) }
    let request = "configure \(Self.text(wanted.address4)) \(Self.text(wanted.address6)) \(wanted.mtu) \(wanted.queues)"
    let (words, files) = try Self.words(ask(Array(request.utf8)))
    guard files.count == Int(wanted.queues) + 2, let backend = PacketFilter(rawValue: words.joined(separator: " "))
    else {
      throw SystemError("configure", name, errno: EPROTO)
    }
    return .init(
      queues: Array(files.dropLast(2)), names: (files[files.count - 2], files[files.count - 1]), backend: backend)
  }

  func close() { if ask == nil { link.close() } }

  /// The other process is a copy of this one, with the link in it.
  func handOver() -> PrivilegedPart {
    PrivilegedPart(held: link.held, answer: { [link] in Self.answer($0, link) }, end: { [link] in link.close() }) {
      [self] ask in
      self.ask = ask
      link.abandon()
    }
  }

  // MARK: words

  private static func text(_ prefix: IPPrefix?) -> String { prefix?.description ?? "-" }

  /// The first word says whether it is an answer.
  private static func words(
    _ answer: (bytes: [UInt8], files: [FileReference])
  ) throws(RawGatewayError) -> (words: [String], files: [FileReference]) {
    let text = String(decoding: answer.bytes, as: UTF8.self)
    guard text.hasPrefix("ok ") else { throw RawGatewayError(sentence: String(text.dropFirst(3))) }
    return (text.dropFirst(3).split(separator: " ").map(String.init), answer.files)
  }

  private static func answer(_ request: [UInt8], _ link: HostLink) -> (bytes: [UInt8], files: [FileReference]) {
    let words = String(decoding: request, as: UTF8.self).split(separator: " ").map(String.init)
    do {
      if words == ["choose"] {
        let chosen = try link.chooseAddresses()
        return (Array("ok \(text(chosen.v4)) \(text(chosen.v6))".utf8), [])
      }
      guard words.count == 5, words[0] == "configure", let mtu = UInt16(words[3]), let queues = UInt8(words[4]),
        (1...64).contains(queues)
      else { throw RawGatewayError(sentence: "no such request") }
      let opened = try link.configure(
        .init(address4: IPPrefix(words[1]), address6: IPPrefix(words[2]), mtu: mtu, queues: queues))
      return (
        Array("ok \(opened.backend.rawValue)".utf8), opened.queues + [opened.names.datagram, opened.names.stream]
      )
    } catch {
      return (Array("no \(error)".utf8), [])
    }
  }
}
