import Foundation
import XCTest

/// What a program in a local enclave may not do, as root and with the machine's own tools: `tombolo run` is a border.
final class ProgramRightsTests: XCTestCase {
  override class func setUp() { World.setUp(bigFile: false) }
  override class func tearDown() { World.tearDown() }

  /// Docker's own sets, line by line (`docker run --rm debian grep -E 'Cap|NoNew|Seccomp' /proc/self/status`, but for CAP_MKNOD).
  func testTheRightsOfAContainer() {
    let outcome = bash(
      "\(World.run) -- grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; \(World.run) -u nobody -- grep -E '^Cap(Eff|Bnd)' /proc/self/status"
    )
    XCTAssertEqual(
      outcome.output,
      """
      CapInh:\t0000000000000000
      CapPrm:\t00000000a00425fb
      CapEff:\t00000000a00425fb
      CapBnd:\t00000000a00425fb
      CapAmb:\t0000000000000000
      NoNewPrivs:\t1
      Seccomp:\t2
      CapEff:\t0000000000000000
      CapBnd:\t00000000a00425fb

      """, outcome.errors)
  }

  /// Each of these was a way out, or into the machine. The values written are those that stand there already.
  func testWaysOutAreShut() {
    let outcome = bash(
      """
      cat > \(World.directory)/out.py <<'X'
      import ctypes, fcntl, os, socket, struct, subprocess, sys, termios
      libc = ctypes.CDLL(None, use_errno=True)
      def call(name, f):
          ctypes.set_errno(0)
          try: r = f()
          except OSError as e: return print(name, e.strerror)
          print(name, os.strerror(ctypes.get_errno()) if r == -1 else "possible")
      def raw(number, *a): return lambda: libc.syscall(number, *a)
      def keep(path):
          def f():
              try: value = open(path).read()
              except OSError: value = ""
              with open(path, "w") as w: w.write(value)
          return f
      here = ctypes.create_string_buffer(8); iov = (ctypes.c_size_t * 2)(ctypes.addressof(here), 8)
      call("mknod", lambda: os.mknod("/tmp/sda", 0o60600, os.makedev(8, 0)))
      call("mount", raw(165, b"none", b"/mnt", b"tmpfs", 0, 0)); call("umount", raw(166, b"/proc", 0))
      call("unshare", raw(272, 0x10000000)); call("setns", raw(308, 0, 0)); call("clone", raw(56, 0x10000011, 0, 0, 0, 0))
      call("bpf", raw(321, 0, 0, 0)); call("keyctl", raw(250, 0, -3, 0)); call("io_uring", raw(425, 1, 0))
      call("perf_event_open", raw(298, 0, 0, -1, -1, 0)); call("userfaultfd", raw(323, 0)); call("kexec", raw(246, 0, 0, 0, 0))
      call("init_module", raw(175, 0, 0, b"")); call("pivot_root", raw(155, b"/", b"/")); call("reboot", raw(169, 0, 0, 0))
      call("a disk", raw(165, b"/dev/vda", b"/mnt", b"ext4", 0, 0)); call("fsopen", raw(430, b"ext4", 0)); call("open_tree", raw(428, -100, b"/", 1))
      call("add_key", raw(248, b"user", b"x", b"y", 1, -3)); call("request_key", raw(249, b"user", b"x", 0, -3)); call("acct", raw(163, b"/tmp/x"))
      call("open_by_handle_at", raw(304, 0, 0, 0)); call("settimeofday", raw(164, 0, 0)); call("swapon", raw(167, b"/tmp/x", 0)); call("iopl", raw(172, 3))
      call("syslog", raw(103, 3, 0, 0)); call("quotactl", raw(179, 0x800002, 0, 0, 0)); call("personality", raw(135, 0x0400000))
      call("TIOCSTI", lambda: fcntl.ioctl(os.open("/dev/ptmx", os.O_RDWR), termios.TIOCSTI, b"x") and None)
      call("vsock", lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)); call("alg", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
      call("core_pattern", keep("/proc/sys/kernel/core_pattern")); call("sysrq", lambda: open("/proc/sysrq-trigger", "w").close())
      call("swappiness", keep("/proc/sys/vm/swappiness")); call("kcore", lambda: os.pread(os.open("/proc/kcore", os.O_RDONLY), 1, 0) and None)
      for pid, name in [(1, "init"), (2, "proxy")]:
          call("ptrace " + name, raw(101, 16, pid, 0, 0)); call("memory of " + name, lambda: open(f"/proc/{pid}/mem", "rb").close())
          call("process_vm_readv " + name, lambda: libc.process_vm_readv(pid, iov, 1, iov, 1, 0)); call("files of " + name, lambda: os.stat(f"/proc/{pid}/fd/2") and None)
      call("int 0x80's getpid", raw(0x40000000 | 39))
      X
      \(World.run) -- /usr/bin/python3 \(World.directory)/out.py
      """)
    let eperm = "Operation not permitted"
    let expected = [
      "mknod": [eperm], "vsock": [eperm], "alg": [eperm], "kcore": ["No such file or directory"],
      "core_pattern": ["Read-only file system"], "swappiness": ["Read-only file system"],
      "sysrq": ["Read-only file system", "No such file or directory"],
      "int 0x80's getpid": ["Function not implemented"],
      "memory of init": ["Permission denied"], "memory of proxy": ["Permission denied"],
      "files of init": ["Permission denied"], "files of proxy": ["Permission denied"],
      // Typed into a terminal that is not the program's own.
      "TIOCSTI": [eperm, "Input/output error"],
    ]
    let lines = outcome.output.split(separator: "\n").map(String.init)
    XCTAssertEqual(lines.count, 44, outcome.output + outcome.errors)
    for line in lines {
      if let (name, answers) = expected.first(where: { line.hasPrefix($0.key + " ") }) {
        XCTAssertTrue(answers.contains(String(line.dropFirst(name.utf8.count + 1))), line)
      } else {
        XCTAssertTrue(line.hasSuffix(eperm), line)
      }
    }
  }

  /// With `-i` the program has the operator's terminal as its standard input: it must not type into it (CVE-2017-5226's way).
  func testTheOperatorsTerminalIsNotTypedInto() {
    let outcome = bash(
      """
      cat > \(World.directory)/tiocsti.py <<'X'
      import fcntl, termios
      try: fcntl.ioctl(0, termios.TIOCSTI, b"x"); print("typed")
      except OSError as e: print("refused", e.errno in (1, 5, 25))
      X
      ip netns exec \(World.host) script -qec '\(World.tombolo) run -i -- /usr/bin/python3 \(World.directory)/tiocsti.py' /dev/null < /dev/null
      """)
    XCTAssertEqual(outcome.output.replacingOccurrences(of: "\r", with: ""), "refused True\n", outcome.errors)
  }

  /// Who means it says it, and gets just that.
  func testKeysThatGiveMore() {
    let outcome = bash(
      """
      cd \(World.directory)
      printf '[program]\\ncapabilities = ["NET_ADMIN", "SYS_ADMIN"]\\nnew_privileges = true\\nvsock = true\\nlimits = { nofile = "100:200", core = "0" }\\n' > more.toml
      \(World.run) --config more.toml -- sh -c '
        grep -E "^(CapEff|NoNew)" /proc/self/status; ulimit -n; ulimit -Hn; ulimit -c; ip link set lo mtu 60000 && echo link
        mount -t tmpfs none /mnt && echo mounted; /usr/bin/python3 -c "import socket; socket.socket(socket.AF_VSOCK); print(1)"'
      printf '[program]\\nseccomp = "none"\\nread_only_root = true\\n' > none.toml
      \(World.run) --config none.toml -- sh -c 'grep ^Seccomp: /proc/self/status; touch /etc/x 2>&1 | grep -o "Read-only file system"; touch /tmp/x /run/x /dev/shm/x && echo written'
      printf '[program]\\nnew_privileges = true\\nuser = "nobody"\\n' > setuid.toml
      for c in setuid.toml /dev/null; do \(World.run) -u nobody --config $c -- su root -s /bin/sh -c 'id -u' < /dev/null 2>&1 | tail -1 | grep -o 'assword\\|uthenti[a-z]*\\|ermission\\|nitgroups\\|0' | head -1; done
      """)
    let lines = outcome.output.split(separator: "\n").map(String.init)
    XCTAssertEqual(
      Array(lines.prefix(11)),
      [
        "CapEff:\t0000000000201000", "NoNewPrivs:\t0", "100", "200", "0", "link", "mounted", "1", "Seccomp:\t0",
        "Read-only file system", "written",
      ], outcome.output + outcome.errors)
  }

  /// Programs that people run, with no key at all: what containers' programs do works as it does there.
  func testUsualProgramsNeedNoKeys() {
    let outcome = bash(
      """
      \(World.run) -- sh -c '
        apt-get --version >/dev/null && echo apt; su nobody -s /bin/sh -c "id -un"; chroot / true && echo chroot; ping -c 1 -W 2 127.0.0.1 >/dev/null && echo ping
        chown nobody /tmp && echo chown; git --version >/dev/null; perl -e "fork or exit; wait" && echo fork; node -e "new (require(\\"worker_threads\\").Worker)(\\"1\\", {eval: true}).on(\\"exit\\", c => console.log(\\"threads\\", c))"'
      """)
    XCTAssertEqual(outcome.output, "apt\nnobody\nchroot\nping\nchown\nfork\nthreads 0\n", outcome.errors)
  }
}
