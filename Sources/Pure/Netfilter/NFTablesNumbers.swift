/// The numbers of linux/netfilter/nf_tables.h and linux/netfilter/nfnetlink.h, written here so that this module needs no
/// kernel header; a test compares each with the header's constant.
enum NFT {
  /// NFNL_SUBSYS_NFTABLES
  static let subsystem: UInt16 = 10
  /// NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END
  static let batchBegin: UInt16 = 16
  static let batchEnd: UInt16 = 17
  /// NFT_MSG_*
  static let newTable: UInt16 = 0
  static let deleteTable: UInt16 = 2
  static let newChain: UInt16 = 3
  static let newRule: UInt16 = 6
  static let getGeneration: UInt16 = 16
  /// NLM_F_CREATE, NLM_F_EXCL, NLM_F_APPEND
  static let create: UInt16 = 0x400
  static let exclusive: UInt16 = 0x200
  static let append: UInt16 = 0x800
  /// NFTA_LIST_ELEM
  static let listElement: UInt16 = 1
  /// NFT_REG_VERDICT, NFT_REG_1, NFT_REG_2
  static let verdictRegister: UInt32 = 0
  static let register: UInt32 = 1
  static let secondRegister: UInt32 = 2

  static func message(_ number: UInt16) -> UInt16 { subsystem << 8 | number }

  /// struct nfgenmsg: family, version NFNETLINK_V0, resource in network order.
  static func header(family: UInt8, resource: UInt16 = 0) -> [UInt8] {
    [family, 0, UInt8(resource >> 8), UInt8(resource & 0xff)]
  }

  /// NFTA_TABLE_*
  enum Table {
    static let name: UInt16 = 1
    static let flags: UInt16 = 2
  }
  /// NFTA_CHAIN_*
  enum Chain {
    static let table: UInt16 = 1
    static let name: UInt16 = 3
    static let hook: UInt16 = 4
    static let policy: UInt16 = 5
    static let type: UInt16 = 7
  }
  /// NFTA_HOOK_*
  enum Hook {
    static let number: UInt16 = 1
    static let priority: UInt16 = 2
  }
  /// NFTA_RULE_*
  enum Rule {
    static let table: UInt16 = 1
    static let chain: UInt16 = 2
    static let expressions: UInt16 = 4
  }
  /// NFTA_FIB_*, NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR, RTN_LOCAL of linux/rtnetlink.h
  enum FIB {
    static let destination: UInt16 = 1
    static let result: UInt16 = 2
    static let flags: UInt16 = 3
    static let addressType: UInt32 = 3
    static let ofDestination: UInt32 = 2
    static let local: UInt32 = 2
  }
  /// NFTA_SOCKET_*, NFT_SOCKET_TRANSPARENT
  enum Socket {
    static let key: UInt16 = 1
    static let destination: UInt16 = 2
    static let transparent: UInt32 = 0
  }
  /// NFTA_EXPR_*
  enum Expression {
    static let name: UInt16 = 1
    static let data: UInt16 = 2
  }
  /// NFTA_DATA_*
  enum Data {
    static let value: UInt16 = 1
    static let verdict: UInt16 = 2
  }
  /// NFTA_VERDICT_CODE; NF_DROP, NF_ACCEPT
  enum Verdict {
    static let code: UInt16 = 1
    static let drop: UInt32 = 0
    static let accept: UInt32 = 1
    /// NFT_RETURN, a negative number in a field of 32 bits.
    static let `return` = UInt32(bitPattern: -5)
  }
  /// NFTA_META_*
  enum Meta {
    static let destination: UInt16 = 1
    static let key: UInt16 = 2
  }
  /// NFT_META_*
  enum MetaKey {
    static let inputName: UInt32 = 6
    static let outputName: UInt32 = 7
    static let transport: UInt32 = 16
  }
  /// NFTA_CT_*; NFT_CT_STATE
  enum Ct {
    static let destination: UInt16 = 1
    static let key: UInt16 = 2
    static let state: UInt32 = 0
  }
  /// NFTA_PAYLOAD_*; NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER
  enum Payload {
    static let destination: UInt16 = 1
    static let base: UInt16 = 2
    static let offset: UInt16 = 3
    static let length: UInt16 = 4
    static let network: UInt32 = 1
    static let transport: UInt32 = 2
  }
  /// NFTA_CMP_*
  enum Compare {
    static let source: UInt16 = 1
    static let operation: UInt16 = 2
    static let data: UInt16 = 3
  }
  /// NFTA_BITWISE_*
  enum Bitwise {
    static let source: UInt16 = 1
    static let destination: UInt16 = 2
    static let length: UInt16 = 3
    static let mask: UInt16 = 4
    static let xor: UInt16 = 5
  }
  /// NFTA_IMMEDIATE_*
  enum Immediate {
    static let destination: UInt16 = 1
    static let data: UInt16 = 2
  }
  /// NFTA_REDIR_*
  enum Redirect {
    static let portRegister: UInt16 = 1
    static let flags: UInt16 = 3
  }
  /// NFTA_NAT_*; NFT_NAT_DNAT; NF_NAT_RANGE_PROTO_SPECIFIED
  enum NAT {
    static let type: UInt16 = 1
    static let family: UInt16 = 2
    static let addressRegister: UInt16 = 3
    static let portRegister: UInt16 = 5
    static let flags: UInt16 = 7
    static let destination: UInt32 = 1
    static let portSpecified: UInt32 = 2
  }
  /// NFTA_REJECT_*; NFT_REJECT_ICMP_UNREACH, NFT_REJECT_TCP_RST
  enum Reject {
    static let type: UInt16 = 1
    static let code: UInt16 = 2
    static let unreachable: UInt32 = 0
    static let tcpReset: UInt32 = 1
  }
  /// NFTA_QUEUE_*
  enum Queue {
    static let number: UInt16 = 1
    static let total: UInt16 = 2
    static let flags: UInt16 = 3
  }
}
