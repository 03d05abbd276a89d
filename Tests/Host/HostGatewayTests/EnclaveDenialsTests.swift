import HostStatus
import Testing
import Wire

@testable import HostGateway

/// What the host side counts of an enclave's log, whatever the enclave writes there.
struct EnclaveDenialsTests {
  private func record(_ text: String, _ source: LogSource = .proxy) -> LogRecord {
    LogRecord(sequence: 1, time: 0, source: source, body: .output(Array(text.utf8)))
  }

  private func status(_ counters: HostCounters) -> HostStatus {
    var status = HostStatus(pid: 1, command: "run", name: "x", version: "1", transport: "unix:/x", published: [])
    counters.write(to: &status)
    return status
  }

  /// Lines may be cut anywhere, and those of the program are its own.
  @Test func linesAreCountedHoweverTheyCome() {
    let counters = HostCounters()
    let denials = EnclaveDenials(counters)
    denials.take(record("egress to 10.0.0.1:22 den"), label: "16/")
    denials.take(record("egress to 10.0.0.2:22 denied: x\n"), label: "17/")
    denials.take(
      record("ied: egress.deny has \"private:22\" (and 4 more were denied since the last such line)\n"), label: "16/")
    denials.take(record("egress to 10.0.0.3:22 denied: x\n", .programError), label: "16/")
    denials.take(record("egress to 10.0.0.4:22 allowed: x\n"), label: "16/")
    let found = status(counters).denied
    #expect(found?.list.map(\.destination) == ["10.0.0.1:22", "10.0.0.2:22"] && found?.others == 4)
    #expect(found?.list.first?.reason == "egress.deny has \"private:22\"" && found?.list.first?.side == "enclave")
  }

  /// Their number and their length have a bound, so that `tombolo status` gets its answer.
  @Test func linesOfAHostileEnclave() throws {
    let counters = HostCounters()
    let denials = EnclaveDenials(counters)
    for index in 0..<2000 {
      denials.take(
        record("dns: n\(index).test A denied: " + String(repeating: "\u{1}", count: 980) + "\n"), label: "\(index)/")
      denials.take(record("dns: n\(index).test A denied: " + String(repeating: "y", count: 5000) + "\n"), label: "")
    }
    denials.take(
      record("egress to 10.0.0.1:1 denied: x (and \(UInt64.max) more were denied since the last such line)\n"),
      label: "")
    let found = status(counters)
    #expect(found.denied?.list.count == 128)
    // As much as `StatusQuery` reads.
    #expect(try found.encoded().count < 1 << 20)
    #expect(found.description.unicodeScalars.allSatisfy { $0.value >= 0x20 || $0 == "\n" })
  }
}
