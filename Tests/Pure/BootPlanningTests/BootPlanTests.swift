import BootPlanning
import EnclaveConfig
import Testing

struct BootPlanTests {
  static func configuration(_ text: String) throws -> Configuration { try Configuration(toml: text, file: "t") }

  /// With the host's own address nothing leaves through the link but by a queue.
  @Test func sharedAddressPlan() throws {
    let plan = BootPlan(
      try Self.configuration(
        "[network]\nmode = \"raw\"\ncapture = \"nfqueue\"\naddress = \"192.0.43.8\"\naddress6 = \"none\"\nqueues = 2\n[program]\ncommand = [\"/bin/server\"]"
      ),
      .child
    ).networkAndProgram
    #expect(
      plan == """
        ip link set lo up
        ip tuntap add dev tun0 mode tun multi_queue vnet_hdr; ip link set tun0 mtu 1500 up
        ip address add 192.0.43.8 dev tun0; ip route add default dev tun0 src 192.0.43.8
        sysctl net.ipv4.ip_local_port_range="1024 61439"
        ip address add 169.254.53.53/32 dev lo
        install with nftables or xtables:
          table ip tombolo {
            chain output {
              type filter hook output priority 0; policy accept;
              meta l4proto tcp oifname "tun0" queue to 7767-7768
              meta l4proto udp oifname "tun0" queue to 7766
              oifname "tun0" drop
            }
          }
        start the proxy and its keeper of verdicts: packet queues, a stream to the host for each
        wait until the proxy is ready
        cd /
        start as root: /bin/server
        """)
  }

  /// What `tombolo-init --plan` prints is what an auditor reads to know what a measured image does.
  @Test func goldenPlan() throws {
    let plan = BootPlan(
      try Self.configuration(
        "[program]\ncommand = [\"/bin/server\", \"-v\"]\nuser = \"www-data\"\n[ingress]\nports = [443, 80]"),
      .local(Self.local)
    ).networkAndProgram
    #expect(
      plan == """
        hostname enclave
        sysctl net.ipv4.ip_unprivileged_port_start=0
        ip link set lo up; ip route add default dev lo src 127.0.0.1; ip -6 route add local default dev lo src ::1
        install with nftables or xtables:
          table ip tombolo {
            chain output_nat {
              type nat hook output priority -100; policy accept;
              ip daddr 127.0.0.0/8 accept
              udp dport 53 redirect to :61053
              tcp dport 53 redirect to :61053
              meta l4proto tcp redirect to :61001
            }
            chain output_filter {
              type filter hook output priority 0; policy accept;
              ip daddr != 127.0.0.0/8 reject with icmp admin-prohibited
            }
          }
          table ip6 tombolo {
            chain output_nat {
              type nat hook output priority -100; policy accept;
              ip6 daddr ::1 accept
              ip6 daddr fd54:6f6d:626f::1 accept
              udp dport 53 redirect to :61053
              tcp dport 53 redirect to :61053
              meta l4proto tcp redirect to :61001
            }
            chain output_filter {
              type filter hook output priority 0; policy accept;
              ip6 daddr fd54:6f6d:626f::1 accept
              ip6 daddr != ::1 reject with icmpv6 admin-prohibited
            }
          }
        start the proxy: egress on port 61001, DNS on port 61053
        let the host reach port 80, 443
        wait until the proxy is ready
        cd /
        start as www-data: /bin/server -v
        """)
  }

  /// A kernel's init: the way to explain a failure first, the root before anything in it, the rules last.
  @Test func kernelOrder() throws {
    #expect(BootPlan.early[1] == .openConsole)
    let plan = BootPlan(Configuration(), .kernel(hasRootfs: true))
    #expect(plan.fileSystem.first == .switchRoot("/rootfs", moving: ["/dev", "/proc", "/sys"]))
    #expect(BootPlan(Configuration(), .kernel(hasRootfs: false)).fileSystem.first != plan.fileSystem.first)
    let targets = plan.fileSystem.compactMap { step -> String? in
      if case .mountIfMissing(_, let target, _, _, _) = step { target } else { nil }
    }
    #expect(targets == ["/dev/pts", "/dev/shm", "/run", "/tmp"])
    #expect(plan.network.contains(.setSysctl("net.ipv4.ip_unprivileged_port_start", value: "0")))
    if case .installRules = plan.network.last {} else { Issue.record("\(plan.network)") }
  }

  /// Under another init nothing of the machine is changed but the network.
  @Test func aChildMountsNothing() {
    let plan = BootPlan(Configuration(), .child)
    #expect(plan.fileSystem.isEmpty)
    #expect(plan.network.first == .bringUpLoopback(routed: true))
  }

  @Test func withoutANetworkNothingHasARoute() throws {
    let plan = BootPlan(try Self.configuration("[network]\nmode = \"none\""), .local(Self.local))
    #expect(
      plan.network == [
        .setHostname("enclave"), .setSysctl("net.ipv4.ip_unprivileged_port_start", value: "0"),
        .bringUpLoopback(routed: false),
      ])
  }

  /// An auditor sees what the host may decide, and within what.
  @Test func rawModeWithTheHostsAddress() throws {
    let plan = BootPlan(
      try Self.configuration(
        "[program]\ncommand = [\"/bin/server\"]\n[network]\nmode = \"raw\"\naddress = \"host\"\nallowed = [\"10.7.0.0/16\"]"
      ),
      .child
    ).networkAndProgram
    #expect(
      plan == """
        ip link set lo up
        ask the host for an IPv4 address within 10.7.0.0/16
        ip tuntap add dev tun0 mode tun multi_queue vnet_hdr; ip link set tun0 mtu 1500 up
        ip address add ADDRESS/LENGTH dev tun0; ip route add default dev tun0 src ADDRESS
        ip address add fd74:6f6d:626f::2/64 dev tun0; ip -6 route add default dev tun0 src fd74:6f6d:626f::2
        start the proxy: the queues of tun0, a stream to the host for each
        wait until the proxy is ready
        cd /
        start as root: /bin/server
        """)
  }

  static let local = LocalEnclave(
    rootfs: nil, stage: "/s", transport: "/t", pieces: [.overlay("/"), .overlay("/home,x")],
    hasUserNamespace: false, nameServer: "169.254.53.53")

  /// What of the machine a local enclave can change: nothing but the transport's directory. Everything is made within the
  /// root, wherever a link in it points.
  @Test func localFileSystem() throws {
    var local = Self.local
    local.pieces = [
      .directory("/home", mode: 0o711), .file("/home/a", copied: true), .file("/home/b", copied: false),
      .link("/bin", to: "usr/bin"), .overlay("/usr"),
    ]
    local.hasUserNamespace = true
    local.userCount = 65_537
    let steps = BootPlan(try Self.configuration("[network]\nmode = \"none\""), .local(local)).fileSystem
    #expect(
      steps.map(\.description).joined(separator: "\n") == """
        mount --make-rprivate /
        mount -t tmpfs -o nodev,mode=755 tmpfs /s
        mkdir -m 755 /s/root
        mount -t tmpfs -o mode=755 tmpfs /s/root
        mkdir -m 711 /s/root/home
        cp -p /home/a /s/root/home/a
        mount --bind -o ro /home/b /s/root/home/b
        ln -s usr/bin /s/root/bin
        mkdir -m 755 /s/4
        mkdir /s/4/up, with the mode and the owner of /usr
        mkdir -m 755 /s/4/work
        mkdir -m 755 /s/root/usr
        mount -t overlay -o lowerdir=/usr,upperdir=/s/4/up,workdir=/s/4/work,userxattr overlay /s/root/usr
        chroot /s/root, where bind mounts still show the machine's files
        mkdir -m 755 /proc
        mkdir -m 755 /sys
        mkdir -m 755 /dev
        mkdir -m 755 /run
        mkdir -m 755 /tmp
        mount -t proc -o nosuid,nodev,noexec proc /proc
        mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys
        mount -t tmpfs -o nosuid,mode=755 tmpfs /dev
        touch /dev/null
        mount --bind -o ro /dev/null /dev/null
        touch /dev/zero
        mount --bind -o ro /dev/zero /dev/zero
        touch /dev/full
        mount --bind -o ro /dev/full /dev/full
        touch /dev/random
        mount --bind -o ro /dev/random /dev/random
        touch /dev/urandom
        mount --bind -o ro /dev/urandom /dev/urandom
        touch /dev/tty
        mount --bind -o ro /dev/tty /dev/tty
        mkdir -m 755 /dev/pts
        mount -t devpts -o nosuid,noexec,newinstance,ptmxmode=0666,mode=0620 devpts /dev/pts
        ln -s pts/ptmx /dev/ptmx
        mkdir -m 1777 /dev/shm
        mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm
        ln -s /proc/self/fd /dev/fd
        ln -s /proc/self/fd/0 /dev/stdin
        ln -s /proc/self/fd/1 /dev/stdout
        ln -s /proc/self/fd/2 /dev/stderr
        mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
        mkdir -m 1777 /run/lock
        mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /tmp
        mkdir -m 755 /run/tombolo/host
        mount --bind /t /run/tombolo/host
        chgrp 61042 /run/tombolo/host/host_7766
        mount --rbind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys, but for net, kernel/shmmax, \
        kernel/shmall, kernel/shmmni, kernel/shm_rmid_forced, kernel/shm_next_id, kernel/msgmax, kernel/msgmnb, \
        kernel/msgmni, kernel/msg_next_id, kernel/sem, kernel/sem_next_id, kernel/auto_msgmni, kernel/hostname, \
        kernel/domainname, fs/mqueue
        mount --rbind /proc/bus /proc/bus; mount -o remount,bind,ro /proc/bus
        mount --rbind /proc/fs /proc/fs; mount -o remount,bind,ro /proc/fs
        mount --rbind /proc/irq /proc/irq; mount -o remount,bind,ro /proc/irq
        mount --rbind /proc/sysrq-trigger /proc/sysrq-trigger; mount -o remount,bind,ro /proc/sysrq-trigger
        mask /proc/acpi, /proc/asound, /proc/kcore, /proc/keys, /proc/latency_stats, /proc/timer_list, \
        /proc/timer_stats, /proc/sched_debug, /proc/scsi, /sys/firmware, /sys/devices/virtual/powercap
        pivot_root /s/root
        provide /etc/resolv.conf: nameserver 169.254.53.53
        provide /etc/hosts: 127.0.0.1 localhost; ::1 localhost; 127.0.1.1 enclave
        provide /etc/hostname: enclave
        """)
  }

  /// The old root must be gone before anything of the program's is read, and no mount may be seen outside.
  @Test func localOrder() throws {
    let steps = BootPlan(Configuration(), .local(Self.local)).fileSystem
    #expect(steps.first == .makeMountsPrivate)
    let pivot = try #require(steps.firstIndex(of: .pivotRoot("/s/root")))
    for (index, step) in steps.enumerated() {
      switch step {
      case .mount, .bind, .bindReadOnly, .protect, .mask: #expect(index < pivot, "\(step)")
      case .provideFile: #expect(index > pivot, "\(step)")
      default: break
      }
    }
  }

  @Test func overlayPathsAreEscaped() {
    let steps = BootPlan(Configuration(), .local(Self.local)).fileSystem
    #expect(steps.contains { $0.description.contains("lowerdir=/home\\,x,upperdir=/s/1/up") })
  }

  /// A tree that cannot be written is shown beside what it lacks, and links in it are not followed out of it.
  @Test func anImageThatCannotBeWritten() {
    var local = Self.local
    local.rootfs = "/image"
    local.pieces = [
      .directory("/proc", mode: 0o555), .tree("/usr"), .link("/bin", to: "usr/bin"), .leaf("/f"), .empty("/e"),
    ]
    let steps = BootPlan(Configuration(), .local(local)).fileSystem
    #expect(
      steps.prefix(11).map(\.description) == [
        "mount --make-rprivate /", "mount -t tmpfs -o nodev,mode=755 tmpfs /s", "mkdir -m 555 /s/proc",
        "mkdir -m 755 /s/usr", "mount --rbind /image/usr /s/usr, within /image", "ln -s usr/bin /s/bin", "touch /s/f",
        "mount --rbind /image/f /s/f, within /image", "touch /s/e", "mount -o remount,bind,ro /s",
        "chroot /s, where bind mounts still show the machine's files",
      ])
  }

  @Test func anImageIsUsedAsItIs() {
    var local = Self.local
    local.rootfs = "/image"
    local.pieces = []
    let steps = BootPlan(Configuration(), .local(local)).fileSystem
    #expect(steps.contains(.bind(source: "/image", target: "/s", recursive: true)))
    #expect(!steps.contains { $0.description.contains("overlay") })
  }
}

struct LocalDocumentTests {
  @Test func roundTrips() {
    let pieces: [RootPiece] = [
      .overlay("/a b\n"), .directory("/d", mode: 0o1700), .link("/l", to: "x/y"), .file("/f", copied: false),
      .file("/c", copied: true), .tree("/t"), .leaf("/b"), .empty("/e"),
    ]
    for rootfs in [nil, "/r\n17"] {
      var content = LocalDocument.Content(
        local: LocalEnclave(
          rootfs: rootfs, stage: "/s", transport: "/t", pieces: pieces, hasUserNamespace: true, nameServer: "::1",
          search: rootfs == nil ? [] : ["a.example", "b"], resolverOptions: ["ndots:1"]),
        configuration: rootfs.map { (name: $0, text: "a = 1\n") }, overrides: "[program]\n", passesInput: true,
        defaultDirectory: "/ü")
      content.local.userCount = rootfs == nil ? nil : 65_537
      #expect(LocalDocument.decode(LocalDocument.encode(content)) == content)
    }
  }

  @Test func damagedBytesGiveNothing() {
    let content = LocalDocument.Content(
      local: BootPlanTests.local, configuration: nil, overrides: "", passesInput: false, defaultDirectory: nil)
    let bytes = LocalDocument.encode(content)
    for length in 1..<bytes.count {
      let decoded = LocalDocument.decode(Array(bytes[..<length]))
      #expect(decoded == nil || decoded != content)
    }
    for _ in 0..<50_000 { _ = LocalDocument.decode((0..<40).map { _ in UInt8.random(in: 0...255) }) }
  }
}
