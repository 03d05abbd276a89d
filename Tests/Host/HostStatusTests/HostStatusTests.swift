import CLinux
import EventLoop
import LinuxSystem
import Testing

@testable import HostStatus

private func example() -> HostStatus {
  var status = HostStatus(
    pid: 42, command: "run", name: "web", version: "1", transport: "unix:/tmp/x",
    published: [.init(listen: "0.0.0.0:8080", port: 80)])
  status.seconds = 3725
  status.logConnected = true
  status.traffic.outgoing = .init(open: 1, total: 5, failed: 2, denied: 1)
  status.traffic.incoming = .init(open: 3, total: 4, failed: 0)
  status.traffic.bytesFromEnclave = 100
  status.traffic.bytesToEnclave = 2000
  status.names.queries = 7
  return status
}

@Suite struct HostStatusTests {
  /// The keys that scripts read.
  @Test func json() throws {
    var status = example()
    status.raw = .init(
      link: "tombolo0", addresses: ["10.118.0.2/30"], mtu: 1500, firewall: "nf_tables",
      queues: [
        .init(
          queue: 0, connected: true, sharedMemory: true, fromEnclave: .init(packets: 2, bytes: 301),
          toEnclave: .init(packets: 0, bytes: 0),
          dropped: ["bad source": 3], unsent: 1, reconnects: 4)
      ], silent: [1])
    let bytes = try status.encoded()
    #expect(
      String(decoding: bytes, as: UTF8.self)
        == #"{"command":"run","log_connected":true,"name":"web","names":{"failed":0,"queries":7,"underway":0},"pid":42,"published":[{"listen":"0.0.0.0:8080","port":80,"transport":"tcp"}],"raw":{"addresses":["10.118.0.2/30"],"firewall":"nf_tables","link":"tombolo0","mtu":1500,"queues":[{"connected":true,"dropped":{"bad source":3},"from_enclave":{"bytes":301,"mean_size":150,"packets":2},"queue":0,"reconnects":4,"shared_memory":true,"to_enclave":{"bytes":0,"mean_size":0,"packets":0},"unsent":1}],"silent":[1]},"refused":0,"seconds":3725,"sessions":[],"traffic":{"bytes_from_enclave":100,"bytes_to_enclave":2000,"incoming":{"failed":0,"open":3,"total":4},"outgoing":{"denied":1,"failed":2,"open":1,"total":5}},"transport":"unix:/tmp/x","version":"1"}"#
    )
    #expect(try HostStatus(json: bytes) == status)
    #expect(throws: (any Error).self) { try HostStatus(json: Array("{\"pid\":1}".utf8)) }
  }

  @Test func words() {
    var status = example()
    #expect(
      status.description == """
        web (pid 42): tombolo run, TCP mode, up 1h 2m
          transport  unix:/tmp/x, the enclave is there
          published  0.0.0.0:8080 → 80
          out        1 open, 5 in all, 2 failed, 1 denied
          in         3 open, 4 in all, 0 failed
          bytes      100 from the enclave, 2000 to it
          DNS        7 queries, 0 failed, 0 under way
        """)
    status.raw = .init(
      link: "tombolo0", addresses: ["10.118.0.2/30"], mtu: 1500, firewall: "nf_tables",
      queues: [
        .init(
          queue: 0, connected: false, sharedMemory: false, fromEnclave: .init(packets: 2, bytes: 301),
          toEnclave: .init(packets: 1, bytes: 40), dropped: ["truncated": 1, "bad source": 3], unsent: 1, reconnects: 4)
      ], silent: [1])
    #expect(
      status.description == """
        web (pid 42): tombolo run, raw mode, up 1h 2m
          transport  unix:/tmp/x, the enclave is there
          published  0.0.0.0:8080 → 80
          link       tombolo0: 10.118.0.2/30, MTU 1500, rules in nf_tables
          queue 0    from the enclave 2 packets 301 bytes (mean 150), to it 1 packets 40 bytes (mean 40), dropped 4 (bad source 3, truncated 1), unsent 1, reconnects 4, no stream
          queue 1    does not answer
          DNS        7 queries, 0 failed, 0 under way
        """)
    status.raw?.queues[0].connected = true
    status.raw?.queues[0].sharedMemory = true
    #expect(status.description.contains(", unsent 1, reconnects 4, shared memory\n"))
  }

  /// Each forward with what it has carried; without one there is no key.
  @Test func forwards() throws {
    var status = example()
    var out = HostStatus.Forward(way: "out", vsockPort: 8000, address: "kms.test:443")
    (out.open, out.total, out.failed, out.denied, out.bytesFromEnclave, out.bytesToEnclave) = (1, 9, 2, 3, 40, 50)
    status.forwards = [out, .init(way: "in", vsockPort: 5000, address: "127.0.0.1:5432")]
    #expect(
      status.description.contains(
        """
          published  0.0.0.0:8080 → 80
          forward    8000 → kms.test:443: 1 open, 9 in all, 2 failed, 3 denied
          forward    127.0.0.1:5432 → 5000: 0 open, 0 in all, 0 failed

        """))
    #expect(
      String(decoding: try status.encoded(), as: UTF8.self).contains(
        #""forwards":[{"address":"kms.test:443","bytes_from_enclave":40,"bytes_to_enclave":50,"denied":3,"failed":2,"open":1,"total":9,"vsock_port":8000,"way":"out"},"#
      ))
    #expect(try HostStatus(json: status.encoded()) == status)
    status.forwards = nil
    #expect(try HostStatus(json: status.encoded()) == status)
  }

  /// The most frequent first, and not more than a screen has room for.
  @Test func usedAndDenied() throws {
    var status = example()
    status.used = .init((1...12).map { .init(destination: "n\($0).test:443", count: UInt64($0)) }, others: 5)
    status.denied = .init(
      [.init(destination: "dns other.test", count: 3, side: "enclave", reason: "no rule of egress.allow names it")],
      others: 0)
    let lines = status.description.split(separator: "\n").filter { $0.hasPrefix("  used") || $0.hasPrefix("  denied") }
    #expect(
      lines.count == 12 && lines[0] == "  used       12 × n12.test:443" && lines[9] == "  used       3 × n3.test:443")
    #expect(lines[10] == "  used       8 × others")
    #expect(lines[11] == "  denied     3 × dns other.test (enclave: no rule of egress.allow names it)")
    #expect(try HostStatus(json: status.encoded()) == status)
    #expect(
      String(decoding: try status.encoded(), as: UTF8.self).contains(
        #""denied":{"list":[{"count":3,"destination":"dns other.test","reason":"no rule of egress.allow names it","side":"enclave"}],"others":0}"#
      ))
  }

  /// Root's terminal must not obey what another user's process has put into a name.
  @Test func namesDoNotSteerTerminals() {
    var status = example()
    status.name = "a\u{1b}[2Jb\u{9b}c\nd"
    #expect(status.description.hasPrefix("a[2Jbcd (pid 42)"))
  }

  @Test func namesOfAnEnclave() {
    var status = example()
    #expect(status.answers(to: "42") && status.answers(to: "web"))
    #expect(!status.answers(to: "4") && !status.answers(to: "tombolo0"))
    status.raw = .init(link: "tombolo0", addresses: [], mtu: nil, firewall: nil, queues: [], silent: [])
    #expect(status.answers(to: "tombolo0"))
  }
}
