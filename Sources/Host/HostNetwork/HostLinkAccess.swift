import CLinux
import Inet
import LinuxSystem
import Netlink

// `HostLink` in words: `choose`, or `configure` with two prefixes, the MTU and the number of queues.

extension HostLink: PrivilegedLink {
  func answer(_ words: [String]) throws -> (words: [String], files: [FileReference]) {
    if words == ["choose"] {
      let chosen = try chooseAddresses()
      return ([chosen.v4, chosen.v6].map { $0?.description ?? "-" }, [])
    }
    guard words.first == "configure" else { throw RawGatewayError(sentence: "no such request") }
    let opened = try configure(HostTunnel.Shape(words: words.dropFirst()))
    return ([opened.backend.rawValue], opened.queues + [opened.names.datagram, opened.names.stream])
  }
}

extension LinkAccess where Link == HostLink {
  func chooseAddresses() throws -> (v4: IPPrefix?, v6: IPPrefix?) {
    let (words, _) = try request(["choose"])
    guard words.count == 2 else { throw SystemError("choose", name, errno: EPROTO) }
    return (IPPrefix(words[0]), IPPrefix(words[1]))
  }

  func configure(_ wanted: HostTunnel.Shape) throws -> HostLink.Opened {
    let (words, files) = try request(["configure"] + wanted.words)
    guard files.count == Int(wanted.queues) + 2, let backend = PacketFilter(rawValue: words.joined(separator: " "))
    else {
      throw SystemError("configure", name, errno: EPROTO)
    }
    return .init(
      queues: Array(files.dropLast(2)), names: (files[files.count - 2], files[files.count - 1]), backend: backend)
  }
}
