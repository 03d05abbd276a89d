import Inet

@testable import QUIC

/// Datagrams of QUIC's clients, raw and sealed with the keys that a client has: no name passes but the one that is allowed, and
/// nothing that was held of a connection whose name is not.
let quicDatagrams = Harness("quic", limit: 4096) { bytes in
  var choices = Choices(bytes)
  var bounds = QUICGate.Bounds()
  bounds.connections = 4
  bounds.heldCount = 2
  bounds.heldBytes = 8192
  bounds.destinations = 2
  var gate = QUICGate(bounds)
  var clients = (0..<3).map { InitialClient([UInt8($0), 1, 2, 3, 4, 5, 6, 7]) }
  var now: UInt32 = 1000
  while !choices.isEmpty {
    now += UInt32(choices.below(40))
    let datagram = made(&choices, &clients)
    let server = IPEndpoint(.v4(IPv4Address(rawValue: UInt32(1 + choices.below(3)))), 443)
    let size = choices.flag() ? max(1, datagram.count / 2) : nil
    let mark = UInt8(clamping: choices.below(256))
    var denied = false
    let verdict = datagram.withUnsafeBytes { bytes in
      [mark].withUnsafeBytes {
        gate.judge(bytes, each: size, frame: $0, to: server, now: now) { name in
          denied = name?.labels.first != 2
          return denied ? "not allowed" : nil
        }
      }
    }
    if denied, case .deny = verdict {} else { check(!denied, "a denied name passes: \(verdict)") }
    if case .pass(let held) = verdict { check(held.count <= 2, "more was held than may be") }
    check(gate.connections.count <= 4, "\(gate.connections.count) connections")
    for connection in gate.connections where connection.refusal != nil {
      check(connection.held.isEmpty, "something of a refused connection is held")
    }
  }
}

private func made(_ choices: inout Choices, _ clients: inout [InitialClient]) -> [UInt8] {
  var datagram: [UInt8] = []
  for _ in 0...choices.below(3) {
    let index = choices.below(clients.count)
    clients[index].version = choices.flag() ? .v1 : .v2
    if choices.below(8) == 7 { clients[index].destination = [UInt8(choices.below(4))] }
    switch choices.below(5) {
    case 0: datagram += choices.bytes(choices.below(200))
    case 1: datagram += clients[index].header(kind: UInt8(choices.below(4)), length: 3) + [1, 2, 3]
    case 2:
      // Part of a hello, with a name of one or two bytes.
      let hello = hello(Array(repeating: 0x61, count: 1 + choices.below(2)))
      let start = choices.below(hello.count)
      let part = hello[start..<min(hello.count, start + choices.below(100))]
      datagram += clients[index].packet(InitialClient.crypto(part, at: start) + [0, 0, 0])
    case 3:
      datagram += clients[index].packet(
        InitialClient.crypto(hello(Array(repeating: 0x61, count: 1 + choices.below(2)))))
    default: datagram += clients[index].packet(choices.bytes(4 + choices.below(60)))
    }
  }
  return datagram
}

private func hello(_ name: [UInt8]) -> [UInt8] {
  func field(_ bytes: [UInt8]) -> [UInt8] { [0, UInt8(bytes.count)] + bytes }
  let extensions = [0, 0] + field(field([0] + field(name)))
  let body = [3, 3] + Array(repeating: 1, count: 32) + [0, 0, 2, 0x13, 1, 1, 0] + field(extensions)
  return [1, 0] + field(body)
}
