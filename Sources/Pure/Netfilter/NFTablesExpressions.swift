import Inet

/// A rule as the small program that the kernel runs on each packet: expressions that load into a register, compare it,
/// act on it. The order and the registers are those of nft(8), so that it can list what we made.
enum NFTablesExpressions {
  typealias Attribute = NetlinkAttribute

  static func of(_ rule: Ruleset.Rule, _ family: Ruleset.Family) -> [Attribute] {
    rule.matches.flatMap { match($0, family) } + (rule.counter ? [expression("counter", [])] : [])
      + verdict(rule.verdict, family)
  }

  // MARK: Matches

  private static func match(_ match: Ruleset.Match, _ family: Ruleset.Family) -> [Attribute] {
    // Where the addresses stand: RFC 791 section 3.1, RFC 8200 section 3.
    switch match {
    case .transport(let transport):
      return [meta(NFT.MetaKey.transport), compare(.equal, [transport.number])]
    case .source(let prefix, let negated):
      return address(prefix, offset: family == .ip ? 12 : 8, negated)
    case .destination(let prefix, let negated):
      return address(prefix, offset: family == .ip ? 16 : 24, negated)
    case .sourcePorts(let range): return ports(range, offset: 0)
    case .destinationPorts(let range): return ports(range, offset: 2)
    case .input(let name, let negated): return interface(name, NFT.MetaKey.inputName, negated)
    case .output(let name, let negated): return interface(name, NFT.MetaKey.outputName, negated)
    case .state(let state):
      // The kernel keeps the state in the machine's order.
      let mask = withUnsafeBytes(of: state.rawValue) { Array($0) }
      return [
        expression(
          "ct",
          [
            .bigEndian(NFT.Ct.key, NFT.Ct.state),
            .bigEndian(NFT.Ct.destination, NFT.register),
          ]),
        bitwise(mask), compare(.notEqual, [0, 0, 0, 0]),
      ]
    case .icmpType(let number): return [payload(NFT.Payload.transport, 0, 1), compare(.equal, [number])]
    case .hasSocket:
      return [
        expression(
          "socket",
          [
            .bigEndian(NFT.Socket.key, NFT.Socket.transparent), .bigEndian(NFT.Socket.destination, NFT.register),
          ]),
        compare(.lessOrEqual, [1]),
      ]
    case .destinationIsLocal:
      return [
        expression(
          "fib",
          [
            .bigEndian(NFT.FIB.destination, NFT.register), .bigEndian(NFT.FIB.result, NFT.FIB.addressType),
            .bigEndian(NFT.FIB.flags, NFT.FIB.ofDestination),
          ]),
        compare(.equal, withUnsafeBytes(of: NFT.FIB.local) { Array($0) }),
      ]
    }
  }

  private static func address(_ prefix: IPPrefix, offset: UInt32, _ negated: Bool) -> [Attribute] {
    guard prefix.length > 0 else { return [] }
    let bytes = prefix.address.bytes
    let whole = Int(prefix.length / 8)
    let operation = negated ? Comparison.notEqual : .equal
    guard prefix.length % 8 != 0 else {
      return [
        payload(NFT.Payload.network, offset, UInt32(whole)), compare(operation, Array(bytes.prefix(whole))),
      ]
    }
    let mask = prefix.mask
    return [
      payload(NFT.Payload.network, offset, UInt32(bytes.count)), bitwise(mask),
      compare(operation, zip(bytes, mask).map { $0 & $1 }),
    ]
  }

  private static func ports(_ range: ClosedRange<UInt16>, offset: UInt32) -> [Attribute] {
    let load = payload(NFT.Payload.transport, offset, 2)
    if range.lowerBound == range.upperBound { return [load, compare(.equal, bigEndian(range.lowerBound))] }
    return [
      load, compare(.greaterOrEqual, bigEndian(range.lowerBound)), compare(.lessOrEqual, bigEndian(range.upperBound)),
    ]
  }

  private static func interface(_ name: String, _ key: UInt32, _ negated: Bool) -> [Attribute] {
    // All 16 bytes (IFNAMSIZ) are compared: a shorter value would match names that only begin with it.
    let operation = negated ? Comparison.notEqual : .equal
    if name.hasSuffix("*") { return [meta(key), compare(operation, Array(name.utf8.dropLast()))] }
    let bytes = Array(name.utf8.prefix(15))
    return [meta(key), compare(operation, bytes + Array(repeating: 0, count: 16 - bytes.count))]
  }

  // MARK: Verdicts

  private static func verdict(_ verdict: Ruleset.Verdict, _ family: Ruleset.Family) -> [Attribute] {
    switch verdict {
    case .accept: return [immediate(verdict: NFT.Verdict.accept)]
    case .drop: return [immediate(verdict: NFT.Verdict.drop)]
    case .return: return [immediate(verdict: NFT.Verdict.return)]
    case .redirect(let port):
      return [
        immediate(NFT.register, bigEndian(port)),
        expression(
          "redir",
          [
            .bigEndian(NFT.Redirect.portRegister, NFT.register),
            .bigEndian(NFT.Redirect.flags, NFT.NAT.portSpecified),
          ]),
      ]
    case .dnat(let address, let port):
      var loads = [immediate(NFT.register, address.bytes)]
      var nat: [Attribute] = [
        .bigEndian(NFT.NAT.type, NFT.NAT.destination),
        .bigEndian(NFT.NAT.family, UInt32(family.number)),
        .bigEndian(NFT.NAT.addressRegister, NFT.register),
      ]
      if let port {
        loads.append(immediate(NFT.secondRegister, bigEndian(port)))
        nat.append(.bigEndian(NFT.NAT.portRegister, NFT.secondRegister))
        nat.append(.bigEndian(NFT.NAT.flags, NFT.NAT.portSpecified))
      }
      return loads + [expression("nat", nat)]
    case .masquerade: return [expression("masq", [])]
    case .reject(.adminProhibited):
      // ICMP_PKT_FILTERED of linux/icmp.h, ICMPV6_ADM_PROHIBITED of linux/icmpv6.h.
      return [reject(NFT.Reject.unreachable, code: family == .ip ? 13 : 1)]
    case .reject(.tcpReset): return [reject(NFT.Reject.tcpReset, code: 0)]
    case .queue(let range, let flags):
      return [
        expression(
          "queue",
          [
            .bigEndian(NFT.Queue.number, range.lowerBound),
            .bigEndian(NFT.Queue.total, UInt16(clamping: range.count)),
            .bigEndian(NFT.Queue.flags, flags.rawValue),
          ])
      ]
    }
  }

  private static func reject(_ type: UInt32, code: UInt8) -> Attribute {
    expression("reject", [.bigEndian(NFT.Reject.type, type), .bigEndian(NFT.Reject.code, code)])
  }

  // MARK: Expressions

  private enum Comparison: UInt32 { case equal = 0, notEqual, less, lessOrEqual, greater, greaterOrEqual }

  private static func expression(_ name: String, _ data: [Attribute]) -> Attribute {
    .nested(
      NFT.listElement,
      [.string(NFT.Expression.name, name), .nested(NFT.Expression.data, data)])
  }

  private static func meta(_ key: UInt32) -> Attribute {
    expression(
      "meta", [.bigEndian(NFT.Meta.key, key), .bigEndian(NFT.Meta.destination, NFT.register)])
  }

  private static func payload(_ base: UInt32, _ offset: UInt32, _ length: UInt32) -> Attribute {
    expression(
      "payload",
      [
        .bigEndian(NFT.Payload.destination, NFT.register), .bigEndian(NFT.Payload.base, base),
        .bigEndian(NFT.Payload.offset, offset), .bigEndian(NFT.Payload.length, length),
      ])
  }

  private static func compare(_ operation: Comparison, _ value: [UInt8]) -> Attribute {
    expression(
      "cmp",
      [
        .bigEndian(NFT.Compare.source, NFT.register),
        .bigEndian(NFT.Compare.operation, operation.rawValue),
        data(NFT.Compare.data, value),
      ])
  }

  private static func bitwise(_ mask: [UInt8]) -> Attribute {
    expression(
      "bitwise",
      [
        .bigEndian(NFT.Bitwise.source, NFT.register),
        .bigEndian(NFT.Bitwise.destination, NFT.register),
        .bigEndian(NFT.Bitwise.length, UInt32(mask.count)),
        data(NFT.Bitwise.mask, mask),
        data(NFT.Bitwise.xor, Array(repeating: 0, count: mask.count)),
      ])
  }

  private static func immediate(_ register: UInt32, _ value: [UInt8]) -> Attribute {
    expression(
      "immediate",
      [.bigEndian(NFT.Immediate.destination, register), data(NFT.Immediate.data, value)])
  }

  private static func immediate(verdict: UInt32) -> Attribute {
    expression(
      "immediate",
      [
        .bigEndian(NFT.Immediate.destination, NFT.verdictRegister),
        .nested(
          NFT.Immediate.data,
          [.nested(NFT.Data.verdict, [.bigEndian(NFT.Verdict.code, verdict)])]),
      ])
  }

  private static func data(_ type: UInt16, _ value: [UInt8]) -> Attribute {
    .nested(type, [NetlinkAttribute(NFT.Data.value, .bytes(value))])
  }

  private static func bigEndian(_ port: UInt16) -> [UInt8] { [UInt8(port >> 8), UInt8(port & 0xff)] }
}
