import BootPlanning
import Capabilities
import LinuxSystem
import Testing

/// Rights that PID 1 says it has given up, and has not, are the program's.
@Suite(.serialized) struct CapabilitiesTests {
  /// The plan is made of numbers, without libcap: they are the ones that libcap calls so.
  @Test func thePlansNumbersAreTheKernels() {
    #expect(
      CapabilitySet(rawValue: PlannedCapabilities.harmful).names == [
        "cap_sys_module", "cap_sys_rawio", "cap_sys_pacct", "cap_sys_boot", "cap_sys_time", "cap_audit_control",
        "cap_mac_override", "cap_mac_admin", "cap_syslog", "cap_wake_alarm", "cap_audit_read",
      ])
    #expect(
      CapabilitySet(rawValue: PlannedCapabilities.supervising).names == [
        "cap_chown", "cap_dac_override", "cap_kill", "cap_setgid", "cap_setuid", "cap_setpcap", "cap_sys_admin",
        "cap_sys_boot", "cap_sys_resource", "cap_sys_time",
      ])
    #expect(CapabilitySet.verdicts.names == ["cap_net_admin"])
  }

  /// Capabilities are a thread's own (capabilities(7)), so that a thread of the test's can lose them.
  private func onAThread(_ body: @escaping @Sendable () throws -> Void) throws {
    let (reading, writing) = try makePipe()
    try startThread {
      do { try body() } catch { Issue.record("\(error)") }
      _ = try? writeAll(writing.rawValue, [1])
    }
    var byte: [UInt8] = [0]
    let count = byte.withUnsafeMutableBytes { readBytes(reading.rawValue, $0) }
    #expect(count == .bytes(1))
  }

  private static func set(_ name: String) throws -> UInt64 {
    let text = try readText("/proc/thread-self/status")
    let line = text.split(separator: "\n").first { $0.hasPrefix(name + ":") } ?? ""
    return UInt64(line.dropFirst(name.count + 1).filter { $0 != "\t" }, radix: 16) ?? .max
  }

  /// Nothing that is started afterwards can have them, also not root.
  @Test func theBoundingSetLosesWhatIsNamed() throws {
    try onAThread {
      let before = try Self.set("CapBnd")
      let harmful = CapabilitySet(rawValue: PlannedCapabilities.harmful)
      try Capabilities.dropBounding(harmful)
      #expect(try Self.set("CapBnd") == before & ~PlannedCapabilities.harmful)
      // What is gone already is no error.
      try Capabilities.dropBounding(harmful)
      #expect(try Self.set("CapBnd") == before & ~PlannedCapabilities.harmful)
    }
  }

  @Test func nothingIsKeptButWhatIsNamed() throws {
    try onAThread {
      let before = try Self.set("CapPrm")
      let own: UInt64 = PlannedCapabilities.supervising
      let program: UInt64 = 1 << 13 | 1 << 0
      try Capabilities.keepOnly(CapabilitySet(rawValue: own), permitting: CapabilitySet(rawValue: program))
      #expect(try Self.set("CapEff") == before & own)
      #expect(try Self.set("CapPrm") == before & (own | program))
      #expect(try Self.set("CapInh") == 0)
      // Nothing comes back.
      try Capabilities.keepOnly(CapabilitySet(rawValue: own | 1 << 12))
      #expect(try Self.set("CapPrm") == before & own)
    }
  }
}
