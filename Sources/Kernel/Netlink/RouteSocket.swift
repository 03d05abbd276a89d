import CLinux
import Inet
import LinuxSystem
import Netfilter

/// Links, addresses and routes of the network namespace in which it was opened (rtnetlink(7)).
public struct RouteSocket: ~Copyable {
  private var socket: NetlinkSocket

  public init() throws(NetlinkError) { socket = try NetlinkSocket(NETLINK_ROUTE) }

  // MARK: Links

  public mutating func links() throws(NetlinkError) -> [Link] {
    try socket.dump(Self.message(RTM_GETLINK, 0, ifinfomsg(), [], "list links")).compactMap { Link($0) }
  }

  /// - Throws: ENODEV where there is none of that name.
  public mutating func link(named name: String) throws(NetlinkError) -> Link {
    let request = Self.message(
      RTM_GETLINK, 0, ifinfomsg(), [.string(UInt16(IFLA_IFNAME), name)], "get link \(name)")
    guard let link = Link(try socket.answer(to: request)) else { throw NetlinkError(request.label, errno: EBADMSG) }
    return link
  }

  public mutating func linkIndex(named name: String) throws(NetlinkError) -> UInt32 { try link(named: name).index }

  /// Switches a link on or off and sets its MTU in bytes; nil leaves either as it is.
  public mutating func setLink(named name: String, up: Bool? = nil, mtu: UInt32? = nil) throws(NetlinkError) {
    try setLink(try linkIndex(named: name), named: name, up: up, mtu: mtu)
  }

  /// The same for a link whose index is known.
  /// - Parameter name: for the error.
  public mutating func setLink(
    _ index: UInt32, named name: String, up: Bool? = nil, mtu: UInt32? = nil
  ) throws(NetlinkError) {
    var header = ifinfomsg()
    header.ifi_index = Int32(truncatingIfNeeded: index)
    if let up {
      header.ifi_change = UInt32(IFF_UP)
      header.ifi_flags = up ? UInt32(IFF_UP) : 0
    }
    let words = (up.map { $0 ? " up" : " down" } ?? "") + (mtu.map { " mtu \($0)" } ?? "")
    try socket.request(
      Self.message(
        RTM_NEWLINK, 0, header, mtu.map { [.native(UInt16(IFLA_MTU), $0)] } ?? [], "set link \(name)\(words)"))
  }

  // MARK: Addresses

  public mutating func addresses() throws(NetlinkError) -> [LinkAddress] {
    try socket.dump(Self.message(RTM_GETADDR, 0, ifaddrmsg(), [], "list addresses")).compactMap { LinkAddress($0) }
  }

  /// Gives a link an address; one that it has already is no error.
  public mutating func addAddress(_ prefix: IPPrefix, link: UInt32) throws(NetlinkError) {
    var header = ifaddrmsg()
    header.ifa_family = AddressFamily(prefix.address).number
    header.ifa_prefixlen = prefix.length
    header.ifa_index = link
    // ip(8) does the same for loopback addresses: no other machine may hear of them.
    header.ifa_scope = UInt8(prefix.address.isLoopback ? RT_SCOPE_HOST.rawValue : RT_SCOPE_UNIVERSE.rawValue)
    // Without it an IPv6 address cannot be used for the second that duplicate address detection takes. An enclave has
    // no neighbours.
    if case .v6 = prefix.address { header.ifa_flags = UInt8(IFA_F_NODAD) }
    let request = Self.message(
      RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, header,
      [
        NetlinkAttribute(UInt16(IFA_LOCAL), .bytes(prefix.address.bytes)),
        NetlinkAttribute(UInt16(IFA_ADDRESS), .bytes(prefix.address.bytes)),
      ], "add address \(prefix) dev #\(link)")
    do {
      try socket.request(request)
    } catch  where error.errno == EEXIST {
    }
  }

  // MARK: Routes

  /// The unicast and local routes of all tables.
  public mutating func routes() throws(NetlinkError) -> [Route] {
    try socket.dump(Self.message(RTM_GETROUTE, 0, rtmsg(), [], "list routes")).compactMap { Route($0) }
  }

  /// Where the routes of all tables lead, of whatever kind they are, but for those to everywhere.
  /// - Parameter link: its own are left out.
  public mutating func destinations(but link: UInt32) throws(NetlinkError) -> [IPPrefix] {
    try socket.dump(Self.message(RTM_GETROUTE, 0, rtmsg(), [], "list routes")).compactMap { message in
      guard message.type == UInt16(RTM_NEWROUTE), let header = message.header(as: rtmsg.self) else { return nil }
      let attributes = message.attributes(after: MemoryLayout<rtmsg>.size)
      if let out: UInt32 = attributes.number(RTA_OIF.rawValue), out == link { return nil }
      return attributes.bytes(RTA_DST.rawValue).flatMap { IPAddress(bytes: $0) }
        .flatMap { IPPrefix($0, header.rtm_dst_len) }
    }
  }

  /// - Parameter replace: take the place of a route with the same destination and table, where there is one.
  /// - Throws: EEXIST where there is such a route and `replace` is false.
  public mutating func addRoute(_ route: Route, replace: Bool = false) throws(NetlinkError) {
    let how = NLM_F_CREATE | (replace ? NLM_F_REPLACE : NLM_F_EXCL)
    try socket.request(Self.message(RTM_NEWROUTE, how, route, "\(replace ? "replace" : "add") route \(route)"))
  }

  /// - Throws: ESRCH where there is no such route.
  public mutating func removeRoute(_ route: Route) throws(NetlinkError) {
    try socket.request(Self.message(RTM_DELROUTE, 0, route, "remove route \(route)"))
  }

  private static func message(_ type: Int, _ flags: Int32, _ route: Route, _ label: String) -> NetlinkMessage {
    var header = rtmsg()
    header.rtm_family = route.family.number
    header.rtm_dst_len = route.destination?.length ?? 0
    header.rtm_protocol = UInt8(RTPROT_BOOT)
    header.rtm_type = UInt8(route.kind == .local ? RTN_LOCAL : RTN_UNICAST)
    header.rtm_table = UInt8(exactly: route.table) ?? UInt8(RT_TABLE_UNSPEC.rawValue)
    // How far away the destination is (ip-route(8), "scope"); IPv6 does not look at it. RT_SCOPE_NOWHERE removes any.
    let scope =
      if type == Int(RTM_DELROUTE) {
        RT_SCOPE_NOWHERE
      } else if route.kind == .local {
        RT_SCOPE_HOST
      } else {
        route.gateway == nil ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE
      }
    header.rtm_scope = UInt8(scope.rawValue)
    var attributes: [NetlinkAttribute] = [
      .native(UInt16(RTA_TABLE.rawValue), route.table), .native(UInt16(RTA_OIF.rawValue), route.link),
    ]
    func add(_ type: rtattr_type_t, _ address: IPAddress?) {
      if let address { attributes.append(NetlinkAttribute(UInt16(type.rawValue), .bytes(address.bytes))) }
    }
    add(RTA_DST, route.destination?.address)
    add(RTA_GATEWAY, route.gateway)
    add(RTA_PREFSRC, route.preferredSource)
    return message(type, flags, header, attributes, label)
  }

  // MARK: -

  private static func message(
    _ type: Int, _ flags: Int32, _ header: some BitwiseCopyable, _ attributes: [NetlinkAttribute], _ label: String
  ) -> NetlinkMessage {
    NetlinkMessage(
      type: UInt16(truncatingIfNeeded: type), flags: UInt16(truncatingIfNeeded: flags),
      header: withUnsafeBytes(of: header) { Array($0) }, attributes: attributes, label: label)
  }
}
