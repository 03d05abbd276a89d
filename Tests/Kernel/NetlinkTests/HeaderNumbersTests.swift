import CLinux
import Testing

@testable import Netfilter

/// The pure module writes the kernel's numbers by hand; here they meet its headers. A wrong one would be a rule that
/// means something else.
@Suite struct HeaderNumbersTests {
  @Test func nfTables() {
    let numbers: [(Int, Int)] = [
      (Int(NFT.subsystem), Int(NFNL_SUBSYS_NFTABLES)),
      (Int(NFT.batchBegin), Int(NFNL_MSG_BATCH_BEGIN)),
      (Int(NFT.batchEnd), Int(NFNL_MSG_BATCH_END)),
      (Int(NFT.newTable), Int(NFT_MSG_NEWTABLE.rawValue)),
      (Int(NFT.deleteTable), Int(NFT_MSG_DELTABLE.rawValue)),
      (Int(NFT.newChain), Int(NFT_MSG_NEWCHAIN.rawValue)),
      (Int(NFT.newRule), Int(NFT_MSG_NEWRULE.rawValue)),
      (Int(NFT.getGeneration), Int(NFT_MSG_GETGEN.rawValue)),
      (Int(NFT.create), Int(NLM_F_CREATE)),
      (Int(NFT.append), Int(NLM_F_APPEND)),
      (Int(NFT.listElement), Int(NFTA_LIST_ELEM.rawValue)),
      (Int(NFT.verdictRegister), Int(NFT_REG_VERDICT.rawValue)),
      (Int(NFT.register), Int(NFT_REG_1.rawValue)),
      (Int(NFT.secondRegister), Int(NFT_REG_2.rawValue)),
      (Int(NFT.Table.name), Int(NFTA_TABLE_NAME.rawValue)),
      (Int(NFT.Table.flags), Int(NFTA_TABLE_FLAGS.rawValue)),
      (Int(NFT.Chain.table), Int(NFTA_CHAIN_TABLE.rawValue)),
      (Int(NFT.Chain.name), Int(NFTA_CHAIN_NAME.rawValue)),
      (Int(NFT.Chain.hook), Int(NFTA_CHAIN_HOOK.rawValue)),
      (Int(NFT.Chain.policy), Int(NFTA_CHAIN_POLICY.rawValue)),
      (Int(NFT.Chain.type), Int(NFTA_CHAIN_TYPE.rawValue)),
      (Int(NFT.Hook.number), Int(NFTA_HOOK_HOOKNUM.rawValue)),
      (Int(NFT.Hook.priority), Int(NFTA_HOOK_PRIORITY.rawValue)),
      (Int(NFT.Rule.table), Int(NFTA_RULE_TABLE.rawValue)),
      (Int(NFT.Rule.chain), Int(NFTA_RULE_CHAIN.rawValue)),
      (Int(NFT.Rule.expressions), Int(NFTA_RULE_EXPRESSIONS.rawValue)),
      (Int(NFT.Expression.name), Int(NFTA_EXPR_NAME.rawValue)),
      (Int(NFT.Expression.data), Int(NFTA_EXPR_DATA.rawValue)),
      (Int(NFT.Data.value), Int(NFTA_DATA_VALUE.rawValue)),
      (Int(NFT.Data.verdict), Int(NFTA_DATA_VERDICT.rawValue)),
      (Int(NFT.Verdict.code), Int(NFTA_VERDICT_CODE.rawValue)),
      (Int(NFT.Verdict.drop), Int(NF_DROP)),
      (Int(NFT.Verdict.accept), Int(NF_ACCEPT)),
      (Int(Int32(bitPattern: NFT.Verdict.return)), Int(NFT_RETURN.rawValue)),
      (Int(NFT.Meta.destination), Int(NFTA_META_DREG.rawValue)),
      (Int(NFT.Meta.key), Int(NFTA_META_KEY.rawValue)),
      (Int(NFT.MetaKey.inputName), Int(NFT_META_IIFNAME.rawValue)),
      (Int(NFT.MetaKey.outputName), Int(NFT_META_OIFNAME.rawValue)),
      (Int(NFT.MetaKey.transport), Int(NFT_META_L4PROTO.rawValue)),
      (Int(NFT.Ct.destination), Int(NFTA_CT_DREG.rawValue)),
      (Int(NFT.Ct.key), Int(NFTA_CT_KEY.rawValue)),
      (Int(NFT.Ct.state), Int(NFT_CT_STATE.rawValue)),
      (Int(NFT.Payload.destination), Int(NFTA_PAYLOAD_DREG.rawValue)),
      (Int(NFT.Payload.base), Int(NFTA_PAYLOAD_BASE.rawValue)),
      (Int(NFT.Payload.offset), Int(NFTA_PAYLOAD_OFFSET.rawValue)),
      (Int(NFT.Payload.length), Int(NFTA_PAYLOAD_LEN.rawValue)),
      (Int(NFT.Payload.network), Int(NFT_PAYLOAD_NETWORK_HEADER.rawValue)),
      (Int(NFT.Payload.transport), Int(NFT_PAYLOAD_TRANSPORT_HEADER.rawValue)),
      (Int(NFT.Compare.source), Int(NFTA_CMP_SREG.rawValue)),
      (Int(NFT.Compare.operation), Int(NFTA_CMP_OP.rawValue)),
      (Int(NFT.Compare.data), Int(NFTA_CMP_DATA.rawValue)),
      (Int(NFT.Bitwise.source), Int(NFTA_BITWISE_SREG.rawValue)),
      (Int(NFT.Bitwise.destination), Int(NFTA_BITWISE_DREG.rawValue)),
      (Int(NFT.Bitwise.length), Int(NFTA_BITWISE_LEN.rawValue)),
      (Int(NFT.Bitwise.mask), Int(NFTA_BITWISE_MASK.rawValue)),
      (Int(NFT.Bitwise.xor), Int(NFTA_BITWISE_XOR.rawValue)),
      (Int(NFT.Immediate.destination), Int(NFTA_IMMEDIATE_DREG.rawValue)),
      (Int(NFT.Immediate.data), Int(NFTA_IMMEDIATE_DATA.rawValue)),
      (Int(NFT.Redirect.portRegister), Int(NFTA_REDIR_REG_PROTO_MIN.rawValue)),
      (Int(NFT.Redirect.flags), Int(NFTA_REDIR_FLAGS.rawValue)),
      (Int(NFT.NAT.type), Int(NFTA_NAT_TYPE.rawValue)),
      (Int(NFT.NAT.family), Int(NFTA_NAT_FAMILY.rawValue)),
      (Int(NFT.NAT.addressRegister), Int(NFTA_NAT_REG_ADDR_MIN.rawValue)),
      (Int(NFT.NAT.portRegister), Int(NFTA_NAT_REG_PROTO_MIN.rawValue)),
      (Int(NFT.NAT.flags), Int(NFTA_NAT_FLAGS.rawValue)),
      (Int(NFT.NAT.destination), Int(NFT_NAT_DNAT.rawValue)),
      (Int(NFT.NAT.portSpecified), Int(NF_NAT_RANGE_PROTO_SPECIFIED)),
      (Int(NFT.Reject.type), Int(NFTA_REJECT_TYPE.rawValue)),
      (Int(NFT.Reject.code), Int(NFTA_REJECT_ICMP_CODE.rawValue)),
      (Int(NFT.Reject.unreachable), Int(NFT_REJECT_ICMP_UNREACH.rawValue)),
      (Int(NFT.Reject.tcpReset), Int(NFT_REJECT_TCP_RST.rawValue)),
      (Int(NFT.Queue.number), Int(NFTA_QUEUE_NUM.rawValue)),
      (Int(NFT.Queue.total), Int(NFTA_QUEUE_TOTAL.rawValue)),
      (Int(NFT.Queue.flags), Int(NFTA_QUEUE_FLAGS.rawValue)),
    ]
    for (index, (ours, theirs)) in numbers.enumerated() { #expect(ours == theirs, "number \(index)") }
    #expect(Ruleset.Family.ip.number == UInt8(NFPROTO_IPV4))
    #expect(Ruleset.Family.ip6.number == UInt8(NFPROTO_IPV6))
    #expect(
      Ruleset.Hook.allCases.map(\.number) == [
        UInt32(NF_INET_PRE_ROUTING.rawValue), UInt32(NF_INET_LOCAL_IN.rawValue), UInt32(NF_INET_FORWARD.rawValue),
        UInt32(NF_INET_LOCAL_OUT.rawValue), UInt32(NF_INET_POST_ROUTING.rawValue),
      ])
  }

  @Test func xtables() {
    let four = XTablesLayout.ip
    #expect(four.entrySize == MemoryLayout<ipt_entry>.size)
    #expect(four.sourceMask == MemoryLayout<ipt_ip>.offset(of: \.smsk))
    #expect(four.inputName == MemoryLayout<ipt_ip>.offset(of: \.iniface))
    #expect(four.outputName == MemoryLayout<ipt_ip>.offset(of: \.outiface))
    #expect(four.inputMask == MemoryLayout<ipt_ip>.offset(of: \.iniface_mask))
    #expect(four.outputMask == MemoryLayout<ipt_ip>.offset(of: \.outiface_mask))
    #expect(four.transport == MemoryLayout<ipt_ip>.offset(of: \.proto))
    #expect(four.flags == MemoryLayout<ipt_ip>.offset(of: \.flags))
    #expect(four.inverted == MemoryLayout<ipt_ip>.offset(of: \.invflags))
    #expect(four.targetOffset == MemoryLayout<ipt_entry>.offset(of: \.target_offset))
    #expect(four.nextOffset == MemoryLayout<ipt_entry>.offset(of: \.next_offset))
    let six = XTablesLayout.ip6
    #expect(six.entrySize == MemoryLayout<ip6t_entry>.size)
    #expect(six.sourceMask == MemoryLayout<ip6t_ip6>.offset(of: \.smsk))
    #expect(six.inputName == MemoryLayout<ip6t_ip6>.offset(of: \.iniface))
    #expect(six.outputName == MemoryLayout<ip6t_ip6>.offset(of: \.outiface))
    #expect(six.inputMask == MemoryLayout<ip6t_ip6>.offset(of: \.iniface_mask))
    #expect(six.outputMask == MemoryLayout<ip6t_ip6>.offset(of: \.outiface_mask))
    #expect(six.transport == MemoryLayout<ip6t_ip6>.offset(of: \.proto))
    #expect(six.flags == MemoryLayout<ip6t_ip6>.offset(of: \.flags))
    #expect(six.inverted == MemoryLayout<ip6t_ip6>.offset(of: \.invflags))
    #expect(six.targetOffset == MemoryLayout<ip6t_entry>.offset(of: \.target_offset))
    #expect(six.nextOffset == MemoryLayout<ip6t_entry>.offset(of: \.next_offset))

    #expect(XTablesLayout.standardSize == MemoryLayout<xt_standard_target>.stride)
    #expect(XTablesLayout.errorSize == XTablesLayout.align(MemoryLayout<xt_error_target>.size))
    #expect(XTablesLayout.accept == -NF_ACCEPT - 1)
    #expect(XTablesLayout.drop == -NF_DROP - 1)
    #expect(XTablesLayout.return == -NF_REPEAT - 1)
    #expect(XTablesTable.Info.size == MemoryLayout<ipt_getinfo>.size)
    #expect(XTablesTable.Replacement.headerSize == MemoryLayout<ipt_replace>.size)
    #expect(XTablesTable.Replacement.countersPointer == MemoryLayout<ipt_replace>.offset(of: \.counters))
    #expect(MemoryLayout<ip6t_replace>.size == MemoryLayout<ipt_replace>.size)
    #expect(MemoryLayout<xt_conntrack_mtinfo3>.offset(of: \.match_flags) == 146)
    #expect(MemoryLayout<xt_conntrack_mtinfo3>.offset(of: \.state_mask) == 150)
    #expect(MemoryLayout<xt_conntrack_mtinfo3>.size == 164)
    #expect(MemoryLayout<xt_tcp>.size == 12)
    #expect(MemoryLayout<xt_udp>.size == 10)
    #expect(MemoryLayout<nf_nat_ipv4_multi_range_compat>.size == 20)
    #expect(MemoryLayout<nf_nat_range>.size == 40)
    #expect(MemoryLayout<xt_NFQ_info_v3>.size == 6)
    #expect(IPT_ICMP_ADMIN_PROHIBITED.rawValue == 8)
    #expect(IPT_TCP_RESET.rawValue == 7)
    #expect(IP6T_ICMP6_ADM_PROHIBITED.rawValue == 1)
    #expect(IP6T_TCP_RESET.rawValue == 6)
  }
}
