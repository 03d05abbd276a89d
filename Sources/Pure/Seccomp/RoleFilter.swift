// What a process of our own may ask the kernel for once it has been set up: the calls that its code makes and nothing else.
// Another call is not executed and raises SIGSYS, whose handler says which it was and ends the process (CLinux, confine.c):
// PID 1 logs it, and the process is started again like after any other end.

public struct RoleFilter: Equatable, Sendable {
  /// x86-64 numbers of calls that no argument decides, in any order.
  var calls: [UInt32]
  /// Of socket(2); empty for none.
  var families: [UInt32]
  /// Threads may be made, other processes never.
  var makesThreads: Bool
  /// Processes that may be signalled.
  var signalled: [UInt32] = []
  /// Files may be opened to read them.
  var reads = false
  /// Of ioctl(2); empty for none, unless that is among the calls.
  var deviceRequests: [UInt32] = []

  /// Memory that is neither executable nor shared with a file, locks, time, the ends of threads and processes: what every
  /// program's runtime asks for.
  private static let runtime: [UInt32] = [
    11,  // munmap
    12,  // brk
    14,  // rt_sigprocmask
    15,  // rt_sigreturn
    24,  // sched_yield
    25,  // mremap
    28,  // madvise
    35,  // nanosleep
    39,  // getpid
    60,  // exit
    96,  // gettimeofday
    131,  // sigaltstack
    186,  // gettid
    202,  // futex
    204,  // sched_getaffinity
    219,  // restart_syscall
    228,  // clock_gettime
    230,  // clock_nanosleep
    231,  // exit_group
    234,  // tgkill: abort(3)
    318,  // getrandom
  ]

  /// Data on open descriptors.
  private static let data: [UInt32] = [
    0,  // read
    1,  // write
    3,  // close
    5,  // fstat
    262,  // newfstatat: what libc makes of fstat
    7,  // poll
    8,  // lseek
    17,  // pread64
    19,  // readv
    20,  // writev
    32,  // dup
    44,  // sendto
    45,  // recvfrom
    46,  // sendmsg
    47,  // recvmsg
    48,  // shutdown
    51,  // getsockname
    52,  // getpeername
    54,  // setsockopt
    55,  // getsockopt
    72,  // fcntl
    232,  // epoll_wait
    233,  // epoll_ctl
    281,  // epoll_pwait
  ]

  /// The networking proxy: connects to the host and to the program, accepts, has memory of its own made for raw mode's
  /// rings. AF_INET and AF_INET6 are for the program's ports and 127.0.0.1 alone by the enclave's routes and rules.
  public static let proxy = RoleFilter(
    calls: runtime + data + [
      16,  // ioctl: TUN offloads
      42,  // connect
      53,  // socketpair: the DNS client's end of a connection
      77,  // ftruncate
      138,  // fstatfs: whether a file that was passed is memory
      157,  // prctl: names of threads
      257,  // openat: /proc/net/tcp
      273,  // set_robust_list
      285,  // fallocate: pages of a ring given back
      288,  // accept4
      290,  // eventfd2
      291,  // epoll_create1
      293,  // pipe2
      299,  // recvmmsg: queries for names
      307,  // sendmmsg: answers to them
      319,  // memfd_create
      334,  // rseq
    ], families: [1, 2, 10, 40], makesThreads: true)

  /// The keeper of verdicts: reads numbers, tells the kernel.
  public static let keeper = RoleFilter(calls: runtime + data, families: [], makesThreads: false)

  /// The DNS client: TLS on connections that it is given. It opens nothing, not even a socket.
  public static let dnsClient = RoleFilter(calls: runtime + data, families: [], makesThreads: false)

  /// The process of one mount: asks for a name, asks the server for a sign of life, mounts, unmounts.
  public static let volume = RoleFilter(
    calls: runtime + data + [
      13,  // rt_sigaction
      16,  // ioctl
      42,  // connect
      89,  // readlink
      137,  // statfs: flags of a bind mount
      138,  // fstatfs
      157,  // prctl: names of threads
      165,  // mount
      166,  // umount2
      257,  // openat
      258,  // mkdirat
      267,  // readlinkat
      273,  // set_robust_list
      282,  // signalfd
      289,  // signalfd4
      293,  // pipe2
      306,  // syncfs
      334,  // rseq
      4,  // stat
    ], families: [2, 10], makesThreads: true)

  /// The attestation service: asks the security module (NSM_IOCTL_RAW), and accepts on sockets that it is given.
  public static let attestation = RoleFilter(
    calls: runtime + data + [
      77,  // ftruncate
      288,  // accept4
    ], families: [], makesThreads: false, deviceRequests: [0xc020_0a00])

  /// The same with `attestation.document`: two files exchange their names, in directories of its own user.
  public static let attestationWithDocument = RoleFilter(
    calls: attestation.calls + [316],  // renameat2
    families: [], makesThreads: false, deviceRequests: attestation.deviceRequests)

  /// What a host side does, whichever it is: connects to the network and to the enclave, accepts, asks for names.
  private static let serving: [UInt32] =
    runtime + data + [
      13,  // rt_sigaction: the first thread's, of libc's own signals
      16,  // ioctl: SIOCOUTQ
      42,  // connect
      50,  // listen: a published port, when the program listens
      107,  // geteuid
      138,  // fstatfs: whether a file that was passed is memory
      157,  // prctl: names of threads
      273,  // set_robust_list
      285,  // fallocate: pages of a ring given back
      288,  // accept4
      290,  // eventfd2
      291,  // epoll_create1
      293,  // pipe2
      299,  // recvmmsg: datagrams of clients
      307,  // sendmmsg: answers to them; packets of a shared address
      334,  // rseq
    ]

  /// `tombolo run`, `host` and `boot` once they serve. AF_NETLINK tells which addresses are the machine's own.
  /// - Parameters:
  ///   - signalled: themselves, to stop, and the init or the QEMU that they have started.
  ///   - hasDevice: a guest's vsock device is in the same process.
  public static func host(signalled: [Int32] = [], hasDevice: Bool = false) -> RoleFilter {
    RoleFilter(
      calls: serving + [61] + (hasDevice ? [49] : []),  // wait4, bind
      families: [1, 2, 10, 16, 40], makesThreads: true, signalled: signalled.map { UInt32(bitPattern: $0) }, reads: true
    )
  }

  /// What is left of a host side that root has started: it takes away what the host side has made, when that ends.
  public static let caretaker = RoleFilter(
    calls: runtime + data + [
      4,  // stat
      6,  // lstat
      42,  // connect
      77,  // ftruncate
      82,  // rename
      83,  // mkdir
      84,  // rmdir
      87,  // unlink
      217,  // getdents64
      257,  // openat
      263,  // unlinkat
    ], families: [1], makesThreads: false)

  /// The same in raw mode: the link, its addresses and rules, forwarding.
  public static let linkCaretaker = RoleFilter(
    calls: caretaker.calls + [
      16,  // ioctl: TUNSETIFF
      21,  // access
      49,  // bind
      50,  // listen
      73,  // flock
      89,  // readlink
      107,  // geteuid
      267,  // readlinkat
    ], families: [1, 2, 10, 16], makesThreads: false)

  /// `tombolo vsock-device`: maps a guest's memory, accepts, connects to Unix sockets.
  public static let vsockDevice = RoleFilter(
    calls: runtime + data + [
      16,  // ioctl
      42,  // connect
      49,  // bind: which guest and port a connection is of (HybridPeerName)
      87,  // unlink: its own sockets
      288,  // accept4
      290,  // eventfd2
    ], families: [1], makesThreads: false)

  /// `tombolo status`: looks for sockets, asks them, prints.
  public static let status = RoleFilter(
    calls: runtime + data + [
      4,  // stat
      6,  // lstat
      16,  // ioctl: what kind of file standard output is
      21,  // access
      42,  // connect
      87,  // unlink: what a killed host side has left
      89,  // readlink
      102,  // getuid
      107,  // geteuid
      217,  // getdents64
      291,  // epoll_create1
      293,  // pipe2
    ], families: [1], makesThreads: false, reads: true)

  // linux/bpf_common.h, linux/seccomp.h; see ProgramFilter.
  private static let load: UInt16 = 0x20
  private static let jumpEqual: UInt16 = 0x15
  private static let jumpSet: UInt16 = 0x45
  private static let give: UInt16 = 0x06
  private static let allow = FilterInstruction(give, 0x7fff_0000)
  private static let trap = FilterInstruction(give, 0x0003_0000)
  private static let kill = FilterInstruction(give, 0x8000_0000)
  private static let unknown = FilterInstruction(give, 0x0005_0000 | 38)

  public var instructions: [FilterInstruction] {
    var code: [FilterInstruction] = [
      .init(Self.load, 4), .init(Self.jumpEqual, 0xc000_003e, 1, 0), Self.kill, .init(Self.load, 0),
    ]
    func byArgument(_ call: UInt32, _ index: UInt32, _ body: [FilterInstruction]) {
      let block = [.init(Self.load, 16 + 8 * index)] + body
      code.append(.init(Self.jumpEqual, call, 0, UInt8(truncatingIfNeeded: block.count)))
      code += block
    }
    for call in calls.sorted() { code += [.init(Self.jumpEqual, call, 0, 1), Self.allow] }
    if !families.isEmpty {
      byArgument(41, 0, families.flatMap { [.init(Self.jumpEqual, $0, 0, 1), Self.allow] } + [Self.trap])
    }
    if !deviceRequests.isEmpty {
      byArgument(16, 1, deviceRequests.flatMap { [.init(Self.jumpEqual, $0, 0, 1), Self.allow] } + [Self.trap])
    }
    // openat without O_WRONLY, O_RDWR, O_CREAT, O_TRUNC and what is of O_TMPFILE alone.
    if reads { byArgument(257, 2, [.init(Self.jumpSet, 0x400243, 0, 1), Self.trap, Self.allow]) }
    if !signalled.isEmpty {
      byArgument(62, 0, signalled.flatMap { [.init(Self.jumpEqual, $0, 0, 1), Self.allow] } + [Self.trap])
    }
    // mmap and mprotect without PROT_EXEC (4): no code but what was there from the start.
    for call in [9, 10] as [UInt32] {
      byArgument(call, 2, [.init(Self.jumpSet, 4, 0, 1), Self.trap, Self.allow])
    }
    if makesThreads {
      // CLONE_THREAD; clone3's flags are behind a pointer, and libc falls back from ENOSYS.
      byArgument(56, 0, [.init(Self.jumpSet, 0x10000, 0, 1), Self.allow, Self.trap])
      code += [.init(Self.jumpEqual, 435, 0, 1), Self.unknown]
    }
    return code + [Self.trap]
  }
}
