import BootPlanning
import EnclaveConfig
import Testing

struct StartPlanTests {
  static func facts(_ kind: StartKind, _ text: String = "") throws -> StartFacts {
    StartFacts(kind, try Configuration(toml: text, file: "t"))
  }

  static func plan(_ kind: StartKind, _ text: String = "") throws -> StartPlan { StartPlan(try facts(kind, text)) }

  /// The steps before those of the network.
  static func fileSystem(_ kind: StartKind, _ text: String = "") throws -> [BootStep] {
    Array(
      try plan(kind, text).steps.prefix { step in
        switch step {
        case .setHostname, .bringUpLoopback: false
        default: true
        }
      })
  }

  /// A kernel's init: the way to explain a failure first, random numbers before the host is asked and secrets are made, the
  /// root before anything in it.
  @Test func kernelOrder() throws {
    let early = StartPlan.early(.kernel(hasRootfs: true))
    #expect(early[1] == .openConsole)
    #expect(early.last == .seedEntropy)
    let steps = try Self.fileSystem(.kernel(hasRootfs: true))
    #expect(
      steps.prefix(2) == [.removeFiles(["/cmd", "/env"]), .switchRoot("/rootfs", moving: ["/dev", "/proc", "/sys"])])
    #expect(!steps.contains(.seedEntropy))
    #expect(try Self.fileSystem(.kernel(hasRootfs: false)) == [steps[0]] + steps[2...])
    let targets = steps.compactMap { step -> String? in
      if case .mountIfMissing(_, let target, _, _, _) = step { target } else { nil }
    }
    #expect(targets == ["/dev/pts", "/dev/shm", "/run", "/tmp"])
  }

  /// Under another init nothing of the machine is changed but the network.
  @Test func aChildMountsNothing() throws {
    #expect(StartPlan.early(.child).isEmpty)
    #expect(try Self.fileSystem(.child) == [.becomeSubreaper])
    #expect(try Self.plan(.child).steps[1] == .bringUpLoopback(routed: true))
  }

  @Test func withoutANetworkNothingHasARoute() throws {
    let plan = try Self.plan(.local(Self.local), "[network]\nmode = \"none\"")
    #expect(
      plan.steps.suffix(6).prefix(4) == [
        .setHostname("enclave"), .setSysctl("net.ipv4.ip_unprivileged_port_start", value: "0"),
        .bringUpLoopback(routed: false), .dropBounding(PlannedCapabilities.harmful),
      ])
    #expect(
      plan.services.map(\.description) == [
        "keep up to 4194304 bytes of the log for the host", "cd /\nstart as root: what /cmd says",
      ])
  }

  /// Whoever holds a right longer than needed can use it: the rights go last, when everything that needs them is open, and
  /// before the first process is started.
  @Test(arguments: [
    StartKind.child, .kernel(hasRootfs: true), .kernel(hasRootfs: false), .local(StartPlanTests.local),
  ])
  func rightsGoLast(_ kind: StartKind) throws {
    for mode in ["tcp", "none", "raw", "raw\"\ncapture = \"nfqueue"] {
      let steps = try Self.plan(kind, "[network]\nmode = \"\(mode)\"").steps
      guard case .keepCapabilities = steps.last else {
        Issue.record("\(kind) \(mode): \(steps.last?.description ?? "nothing")")
        continue
      }
      let drop = try #require(steps.firstIndex(of: .dropBounding(PlannedCapabilities.harmful)))
      for (index, step) in steps.enumerated() {
        switch step {
        case .listenForProxy, .listenForQueries, .listenForHost, .openTunnelQueues, .openPacketQueues,
          .listenAsNameServer:
          #expect(index > drop, "\(step)")
        case .setSysctl, .installRules, .createTunnel, .pivotRoot, .switchRoot: #expect(index < drop, "\(step)")
        default: break
        }
      }
    }
  }

  /// A program in a local enclave could put a socket of its own in the place of the host's.
  @Test func theTransportsDirectoryIsClosedBehindTheProxysSocket() throws {
    let steps = try Self.plan(.local(Self.local)).steps
    let path = "/run/tombolo/host"
    let listen = try #require(steps.firstIndex(of: .listenForHost(.unix(path + "/enclave_7766"))))
    #expect(steps[listen + 1] == .remountReadOnly(path))
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
    let steps = try Self.fileSystem(.local(local), "[network]\nmode = \"none\"")
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
        mount -t tmpfs -o nosuid,mode=755,size=64k,nr_inodes=1024 tmpfs /dev
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
        mount -t tmpfs -o nosuid,nodev,mode=1777,size=67108864 tmpfs /dev/shm
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
    let steps = try Self.fileSystem(.local(Self.local))
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

  @Test func overlayPathsAreEscaped() throws {
    let steps = try Self.fileSystem(.local(Self.local))
    #expect(steps.contains { $0.description.contains("lowerdir=/home\\,x,upperdir=/s/1/up") })
  }

  /// A tree that cannot be written is shown beside what it lacks, and links in it are not followed out of it.
  @Test func anImageThatCannotBeWritten() throws {
    var local = Self.local
    local.rootfs = "/image"
    local.pieces = [
      .directory("/proc", mode: 0o555), .tree("/usr"), .link("/bin", to: "usr/bin"), .leaf("/f"), .empty("/e"),
    ]
    let steps = try Self.fileSystem(.local(local))
    #expect(
      steps.prefix(11).map(\.description) == [
        "mount --make-rprivate /", "mount -t tmpfs -o nodev,mode=755 tmpfs /s", "mkdir -m 555 /s/proc",
        "mkdir -m 755 /s/usr", "mount --rbind /image/usr /s/usr, within /image", "ln -s usr/bin /s/bin", "touch /s/f",
        "mount --rbind /image/f /s/f, within /image", "touch /s/e", "mount -o remount,bind,ro /s",
        "chroot /s, where bind mounts still show the machine's files",
      ])
  }

  @Test func anImageIsUsedAsItIs() throws {
    var local = Self.local
    local.rootfs = "/image"
    local.pieces = []
    let steps = try Self.fileSystem(.local(local))
    #expect(steps.contains(.bind(source: "/image", target: "/s", recursive: true)))
    #expect(!steps.contains { $0.description.contains("overlay") })
  }
}

extension StartPlanTests {
  /// Real connect results: the interface before the rules that let connections leave through it, its listeners behind both.
  @Test func heldConnections() throws {
    let steps = try Self.plan(.child).steps
    let link = steps.firstIndex(of: .createPacketLink(PacketLinkPlan(acceptsFirst: false))) ?? .max
    let rules = steps.firstIndex { if case .installRules = $0 { true } else { false } } ?? .min
    let listeners = steps.firstIndex(of: .listenOnPacketLink(port: EnclaveLayout.connectionPort)) ?? .min
    #expect(link < rules)
    #expect(rules < listeners)
    #expect(steps[rules].description.contains("tun0"))
    // Otherwise it is for datagrams alone.
    let early = try Self.plan(.child, "[network]\nconnect = \"early\"").steps
    #expect(!early.contains(.listenOnPacketLink(port: EnclaveLayout.connectionPort)))
    #expect(early.contains(.createPacketLink(PacketLinkPlan(acceptsFirst: true))))
    // Where the name in a ClientHello decides, both.
    let names = try Self.plan(.child, "[egress]\nsni = \"check\"").steps
    #expect(names.contains(.listenOnPacketLink(port: EnclaveLayout.connectionPort)))
    #expect(names.contains(.createPacketLink(PacketLinkPlan(acceptsFirst: true))))
  }
}
