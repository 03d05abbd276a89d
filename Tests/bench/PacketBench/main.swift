import CLinux
import EventLoop
import Inet
import LinuxSystem
import PacketRelaying
import Packets
import Relaying
import Wire

// One side of a raw mode link, for Tests/bench and by hand:
//   tombolo-packet-bench NAME SOCKET listen|connect OFFLOAD(0|1) [OWN-ADDRESS [QUEUES]]
// The program that starts it configures the interface. `listen` is the host's side, whose OWN-ADDRESS is the enclave's.

func say(_ sentence: String) { _ = try? writeAll(2, Array("\(sentence)\n".utf8)) }

func number(_ name: String, _ fallback: Int) -> Int { environmentVariable(name).flatMap { Int($0) } ?? fallback }

let words = processArguments()
guard words.count >= 4 else {
  say("usage: tombolo-packet-bench NAME SOCKET listen|connect OFFLOAD(0|1) [ENCLAVE-ADDRESS [QUEUES]]")
  exit(2)
}
let name = words[0]
let path = words[1]
let isHost = words[2] == "listen"
let features: TunOffload = words[3] == "1" ? .all : []
let address = IPv4Address(words.count > 4 ? words[4] : "10.9.0.2") ?? .any
let queues = UInt8(words.count > 5 ? words[5] : "1") ?? 1
// As over vsock, where no memory can be passed.
let usesMemory = environmentVariable("MEMORY") != "0"

var settings = PacketQueue.Settings()
settings.batch = number("BATCH", settings.batch)
settings.readSize = number("READ", settings.readSize)
settings.sendBuffer = Int32(number("SNDBUF", Int(settings.sendBuffer)))

do {
  let tuns = try (0..<queues).map { _ throws(SystemError) in
    let queue = try TunQueue(name)
    _ = try setTunOffload(queue.file.rawValue, features)
    return queue.file
  }
  let loop = try EventLoop()
  ignoreBrokenPipes()
  if isHost {
    removeFile(path)
    var workers: [PacketWorker] = []
    for tun in tuns {
      workers.append(
        try PacketWorker { [settings] (loop) throws(SystemError) in
          let queue = try PacketQueue(
            loop: loop, tun: tun, packetGuard: PacketGuard(.host, address4: address, address6: nil),
            settings: settings
          ) { say("lost: \($0)") }
          return .init { stream, awaitingMemory in
            do throws(SystemError) {
              try queue.attach(stream, awaitingMemory ? .awaitingMemory : .frames())
            } catch {
              say("\(error)")
            }
          } report: {
            say("\(queue.counters)")
          }
        } failed: {
          say("\($0)")
        })
    }
    var listener: Listener?
    listener = try Listener(loop: loop, socket: FileReference(try listenStream(.unix(path))), report: say) {
      stream, _ in
      _ = try? StreamServing(loop: loop, stream: stream) { _, outcome in
        guard case .hello(let stream, let hello, _) = outcome,
          let request = try? PacketsRequest(parameters: hello.parameters)
        else { return say("no hello") }
        let takesMemory = request.offersMemory && usesMemory
        let reply = PacketsAnswer(features: features.rawValue, takesMemory: takesMemory)
        answer(stream, Answer(.ok, parameters: reply.parameters))
        try? workers[Int(request.queue)].give(stream, awaitingMemory: takesMemory)
      }
    }
    try withExtendedLifetime(listener) { try loop.run() }
  } else {
    var connectors: [PacketConnector] = []
    for (index, tun) in tuns.enumerated() {
      let request = PacketsRequest(
        queue: UInt8(index), queues: queues, mtu: 1500, features: features.rawValue,
        address4: IPPrefix(.v4(address), 24), address6: nil)
      let connector = PacketConnector(
        loop: loop, target: StreamTarget(.unix(path)), token: .none, request: request, tun: tun, log: say)
      try connector.start { lost throws(SystemError) in
        try PacketQueue(
          loop: loop, tun: tun, packetGuard: PacketGuard(.enclave, address4: address, address6: nil),
          settings: settings, lost: lost)
      }
      connectors.append(connector)
    }
    try withExtendedLifetime(connectors) { try loop.run() }
  }
} catch {
  say("tombolo-packet-bench: \(error)")
  exit(1)
}
