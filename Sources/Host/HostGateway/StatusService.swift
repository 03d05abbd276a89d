import EventLoop
import HostNetwork
import HostStatus
import Inet
import LinuxSystem
import Netlink
import PacketRelaying
import Packets
import Relaying
import Wire

/// Lets `tombolo status` ask a host side: its socket, and what it answers.
final class StatusService {
  private var listener: StatusListener?

  /// A host side without a place for its socket does its work all the same; the sentence says why it is not listed.
  /// - Parameters:
  ///   - command: of `tombolo`.
  ///   - transport: how the enclave is reached, in words.
  ///   - complete: called with what is known from the start; adds what is so now, and hands it on.
  init(
    loop: EventLoop, command: String, name: String, transport: String, published: [PublishedPort],
    report: @escaping (String) -> Void, complete: @escaping (HostStatus, @escaping (HostStatus) -> Void) -> Void
  ) {
    let born = monotonicNanoseconds()
    let base = HostStatus(
      pid: processID(), command: command, name: name, version: tomboloVersion, transport: transport,
      published: published.map {
        .init(listen: $0.listen.description, port: $0.enclavePort, transport: $0.transport.rawValue)
      })
    do throws(SystemError) {
      listener = try StatusListener(loop: loop, report: report) { reply in
        var now = base
        now.seconds = (monotonicNanoseconds() &- born) / 1_000_000_000
        complete(now) { reply((try? $0.encoded()) ?? []) }
      }
    } catch {
      report("`tombolo status` will not list this enclave: \(error)")
    }
  }

  /// As `StatusListener.handOver`.
  func handOver() -> () -> Void { listener?.handOver() ?? {} }

  /// Takes the socket away.
  func close() {
    listener?.close()
    listener = nil
  }
}

extension HostStatus.Raw {
  init(_ rawGateway: any RawGateway, _ counts: [QueueCount]) {
    let shape = rawGateway.currentShape
    let answered = Set(counts.map(\.queue))
    self.init(
      link: rawGateway.link, addresses: [shape?.address4, shape?.address6].compactMap { $0?.description },
      mtu: shape?.mtu,
      firewall: rawGateway.backend?.description, queues: counts.map { HostStatus.Queue($0) },
      silent: (0..<Int(shape?.queues ?? 0)).filter { !answered.contains(UInt32($0)) })
  }
}

extension HostStatus.Queue {
  /// What the host reads from its TUN device goes to the enclave.
  init(_ count: QueueCount) {
    let counters = count.counters
    var dropped: [String: UInt64] = [:]
    for reason in PacketDefect.allCases where counters.drops(reason) > 0 {
      dropped["\(reason)"] = counters.drops(reason)
    }
    self.init(
      queue: Int(count.queue), connected: count.connected, sharedMemory: count.usesMemory,
      fromEnclave: .init(packets: counters.packetsIn, bytes: counters.bytesIn),
      toEnclave: .init(packets: counters.packetsOut, bytes: counters.bytesOut), dropped: dropped,
      unsent: counters.unsent, reconnects: counters.reconnects)
  }
}
