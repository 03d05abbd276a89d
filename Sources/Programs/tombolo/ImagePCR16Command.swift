import ArgumentParser
import Inet
import LinuxSystem
import Roles
import SecurityModule
import Wire

/// `tombolo image pcr16`: what an enclave measures of what its host gives at run time.
struct ImagePCR16Command: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pcr16",
    abstract: "Print the register in which an enclave measures what its host gives at run time.",
    discussion: """
      Without options: an enclave that is given nothing, which is every one without attestation.runtime. The number is \
      16 unless attestation.runtime_pcr says another.
      """)

  @Option(
    name: .customLong("address"), parsing: .singleValue,
    help: ArgumentHelp("An address that the host gives, with its link's prefix; repeatable.", valueName: "addr/length"))
  var addresses: [String] = []
  @Option(help: ArgumentHelp("The link's MTU in bytes, with --address; by default 1500.", valueName: "bytes"))
  var mtu: Int?
  @OptionGroup
  var runtime: RuntimeOptions
  @Flag(help: "Print the text that is measured, not the register.")
  var text = false

  func run() throws {
    var prefixes: [IPPrefix] = []
    for address in addresses {
      // IPPrefix would clear nothing: the bits behind the prefix are the enclave's own.
      guard address.utf8.contains(UInt8(ascii: "/")), let prefix = IPPrefix(address) else {
        throw fail("--address: found \"\(address)\", expected an address and its prefix's length such as 10.118.0.2/30")
      }
      prefixes.append(prefix)
    }
    let families = prefixes.map { if case .v4 = $0.address { 4 } else { 6 } }
    guard Set(families).count == families.count else { throw fail("--address: found two of one family, expected one") }
    guard mtu == nil || !prefixes.isEmpty else { throw fail("--mtu: found without --address, which it goes with") }
    let mtu = mtu ?? 1500
    guard (1280...65535).contains(mtu) else { throw fail("--mtu: found \(mtu), expected 1280 to 65535") }
    var lines = zip(families, prefixes).sorted { $0.0 < $1.0 }.map { "address \($0.1)" }
    if !lines.isEmpty { lines.append("mtu \(mtu)") }
    do { lines += try runtime.parameters().lines } catch { throw fail("\(error)") }
    let measured = RuntimeText.text(lines)
    if text { return try writeAll(1, measured, "standard output") }
    let digits = measuredRegister(measured).map { byte in
      String(byte >> 4, radix: 16) + String(byte & 15, radix: 16)
    }.joined()
    try writeAll(1, (digits + "\n").utf8, "standard output")
  }
}
