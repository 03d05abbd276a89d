import Inet

extension Ruleset {
  /// What hands an enclave's packets to the proxy where the enclave has the host's own address.
  ///
  /// What leaves through the link goes to a queue and never any further: a copy of it crosses the border. Datagrams have a
  /// queue of their own, since the kernel must divide UDP's super-packets and must not divide TCP's. What is neither TCP nor
  /// UDP has no port by which the host could tell whose it is, and is dropped at once.
  /// - Parameters:
  ///   - firstQueue: for datagrams; those for TCP follow it.
  ///   - queues: for TCP; the kernel chooses by the pair of addresses (nfqueue_hash of net/netfilter/nf_queue.h).
  ///   - dnsPort: where queries are turned to, whatever server they are for; nil to leave them alone. What has been turned has
  ///     a loopback address by then, and for the kernel still the link that it was to leave through.
  public static func capture(
    link: String, firstQueue: UInt16, queues: Int, ipv6: Bool, dnsPort: UInt16? = nil
  ) -> Ruleset {
    let tcp = firstQueue &+ 1...firstQueue &+ UInt16(clamping: max(1, queues))
    func table(_ family: Family) -> Table {
      let loopback: IPPrefix = family == .ip ? .loopback4 : .loopback6
      return Table(
        family,
        (dnsPort.map { [queriesChain(link, $0)] } ?? []) + [
          Chain(
            "output", .filter, .output, priority: 0,
            (dnsPort == nil ? [] : [Rule([.destination(loopback)], .accept)]) + [
              Rule([.transport(.tcp), .output(link)], .queue(tcp, [])),
              Rule([.transport(.udp), .output(link)], .queue(firstQueue...firstQueue, [])),
              Rule([.output(link)], .drop),
            ])
        ])
    }
    return Ruleset(name: "tombolo", tables: ipv6 ? [table(.ip), table(.ip6)] : [table(.ip)])
  }
}
