/// An entry of the table of special addresses: IANA's registries of special-purpose addresses (RFC 6890, updated by RFC
/// 8190) as of 2025, multicast, IPv6 space that has never been given out, and the addresses of clouds.
public struct SpecialRange: Sendable {
  public let prefix: IPPrefix
  /// The registry's name, or the cloud's.
  public let name: String
  /// Where it is written: the RFC, or the cloud's own manual.
  public let source: String
  /// Empty for ranges that are ways to ordinary machines.
  public let sets: AddressSets

  private init(_ prefix: StaticString, _ name: String, _ source: String, _ sets: AddressSets) {
    guard let parsed = IPPrefix("\(prefix)") else { preconditionFailure("\(prefix)") }
    self.prefix = parsed
    self.name = name
    self.source = source
    self.sets = sets
  }

  /// The narrowest range that says why the address is in one of `sets`; nil where it is in none of them.
  public static func why(_ address: IPAddress, _ sets: AddressSets) -> SpecialRange? {
    var found: SpecialRange?
    for range in all where !range.sets.isDisjoint(with: sets) && range.prefix.contains(address) {
      if range.prefix.length >= found?.prefix.length ?? 0 { found = range }
    }
    return found
  }

  public static let all: [SpecialRange] = v4 + v6 + clouds

  // MARK: https://www.iana.org/assignments/iana-ipv4-special-registry

  private static let v4: [SpecialRange] = [
    .init("0.0.0.0/8", "this network", "RFC 791", .reserved),
    .init("0.0.0.0/32", "the unspecified address, which means the machine itself", "RFC 1122", .reserved),
    .init("10.0.0.0/8", "private use", "RFC 1918", .private),
    .init("100.64.0.0/10", "shared address space", "RFC 6598", .private),
    .init("127.0.0.0/8", "loopback", "RFC 1122", .loopback),
    .init("169.254.0.0/16", "link-local", "RFC 3927", .linkLocal),
    .init("172.16.0.0/12", "private use", "RFC 1918", .private),
    .init("192.0.0.0/24", "IETF protocol assignments", "RFC 6890", .reserved),
    .init("192.0.0.0/29", "IPv4 service continuity", "RFC 7335", .reserved),
    .init("192.0.0.8/32", "dummy address", "RFC 7600", .reserved),
    // Global in the registry, yet each is the nearest router's own: who opens ports there opens the machine's.
    .init("192.0.0.9/32", "port control protocol anycast", "RFC 7723", .reserved),
    .init("192.0.0.10/32", "TURN anycast", "RFC 8155", .reserved),
    .init("192.0.0.170/32", "NAT64 discovery", "RFC 8880", .reserved),
    .init("192.0.0.171/32", "NAT64 discovery", "RFC 8880", .reserved),
    .init("192.0.2.0/24", "documentation", "RFC 5737", .reserved),
    .init("192.31.196.0/24", "AS112", "RFC 7535", []),
    .init("192.52.193.0/24", "automatic multicast tunneling", "RFC 7450", []),
    .init("192.88.99.0/24", "6to4 relay anycast", "RFC 7526", .reserved),
    .init("192.88.99.2/32", "6a44 relay anycast", "RFC 6751", .reserved),
    .init("192.168.0.0/16", "private use", "RFC 1918", .private),
    .init("192.175.48.0/24", "AS112", "RFC 7534", []),
    .init("198.18.0.0/15", "benchmarking", "RFC 2544", .reserved),
    .init("198.51.100.0/24", "documentation", "RFC 5737", .reserved),
    .init("203.0.113.0/24", "documentation", "RFC 5737", .reserved),
    .init("224.0.0.0/4", "multicast", "RFC 5771", .multicast),
    .init("240.0.0.0/4", "reserved", "RFC 1112", .reserved),
    .init("255.255.255.255/32", "limited broadcast", "RFC 919", .reserved),
  ]

  // MARK: https://www.iana.org/assignments/iana-ipv6-special-registry

  private static let v6: [SpecialRange] = [
    .init("::/128", "the unspecified address, which means the machine itself", "RFC 4291", .reserved),
    .init("::1/128", "loopback", "RFC 4291", .loopback),
    .init("::ffff:0:0/96", "IPv4-mapped", "RFC 4291", .reserved),
    .init("::/96", "IPv4-compatible", "RFC 4291", .reserved),
    .init("64:ff9b::/96", "NAT64", "RFC 6052", []),
    .init("64:ff9b:1::/48", "NAT64 for local use", "RFC 8215", .private),
    .init("100::/64", "discard-only", "RFC 6666", .reserved),
    .init("100:0:0:1::/64", "dummy prefix", "RFC 9780", .reserved),
    .init("2001::/23", "IETF protocol assignments", "RFC 2928", .reserved),
    .init("2001::/32", "Teredo", "RFC 4380", []),
    .init("2001:1::1/128", "port control protocol anycast", "RFC 7723", .reserved),
    .init("2001:1::2/128", "TURN anycast", "RFC 8155", .reserved),
    .init("2001:1::3/128", "DNS-SD registration anycast", "RFC 9665", .reserved),
    .init("2001:2::/48", "benchmarking", "RFC 5180", .reserved),
    .init("2001:3::/32", "automatic multicast tunneling", "RFC 7450", []),
    .init("2001:4:112::/48", "AS112", "RFC 7535", []),
    .init("2001:10::/28", "ORCHID", "RFC 4843", .reserved),
    // Global in the registry, yet identifiers: no packet is routed by them.
    .init("2001:20::/28", "ORCHIDv2", "RFC 7343", .reserved),
    .init("2001:30::/28", "drone entity tags", "RFC 9374", .reserved),
    .init("2001:db8::/32", "documentation", "RFC 3849", .reserved),
    .init("2002::/16", "6to4", "RFC 3056", []),
    .init("2620:4f:8000::/48", "AS112", "RFC 7534", []),
    .init("3fff::/20", "documentation", "RFC 9637", .reserved),
    .init("5f00::/16", "segment routing identifiers", "RFC 9602", .reserved),
    .init("fc00::/7", "unique local", "RFC 4193", .private),
    .init("fe80::/10", "link-local", "RFC 4291", .linkLocal),
    .init("fec0::/10", "site-local", "RFC 3879", .reserved),
    .init("ff00::/8", "multicast", "RFC 4291", .multicast),
    // https://www.iana.org/assignments/ipv6-address-space: never given out.
    .init("::/8", "reserved by the IETF", "RFC 4291", .reserved),
    .init("100::/8", "reserved by the IETF", "RFC 4291", .reserved),
    .init("200::/7", "reserved by the IETF", "RFC 4048", .reserved),
    .init("400::/6", "reserved by the IETF", "RFC 4291", .reserved),
    .init("800::/5", "reserved by the IETF", "RFC 4291", .reserved),
    .init("1000::/4", "reserved by the IETF", "RFC 4291", .reserved),
    .init("4000::/3", "reserved by the IETF", "RFC 4291", .reserved),
    .init("6000::/3", "reserved by the IETF", "RFC 4291", .reserved),
    .init("8000::/3", "reserved by the IETF", "RFC 4291", .reserved),
    .init("a000::/3", "reserved by the IETF", "RFC 4291", .reserved),
    .init("c000::/3", "reserved by the IETF", "RFC 4291", .reserved),
    .init("e000::/4", "reserved by the IETF", "RFC 4291", .reserved),
    .init("f000::/5", "reserved by the IETF", "RFC 4291", .reserved),
    .init("f800::/6", "reserved by the IETF", "RFC 4291", .reserved),
    .init("fe00::/9", "reserved by the IETF", "RFC 4291", .reserved),
  ]

  // MARK: where clouds answer a machine

  private static let clouds: [SpecialRange] = [
    .init(
      "169.254.169.254/32", "metadata of AWS, Azure, Google, Oracle, OpenStack, IBM, DigitalOcean, Hetzner and others",
      "docs.aws.amazon.com (IMDS), learn.microsoft.com (IMDS), docs.openstack.org (nova, metadata service)", .metadata),
    .init(
      "169.254.170.2/32", "credentials of AWS ECS tasks", "docs.aws.amazon.com (task IAM roles)", .metadata),
    .init(
      "169.254.170.23/32", "credentials of AWS EKS pods", "docs.aws.amazon.com (EKS Pod Identity Agent)", .metadata),
    .init("169.254.0.23/32", "metadata of Tencent Cloud", "cloud.tencent.com (instance metadata)", .metadata),
    .init("169.254.10.10/32", "metadata of Tencent Cloud", "cloud.tencent.com (instance metadata)", .metadata),
    .init("169.254.42.42/32", "metadata of Scaleway", "cloud-init (DataSourceScaleway)", .metadata),
    .init("100.100.100.200/32", "metadata of Alibaba Cloud", "alibabacloud.com (view instance metadata)", .metadata),
    .init("168.63.129.16/32", "Azure's wire server", "learn.microsoft.com (IP address 168.63.129.16)", .metadata),
    .init("192.0.0.192/32", "metadata of Oracle Cloud Classic", "docs.oracle.com (instance metadata)", .metadata),
    // Metadata (::254), pod credentials (::23), name server (::253), time (::123).
    .init("fd00:ec2::/32", "AWS's services for its machines", "docs.aws.amazon.com (IPv6 on AWS)", .metadata),
    .init("fd20:ce::254/128", "metadata of Google Cloud", "cloud.google.com (metadata server, IPv6)", .metadata),
    .init("fd00:c1::a9fe:a9fe/128", "metadata of Oracle Cloud", "docs.oracle.com (instance metadata)", .metadata),
    .init("fd00:a9fe:a9fe::1/128", "metadata of Akamai (Linode)", "cloud-init (DataSourceAkamai)", .metadata),
    .init("fd00:42::42/128", "metadata of Scaleway", "cloud-init (DataSourceScaleway)", .metadata),
    .init("fd00:100::100:200/128", "metadata of Alibaba Cloud", "alibabacloud.com (view instance metadata)", .metadata),
    .init(
      "fe80::a9fe:a9fe/128", "metadata of OpenStack", "docs.openstack.org (nova, metadata service)", .metadata),
  ]
}
