import Foundation
import XCTest

/// What a process in other hands can do to a machine of its own, from inside, and what `tombolo boot` can do outside.
final class MachineRightsTests: XCTestCase {
  let directory = World.directory
  var tombolo: String { World.tombolo }
  var qemu: String { "--qemu \(MachineTests.assets)/qemu/qemu-system-x86_64" }

  override class func setUp() {
    XCTAssertFalse(MachineTests.assets.isEmpty, "no boot assets: run rootfs/boot-assets first")
    XCTAssertFalse(MachineTests.debian.isEmpty, "debootstrap failed")
    World.setUp(bigFile: false)
    bash(
      """
      \(SystemCallInjection.setUp)
      cd \(World.directory); mkdir -p busybox/bin && cp /bin/busybox busybox/bin/ && ln -s busybox busybox/bin/sh
      """)
  }

  override class func tearDown() { World.tearDown() }

  /// Root of an enclave loads no module and no other kernel any more, and nobody looks into the processes of others.
  func testModulesKernelsAndProcessesAreLocked() {
    let outcome = bash(
      """
      cd \(directory); rm -rf root; cp -a \(MachineTests.debian) root
      cat > root/inside.sh <<'X'
      cd /proc/sys/kernel; cat modules_disabled kexec_load_disabled yama/ptrace_scope
      for f in modules_disabled kexec_load_disabled; do echo 0 2> /dev/null > $f && echo "$f was written"; cat $f; done
      setpriv --reuid 1000 --regid 1000 --clear-groups sleep 100 & other=$!
      proxy=$(grep -l tombolo-proxy /proc/[0-9]*/comm | cut -d/ -f3); [ -n "$proxy" ] || echo "no proxy"
      for i in 1 2 3 4 5 6 7 8 9; do grep -q '^Uid:.1000' /proc/$other/status && break; sleep 0.1; done
      cat > /try.pl <<'Y'
      # EPERM is 1. x86-64 numbers: init_module, finit_module, kexec_load, kexec_file_load; PTRACE_ATTACH, PTRACE_SEIZE.
      sub try { my ($name, $number, @words) = @_; print "$name ", (syscall($number, @words) < 0 ? $! + 0 : "done"), "\\n"; }
      my $text = "";
      try("init_module", 175, $text, 0, $text); try("finit_module", 313, 0, $text, 0);
      try("kexec_load", 246, 0, 0, 0, 0); try("kexec_file_load", 320, 0, 0, 0, 0, 0);
      for (@ARGV) { try("attach", 101, 16, $_ + 0, 0, 0); try("seize", 101, 0x4206, $_ + 0, 0, 0);
        print "memory ", (open(my $f, "<", "/proc/$_/mem") ? "opened" : "closed"), "\\n"; }
      Y
      perl /try.pl 1 $proxy $other
      echo "as another user"; setpriv --reuid 65534 --regid 65534 --clear-groups perl /try.pl 1 $proxy $$ $other
      kill $other
      X
      \(tombolo) image build --rootfs root --kernel \(MachineTests.assets)/kernel-6.1/vmlinuz --modules \(MachineTests.assets)/kernel-6.1 -o locked.eif -- sh /inside.sh >/dev/null || exit 90
      rm -rf root
      \(tombolo) boot \(qemu) --machine q35 --memory 2048 locked.eif; echo "status $?"
      """, timeout: 120)
    let kernel = "init_module 1\nfinit_module 1\nkexec_load 1\nkexec_file_load 1\n"
    let process = "attach 1\nseize 1\nmemory closed\n"
    XCTAssertEqual(
      outcome.output,
      "1\n1\n1\n1\n1\n" + kernel + String(repeating: process, count: 3) + "as another user\n" + kernel
        + String(repeating: process, count: 4) + "status 0\n", outcome.errors)
  }

  /// What fills the memory ends, and before it the proxy, which comes back; never PID 1, whose end is the machine's, nor the
  /// program that it has started.
  func testAFloodOfMemoryEndsNeitherPIDOneNorTheProgram() {
    let outcome = bash(
      """
      cd \(directory); rm -rf flood; cp -a busybox flood
      cat > flood/inside.sh <<'X'
      /bin/busybox awk 'BEGIN { while (1) a[i++] = sprintf("%4000s", "") }'; echo "flood $?"
      i=0; while [ $i -lt 100 ]; do /bin/busybox wget -q -O - http://10.9.0.2:8080/file && break; /bin/busybox sleep 0.1; i=$((i+1)); done
      /bin/busybox cat /proc/1/comm; exit 7
      X
      \(tombolo) image build --rootfs flood --kernel \(MachineTests.assets)/kernel-enclave/bzImage -o flood.eif -- /bin/sh /inside.sh >/dev/null || exit 90
      ip netns exec \(World.host) \(tombolo) boot \(qemu) --console --memory 192 flood.eif 2> flood.err; echo "status $?"
      grep -o 'Out of memory: Killed process [0-9]* ([^)]*)' flood.err | grep -o '([^)]*)' | sort -u
      grep -c 'the proxy was ended by signal 9; starting it again' flood.err | sed 's/^[1-9][0-9]*$/came back/'
      """, timeout: 90)
    XCTAssertEqual(
      outcome.output, "flood 137\ncontent-of-file\ntombolo-init\nstatus 7\n(busybox)\n(tombolo-proxy)\ncame back\n",
      outcome.errors + bash("tail -c 3000 \(directory)/flood.err").output)
  }

  /// With it end QEMU and the caretaker, and the next start takes away what was left.
  func testAForbiddenCallEndsABoot() {
    let outcome = bash(
      """
      cd \(directory); mkdir -p t; rm -rf up; cp -a busybox up
      \(tombolo) image build --rootfs up --kernel \(MachineTests.assets)/kernel-enclave/bzImage -o up.eif -- /bin/sh -c 'echo up; while :; do /bin/busybox sleep 0.1; done' >/dev/null || exit 90
      \(tombolo) image build --rootfs up --kernel \(MachineTests.assets)/kernel-enclave/bzImage -o end.eif -- /bin/sh -c 'exit 5' >/dev/null || exit 90
      rights() { sed -n 's/[[:space:]]\\+/ /gp' /proc/$1/status | grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' | sed 's/ $//' | tr '\\n' ' '; echo; }
      gone() { for n in $(seq 200); do grep -qs '^State:.[^Z]' /proc/$1/status || return; sleep 0.05; done; echo "$1 is still there"; }
      TMPDIR=$PWD/t \(tombolo) boot \(qemu) up.eif > up.out 2> up.err & p=$!
      for i in $(seq 300); do grep -q up up.out && break; sleep 0.1; done
      q=$(pgrep -P $p qemu-system); c=$(pgrep -P $p tombolo-care); rights $p; rights $c
      \(World.python) inject.py $p 59; wait $p; echo "status $?"; grep "a system call" up.err; gone $q; gone $c
      TMPDIR=$PWD/t \(tombolo) boot \(qemu) end.eif; echo "status $?"; ls t | wc -l
      """, timeout: 90)
    XCTAssertEqual(
      outcome.output,
      "Uid: 61043 61043 61043 61043 CapEff: 0000000000000020 NoNewPrivs: 1 Seccomp: 2 \n"
        + "Uid: 0 0 0 0 CapEff: 000000000000000a NoNewPrivs: 1 Seccomp: 2 \nstatus 159\n"
        + "a system call that this process must not make: execve (59)\nstatus 5\n0\n", outcome.errors)
  }
}
