import Inet

/// A rule as an entry of a legacy table. Matches and targets are only those that stock enclave kernels have; structures of
/// linux/netfilter/xt_*.h, linux/netfilter_ipv4/ipt_REJECT.h, linux/netfilter/nf_nat.h.
enum XTablesRules {
  static func entry(_ rule: Ruleset.Rule, _ family: Ruleset.Family, id: Int) -> XTablesEntry {
    let layout = XTablesLayout.of(family)
    var head = [UInt8].zeros(layout.entrySize)
    var inverted: UInt8 = 0
    var transport: Ruleset.Transport?
    var source: ClosedRange<UInt16>?
    var destination: ClosedRange<UInt16>?
    var matches: [UInt8] = []
    for match in rule.matches {
      switch match {
      case .transport(let number):
        transport = number
        head.put(UInt16(number.number), at: layout.transport)
        // IP6T_F_PROTO: without it IPv6 does not look at the protocol.
        if family == .ip6 { head.put(UInt8(1), at: layout.flags) }
      case .source(let prefix, let negated):
        put(prefix, at: 0, &head, layout)
        if negated { inverted |= 0x08 }  // IPT_INV_SRCIP
      case .destination(let prefix, let negated):
        put(prefix, at: layout.addressSize, &head, layout)
        if negated { inverted |= 0x10 }  // IPT_INV_DSTIP
      case .sourcePorts(let range): source = range
      case .destinationPorts(let range): destination = range
      case .input(let name, let negated):
        put(name, layout.inputName, layout.inputMask, &head)
        if negated { inverted |= 0x01 }  // IPT_INV_VIA_IN
      case .output(let name, let negated):
        put(name, layout.outputName, layout.outputMask, &head)
        if negated { inverted |= 0x02 }  // IPT_INV_VIA_OUT
      case .state(let state): matches += connectionState(state)
      case .destinationIsLocal: matches += localDestination()
      // struct xt_socket_mtinfo3: `flags`, none.
      case .hasSocket: matches += extensionBytes("socket", revision: 3, size: 1)
      case .icmpType(let number): matches += icmp(number, family)
      }
    }
    head.put(inverted, at: layout.inverted)
    if let transport, source != nil || destination != nil { matches = ports(transport, source, destination) + matches }
    let (target, bytes) = verdict(rule.verdict, family)
    return XTablesEntry(id: id, head: head, matches: matches, targetBytes: bytes, target, layout)
  }

  /// An extension's header and room for its data.
  static func extensionBytes(_ name: String, revision: UInt8, size: Int) -> [UInt8] {
    let total = XTablesLayout.align(XTablesLayout.extensionSize + size)
    var bytes = [UInt8].zeros(total)
    bytes.put(UInt16(clamping: total), at: 0)
    bytes.put(name.utf8.prefix(XTablesLayout.extensionName.count - 1), at: XTablesLayout.extensionName.lowerBound)
    bytes.put(revision, at: XTablesLayout.extensionRevision)
    return bytes
  }

  // MARK: Matches

  private static func put(_ prefix: IPPrefix, at offset: Int, _ head: inout [UInt8], _ layout: XTablesLayout) {
    let mask = prefix.mask
    head.put(zip(prefix.address.bytes, mask).map { $0 & $1 }, at: offset)
    head.put(mask, at: layout.sourceMask + offset)
  }

  private static func put(_ name: String, _ place: Int, _ mask: Int, _ head: inout [UInt8]) {
    let isPrefix = name.hasSuffix("*")
    let bytes = isPrefix ? Array(name.utf8.dropLast()) : Array(name.utf8.prefix(15))
    head.put(bytes, at: place)
    // The NUL too: a shorter mask would match names that only begin with it.
    head.put(Array(repeating: UInt8(0xff), count: bytes.count + (isPrefix ? 0 : 1)), at: mask)
  }

  /// struct xt_tcp (12 bytes) or xt_udp (10): source and destination port, first and last, in the machine's order.
  private static func ports(
    _ transport: Ruleset.Transport, _ source: ClosedRange<UInt16>?, _ destination: ClosedRange<UInt16>?
  ) -> [UInt8] {
    var bytes = extensionBytes(transport.nftName, revision: 0, size: transport == .tcp ? 12 : 10)
    for (index, range) in [source, destination].enumerated() {
      bytes.put(range?.lowerBound ?? 0, at: XTablesLayout.extensionSize + 4 * index)
      bytes.put(range?.upperBound ?? UInt16.max, at: XTablesLayout.extensionSize + 4 * index + 2)
    }
    return bytes
  }

  /// struct xt_conntrack_mtinfo3: `match_flags` XT_CONNTRACK_STATE at 146, `state_mask` at 150. Its bits are those of
  /// nf_tables but for XT_CONNTRACK_STATE_UNTRACKED, which is 1 << 8.
  private static func connectionState(_ state: Ruleset.ConnectionState) -> [UInt8] {
    var bytes = extensionBytes("conntrack", revision: 3, size: 164)
    bytes.put(UInt16(1), at: XTablesLayout.extensionSize + 146)
    var mask = UInt16(truncatingIfNeeded: state.subtracting(.untracked).rawValue)
    if state.contains(.untracked) { mask |= 1 << 8 }
    bytes.put(mask, at: XTablesLayout.extensionSize + 150)
    return bytes
  }

  /// struct xt_addrtype_info_v1: `source`, `dest` (XT_ADDRTYPE_LOCAL is 1 << RTN_LOCAL), `flags`.
  private static func localDestination() -> [UInt8] {
    var bytes = extensionBytes("addrtype", revision: 1, size: 8)
    bytes.put(UInt16(1 << 2), at: XTablesLayout.extensionSize + 2)
    return bytes
  }

  /// struct ipt_icmp, struct ip6t_icmp: type, codes from and to, flags.
  private static func icmp(_ type: UInt8, _ family: Ruleset.Family) -> [UInt8] {
    var bytes = extensionBytes(family == .ip ? "icmp" : "icmp6", revision: 0, size: 4)
    bytes.put([type, 0, 0xff, 0], at: XTablesLayout.extensionSize)
    return bytes
  }

  // MARK: Targets

  private static func verdict(
    _ verdict: Ruleset.Verdict, _ family: Ruleset.Family
  ) -> (XTablesEntry.Target, [UInt8]) {
    func standard(_ number: Int32) -> (XTablesEntry.Target, [UInt8]) {
      var bytes = extensionBytes("", revision: 0, size: 4)
      bytes.put(number, at: XTablesLayout.extensionSize)
      return (.verdict(number), bytes)
    }
    switch verdict {
    case .accept: return standard(XTablesLayout.accept)
    case .drop: return standard(XTablesLayout.drop)
    case .return: return standard(XTablesLayout.return)
    case .redirect(let port): return (.other, nat("REDIRECT", family, address: nil, port: port))
    case .dnat(let address, let port): return (.other, nat("DNAT", family, address: address, port: port))
    case .masquerade: return (.other, nat("MASQUERADE", family, address: nil, port: nil))
    case .reject(let rejection):
      // enum ipt_reject_with, enum ip6t_reject_with
      var bytes = extensionBytes("REJECT", revision: 0, size: 4)
      let number: UInt32 =
        switch (rejection, family) {
        case (.tcpReset, .ip): 7
        case (.tcpReset, .ip6): 6
        case (.adminProhibited, .ip): 8
        case (.adminProhibited, .ip6): 1
        }
      bytes.put(number, at: XTablesLayout.extensionSize)
      return (.other, bytes)
    case .queue(let range, let flags):
      // struct xt_NFQ_info_v3
      var bytes = extensionBytes("NFQUEUE", revision: 3, size: 6)
      bytes.put(range.lowerBound, at: XTablesLayout.extensionSize)
      bytes.put(UInt16(clamping: range.count), at: XTablesLayout.extensionSize + 2)
      bytes.put(flags.rawValue, at: XTablesLayout.extensionSize + 4)
      return (.other, bytes)
    }
  }

  /// IPv4: revision 0 with struct nf_nat_ipv4_multi_range_compat (20 bytes). IPv6: struct nf_nat_range (40 bytes), which
  /// is revision 0 of REDIRECT and MASQUERADE and revision 1 of DNAT.
  private static func nat(_ name: String, _ family: Ruleset.Family, address: IPAddress?, port: UInt16?) -> [UInt8] {
    // NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED
    let flags: UInt32 = (address == nil ? 0 : 1) | (port == nil ? 0 : 2)
    let addressBytes: [UInt8] = address?.bytes ?? .zeros(XTablesLayout.of(family).addressSize)
    let portBytes: [UInt8] = port.map { [UInt8($0 >> 8), UInt8($0 & 0xff)] } ?? [0, 0]
    let data = XTablesLayout.extensionSize
    switch family {
    case .ip:
      var bytes = extensionBytes(name, revision: 0, size: 20)
      bytes.put(UInt32(1), at: data)
      bytes.put(flags, at: data + 4)
      bytes.put(addressBytes + addressBytes + portBytes + portBytes, at: data + 8)
      return bytes
    case .ip6:
      var bytes = extensionBytes(name, revision: name == "DNAT" ? 1 : 0, size: 40)
      bytes.put(flags, at: data)
      bytes.put(addressBytes + addressBytes + portBytes + portBytes, at: data + 4)
      return bytes
    }
  }
}

extension IPPrefix {
  /// As many bytes as the address has.
  var mask: [UInt8] {
    address.bytes.indices.map { index in
      let bits = min(max(Int(length) - index * 8, 0), 8)
      return UInt8(truncatingIfNeeded: 0xff00 >> bits)
    }
  }
}
