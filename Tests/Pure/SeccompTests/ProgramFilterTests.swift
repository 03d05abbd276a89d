import Testing

@testable import Seccomp

/// A small machine for classic BPF, as linux/filter.h defines it: what the kernel would answer.
func run(
  _ code: [FilterInstruction], _ number: UInt32, arch: UInt32 = 0xc000_003e, _ argument: UInt64 = 0,
  second: UInt64 = 0, third: UInt64 = 0
) -> UInt32 {
  var accumulator: UInt32 = 0
  var index = 0
  while index < code.count {
    let i = code[index]
    var jump = 0
    switch i.code {
    case 0x20:
      switch i.value {
      case 0: accumulator = number
      case 4: accumulator = arch
      case 16: accumulator = UInt32(truncatingIfNeeded: argument)
      case 24: accumulator = UInt32(truncatingIfNeeded: second)
      case 32: accumulator = UInt32(truncatingIfNeeded: third)
      default:
        Issue.record("a load from \(i.value)")
        return 0
      }
    case 0x15: jump = Int(accumulator == i.value ? i.jumpTrue : i.jumpFalse)
    case 0x25: jump = Int(accumulator > i.value ? i.jumpTrue : i.jumpFalse)
    case 0x35: jump = Int(accumulator >= i.value ? i.jumpTrue : i.jumpFalse)
    case 0x45: jump = Int(accumulator & i.value != 0 ? i.jumpTrue : i.jumpFalse)
    case 0x06: return i.value
    default:
      Issue.record("an instruction \(i.code)")
      return 0
    }
    index += 1 + jump
  }
  Issue.record("no answer for \(number)")
  return 0
}

private let allow: UInt32 = 0x7fff_0000
private let refuse: UInt32 = 0x0005_0001
private let unknown: UInt32 = 0x0005_0026

/// What a program may ask the kernel for; a hole here is the way out of the enclave's borders.
struct ProgramFilterTests {
  private let usual = ProgramFilter(capabilities: 0, allowsVsock: false).instructions
  private let admin = ProgramFilter(capabilities: 1 << 21, allowsVsock: false).instructions

  /// What PID 1 gives up for itself, and that what it starts loses nothing by that.
  @Test func pidOneIsNoMoreThanItsProgram() {
    let init1 = ProgramFilter(capabilities: 0, allowsVsock: false).supervisor().instructions
    for number in 0...500 as ClosedRange<UInt32> where run(usual, number) == allow {
      #expect(run(init1, number) == allow, "\(number)")
    }
    // bpf, kexec_load, kexec_file_load, modules, mount, umount2, pivot_root, unshare, setns, perf_event_open, add_key, iopl
    for number in [321, 246, 320, 175, 313, 176, 165, 166, 155, 272, 308, 298, 248, 172] as [UInt32] {
      #expect(run(init1, number) == refuse, "\(number)")
    }
    let mounting = ProgramFilter(capabilities: 0, allowsVsock: false).supervisor(mounts: true).instructions
    for number in [165, 166] as [UInt32] { #expect(run(mounting, number) == allow && run(usual, number) == refuse) }
    #expect(run(mounting, 155) == refuse && run(mounting, 272) == refuse)
    // The clock, the end, the host, the keyring of what it starts.
    for number in [164, 169, 227] as [UInt32] { #expect(run(init1, number) == allow && run(usual, number) == refuse) }
    #expect(run(init1, 41, 40) == allow && run(init1, 41, 38) == refuse)
    #expect(run(init1, 250, 1) == allow && run(init1, 250, 0) == refuse && run(usual, 250, 1) == refuse)
    #expect(run(init1, 56, 0x4100) == allow && run(init1, 56, 0x1000_0000) == refuse)
    #expect(init1.count < 4096)
  }

  @Test func callsThatPassAndThatDoNot() {
    for (name, number) in [
      ("read", 0), ("open", 2), ("ioctl", 16), ("connect", 42), ("execve", 59), ("ptrace", 101), ("openat", 257),
      ("process_vm_readv", 310), ("seccomp", 317), ("getrandom", 318), ("memfd_create", 319), ("rseq", 334),
      ("pidfd_open", 434), ("close_range", 436), ("openat2", 437), ("landlock_create_ruleset", 444), ("mseal", 462),
    ] as [(String, UInt32)] {
      #expect(run(usual, number) == allow, "\(name)")
    }
    for (name, number) in [
      ("syslog", 103), ("pivot_root", 155), ("chroot", 161), ("mount", 165), ("umount2", 166), ("swapon", 167),
      ("reboot", 169), ("sethostname", 170), ("init_module", 175), ("kexec_load", 246), ("add_key", 248),
      ("keyctl", 250), ("unshare", 272), ("perf_event_open", 298), ("open_by_handle_at", 304), ("setns", 308),
      ("finit_module", 313), ("kexec_file_load", 320), ("bpf", 321), ("userfaultfd", 323), ("io_uring_setup", 425),
      ("open_tree", 428), ("mount_setattr", 442),
    ] as [(String, UInt32)] {
      #expect(run(usual, number) == refuse, "\(name)")
    }
  }

  /// Every number has an answer, and the numbers of the holes are those of the table, no more and no fewer.
  @Test func everyNumber() {
    let table = Set(ProgramFilter.ranges.flatMap { Array($0.lowerBound...$0.upperBound) })
    for number in 0...600 as ClosedRange<UInt32> where ![41, 56, 135, 435].contains(number) {
      #expect(
        run(usual, number) == (table.contains(number) ? allow : number > ProgramFilter.last ? unknown : refuse),
        "\(number)")
    }
    // 361 of Docker's names are calls of some ABI; 304 of them are x86-64's.
    #expect(table.count == 304)
    #expect(usual.count < 300 && admin.count < 4096)
  }

  @Test func argumentsDecide() {
    for family in 0...50 as ClosedRange<UInt64> {
      #expect(run(usual, 41, family) == ([38, 40].contains(family) ? refuse : allow), "socket \(family)")
    }
    // The kernel takes an int: the upper half does not make another family of it.
    #expect(run(usual, 41, 1 << 32 | 40) == refuse)
    #expect(run(ProgramFilter(capabilities: 0, allowsVsock: true).instructions, 41, 40) == allow)
    #expect(run(ProgramFilter(capabilities: 0, allowsVsock: true).instructions, 41, 38) == refuse)
    // What fork and pthread_create ask for; then each namespace.
    for flags in [0x11, 0x3d0f00, 0x1200011] as [UInt64] { #expect(run(usual, 56, flags) == allow) }
    for bit in [17, 25, 26, 27, 28, 29, 30] as [UInt64] {
      #expect(run(usual, 56, 1 << bit | 0x11) == refuse, "clone bit \(bit)")
      #expect(run(admin, 56, 1 << bit | 0x11) == allow)
    }
    #expect(run(usual, 435) == unknown && run(admin, 435) == allow)
    for value in [0, 8, 0x20000, 0x20008, 0xffff_ffff] as [UInt64] { #expect(run(usual, 135, value) == allow) }
    for value in [0x40000, 1, 0x400000] as [UInt64] { #expect(run(usual, 135, value) == refuse) }
  }

  /// Through the 32-bit table the same numbers are other calls.
  @Test func otherABIs() {
    for number in [0, 1, 11, 102, 359] as [UInt32] {
      #expect(run(usual, number, arch: 0x4000_0003) == unknown)
      #expect(run(usual, 0x4000_0000 | number) == unknown)
    }
  }

  @Test func capabilitiesBringTheirCalls() {
    for entry in ProgramFilter.conditional {
      let code = ProgramFilter(capabilities: 1 << entry.capability, allowsVsock: false).instructions
      for call in entry.calls {
        #expect(run(usual, call) == refuse && run(code, call) == allow, "\(call)")
      }
    }
    let all = ProgramFilter(capabilities: .max, allowsVsock: true).instructions
    // Nobody: kexec, keys, swap, io_uring, userfaultfd.
    for number in [246, 248, 249, 250, 320, 323, 167, 168, 425, 426, 427, 155] as [UInt32] {
      #expect(run(all, number) == refuse, "\(number)")
    }
    #expect(all.count < 4096)
  }
}
