import Testing

@testable import Seccomp

private let allow: UInt32 = 0x7fff_0000
private let trap: UInt32 = 0x0003_0000

/// What a proxy in other hands could still ask the kernel for.
struct RoleFilterTests {
  private let proxy = RoleFilter.proxy.instructions
  private let keeper = RoleFilter.keeper.instructions
  private let dnsClient = RoleFilter.dnsClient.instructions

  @Test func nothingBecomesAnotherProgram() {
    for (name, number) in [
      ("open", 2), ("stat", 4), ("rt_sigaction", 13), ("bind", 49), ("listen", 50), ("fork", 57), ("vfork", 58),
      ("execve", 59), ("kill", 62), ("rename", 82), ("unlink", 87), ("chmod", 90), ("ptrace", 101), ("setuid", 105),
      ("capset", 126), ("chroot", 161), ("mount", 165), ("tkill", 200), ("unlinkat", 263), ("unshare", 272),
      ("setns", 308), ("process_vm_writev", 311), ("seccomp", 317), ("execveat", 322), ("io_uring_setup", 425),
    ] as [(String, UInt32)] {
      #expect(run(proxy, number) == trap && run(keeper, number) == trap, "\(name)")
      #expect(run(dnsClient, number) == trap, "\(name)")
    }
    // A process is no thread; the flags of clone3 cannot be seen.
    #expect(run(proxy, 56, 0x11) == trap && run(proxy, 56, 0x3d0f00) == allow && run(proxy, 435) == 0x0005_0026)
    #expect(run(keeper, 56, 0x3d0f00) == trap && run(keeper, 435) == trap)
    // Through another ABI nothing at all.
    for number in [0, 1, 4, 11] as [UInt32] { #expect(run(proxy, number, arch: 0x4000_0003) == 0x8000_0000) }
    #expect(run(proxy, 0x4000_0000) == trap)
  }

  /// It is root's, with the right to mount: it starts nothing, makes no namespaces, speaks to nobody but by TCP and UDP.
  @Test func aVolumesProcessMountsAndNothingElse() {
    let volume = RoleFilter.volume.instructions
    for number in [165, 166, 257, 306] as [UInt32] { #expect(run(volume, number) == allow, "\(number)") }
    for number in [57, 58, 59, 62, 101, 105, 126, 155, 161, 272, 308, 311, 317, 322, 425, 429] as [UInt32] {
      #expect(run(volume, number) == trap, "\(number)")
    }
    for family in 0...50 as ClosedRange<UInt64> {
      #expect(run(volume, 41, family) == ([2, 10].contains(family) ? allow : trap), "\(family)")
    }
    #expect(run(volume, 56, 0x11) == trap && run(volume, 56, 0x3d0f00) == allow)
  }

  @Test func socketsAreOfTheFamiliesThatTheProxyUses() {
    for family in 0...50 as ClosedRange<UInt64> {
      #expect(run(proxy, 41, family) == ([1, 2, 10, 40].contains(family) ? allow : trap), "\(family)")
      #expect(run(keeper, 41, family) == trap && run(dnsClient, 41, family) == trap)
    }
  }

  @Test func theAttestationServiceAsksItsDevice() {
    let attestation = RoleFilter.attestation.instructions
    for number in [2, 42, 49, 57, 59, 62, 82, 87, 90, 101, 105, 257, 435] as [UInt32] {
      #expect(run(attestation, number) == trap, "\(number)")
    }
    #expect(run(attestation, 41, 1) == trap && run(attestation, 288) == allow)
    // It exchanges names where a document's file is wanted, and opens nothing there either.
    let withDocument = RoleFilter.attestationWithDocument.instructions
    #expect(
      run(attestation, 316) == trap && run(withDocument, 316) == allow
        && run(withDocument, 16, second: 0xc020_0a00) == allow)
    for number in [2, 41, 82, 87, 257, 264] as [UInt32] { #expect(run(withDocument, number) == trap, "\(number)") }
    // NSM_IOCTL_RAW and no other request.
    #expect(run(attestation, 16, second: 0xc020_0a00) == allow && run(attestation, 16, second: 0x5401) == trap)
  }

  /// Code comes from the file alone.
  @Test func memoryIsNotMadeExecutable() {
    for call in [9, 10] as [UInt32] {
      for protection in [0, 1, 2, 3] as [UInt64] { #expect(run(proxy, call, third: protection) == allow) }
      for protection in [4, 5, 7] as [UInt64] { #expect(run(proxy, call, third: protection) == trap) }
    }
  }

  @Test func whatTheWorkNeeds() {
    for number in [0, 1, 3, 20, 42, 44, 45, 48, 202, 228, 231, 232, 233, 288] as [UInt32] {
      #expect(run(proxy, number) == allow)
    }
    for number in [0, 1, 44, 46, 231] as [UInt32] { #expect(run(keeper, number) == allow) }
  }
}
