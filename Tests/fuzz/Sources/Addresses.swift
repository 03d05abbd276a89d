import Inet
import Policy

/// Addresses, prefixes, endpoints, ports and rules as text.
let addresses = Harness("addresses", limit: 128) { bytes in
  let text = String(decoding: bytes, as: UTF8.self)
  if let address = IPAddress(text) {
    check(IPAddress(address.description) == address, "\(address)")
    check(IPAddress(bytes: address.bytes) == address, "\(address)")
    let destinations = Destinations()
    let denial = destinations.denial(of: address, port: 80)
    if let denial { check(!denial.description.isEmpty, "no reason") }
    // A form that stands for a denied address is denied too.
    if case .v4(let four) = address.unmapped, denial != nil {
      check(destinations.denial(of: .v6(IPv6Address("64:ff9b::\(hex(four))") ?? .any), port: 80) != nil, "\(address)")
    }
  }
  if let rule = try? DestinationRule(text) {
    check((try? DestinationRule(rule.description)) == rule, "\(rule)")
  }
  if let range = PortRanges.range(text) {
    let ports = PortRanges([range])
    check(PortRanges.range(ports.description) == range, "\(range)")
    check(ports.rest.ranges.allSatisfy { !$0.overlaps(range) }, "\(range) is free and taken")
  }
}

private func hex(_ address: IPv4Address) -> String {
  String(address.rawValue >> 16, radix: 16) + ":" + String(address.rawValue & 0xffff, radix: 16)
}
