import Foundation
import XCTest

/// Kernels that start `tombolo-init` as their own init, in QEMU, with nothing but vsock to the outside: through the
/// product's own commands, with real programs inside.
final class MachineTests: XCTestCase {
  static let repository =
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
    .path
  /// What a machine is started with, prepared before: QEMU and kernels.
  static let assets = bash("\(repository)/rootfs/boot-assets --check").output.trimmingCharacters(in: .newlines)
  /// A root file system of Debian.
  static let debian = bash("\(repository)/Tests/boot-guests/debian-root | tail -1", timeout: 600).output
    .trimmingCharacters(in: .newlines)
  let directory = World.directory
  var tombolo: String { World.tombolo }
  var qemu: String { "--qemu \(Self.assets)/qemu/qemu-system-x86_64" }

  override class func setUp() {
    XCTAssertFalse(assets.isEmpty, "no boot assets: run rootfs/boot-assets first")
    XCTAssertFalse(debian.isEmpty, "debootstrap failed")
    World.setUp(bigFile: false)
    bash(
      """
      cd \(World.directory); mkdir -p busybox/bin && cp /bin/busybox busybox/bin/ && ln -s busybox busybox/bin/sh
      printf '[ingress]\\nports = [80]\\n' > enclave.toml
      cat > inside.sh <<'X'
      nginx
      curl -sS http://10.9.0.2:8080/file
      i=0; while [ $i -lt 2000 ]; do echo "line $i"; i=$((i+1)); done
      i=0; while [ ! -e /tmp/asked ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); grep -q asked /var/log/nginx/access.log && touch /tmp/asked; done
      exit 7
      X
      """)
  }

  override class func tearDown() { World.tearDown() }

  /// Builds a Debian image for `kernel` and boots it with `options`: egress, published port, every line, the status.
  func wholeLine(kernel: String, image options: String, boot bootOptions: String) {
    let outcome = bash(
      """
      cd \(directory); rm -rf root; cp -a \(Self.debian) root; cp inside.sh root/inside.sh
      \(tombolo) image build --rootfs root --kernel \(Self.assets)/\(kernel) --config enclave.toml \(options) -o debian.eif -- sh /inside.sh >/dev/null || exit 90
      rm -rf root
      ip netns exec \(World.host) bash -c '
        \(tombolo) boot \(qemu) --memory 2048 \(bootOptions) -p 127.0.0.1:9092:80 debian.eif > boot.out 2> boot.err & boot=$!
        for i in $(seq 400); do curl -sS -m 2 http://127.0.0.1:9092/asked >/dev/null 2>&1 && break; kill -0 $boot 2>/dev/null || break; sleep 0.2; done
        curl -sS -m 5 http://127.0.0.1:9092/ | grep -o "Welcome to nginx!" | head -1
        wait $boot; echo "status $?"'
      head -1 boot.out; grep -c '^line ' boot.out; cat boot.err >&2
      """, timeout: 240)
    XCTAssertEqual(
      outcome.output, "Welcome to nginx!\nstatus 7\ncontent-of-file\n2000\n", outcome.errors)
  }

  func testNitroEnclaveMachine() { wholeLine(kernel: "kernel-enclave/bzImage", image: "", boot: "") }

  /// Debian's own kernels have everything as modules, which init loads.
  func testDebian61OnQ35() {
    wholeLine(kernel: "kernel-6.1/vmlinuz", image: "--modules \(Self.assets)/kernel-6.1", boot: "--machine q35")
  }

  func testDebian612OnQ35() {
    wholeLine(kernel: "kernel-6.12/vmlinuz", image: "--modules \(Self.assets)/kernel-6.12", boot: "--machine q35")
  }

  /// Where a program may open AF_VSOCK it is not taken for PID 1 or its proxy, and they go on.
  func testAForgerInAMachine() {
    let outcome = bash(
      """
      cd \(directory); rm -rf root; cp -a \(Self.debian) root
      cat > root/forge.pl <<'X'
      use Socket; $| = 1;
      sub ask { my ($name, $channel, $parameters, $rest) = @_; my $s;
        socket($s, 40, SOCK_STREAM, 0) or die "socket: $!"; connect($s, pack("SSLLx4", 40, 0, 7766, 2)) or die "connect: $!";
        syswrite($s, "TMBL\\x02" . pack("Cn", $channel, length $parameters) . ("f" x 32) . $parameters . $rest);
        sysread($s, my $answer, 8); print "$name ", unpack("x5C", $answer), "\\n"; }
      my $endpoint = pack("Cna4x3", 4, 8080, inet_aton("10.9.0.2"));
      ask("session", 6, ("b" x 16) . ("t" x 64) . ("d" x 48) . "forged", "");
      ask("log", 4, "", pack("NCCnNNNNC", 21, 3, 3, 0, 0, 1, 0, 0, 0)); ask("connect", 1, $endpoint, "x"); ask("resolve", 2, "", "");
      ask("packets", 3, pack("CCnNCa4C", 0, 1, 1500, 0, 4, inet_aton("10.118.0.2"), 30) . "\\0", "");
      X
      cat > root/inside.sh <<'X'
      setpriv --reuid 65534 --regid 65534 --clear-groups perl /forge.pl
      setpriv --bounding-set -all --inh-caps -all perl /forge.pl
      curl -sS http://10.9.0.2:8080/file; exit 5
      X
      printf '[program]\\nvsock = true\\n' > forger.toml # without it there is no AF_VSOCK for a program at all
      \(tombolo) image build --rootfs root --kernel \(Self.assets)/kernel-enclave/bzImage --config forger.toml -o forger.eif -- sh /inside.sh >/dev/null || exit 90
      rm -rf root
      ip netns exec \(World.host) \(tombolo) boot \(qemu) --memory 2048 forger.eif; echo "status $?"
      """, timeout: 240)
    let refused = "session 5\nlog 5\nconnect 5\nresolve 5\npackets 5\n"
    XCTAssertEqual(outcome.output, refused + refused + "content-of-file\nstatus 5\n", outcome.errors)
    XCTAssertTrue(outcome.errors.contains("was refused; more of them are only counted"), outcome.errors)
  }

  /// What a measured image does is what its plan says, which anybody can print.
  func testAMachineDoesWhatItsPlanSays() {
    let outcome = bash(
      """
      cd \(directory); printf '[logs]\\nlevel = "debug"\\n[ingress]\\nports = [80]\\n' > plan.toml
      \(World.binaries)/tombolo-init --plan=kernel --config plan.toml -- /bin/sh -c 'exit 3' > planned
      \(tombolo) image build --rootfs busybox --kernel \(Self.assets)/kernel-enclave/bzImage --config plan.toml -o plan.eif -- /bin/sh -c 'exit 3' >/dev/null || exit 90
      ip netns exec \(World.host) \(tombolo) boot \(qemu) plan.eif 2> plan.err; echo "status $?"
      sed -n 's/.*debug: step: //p' plan.err > done; diff planned done && grep -c 'start as root: /bin/sh -c exit 3' done; cat plan.err >&2
      """, timeout: 60)
    XCTAssertEqual(outcome.output, "status 3\n1\n", outcome.errors)
  }

  // MARK: the drop-in and the measurements

  /// nitro-cli's layout, put together by cpio and a few lines of Python of this test's own: only `init` is ours.
  func testDropInForNitroCli() {
    let outcome = bash(
      """
      cd \(directory); rm -rf aws; mkdir -p aws/r0/dev aws/r1/rootfs; cp \(World.binaries)/tombolo-init aws/r0/init
      cp -a busybox/. aws/r1/rootfs/; mkdir -p aws/r1/rootfs/etc; ln -s /run/resolvconf/resolv.conf aws/r1/rootfs/etc/resolv.conf
      printf '/bin/sh\\n-c\\necho "$GREETING"; /bin/busybox wget -qO- http://10.9.0.2:8080/file; /bin/busybox cat /etc/resolv.conf; exit 7\\n' > aws/r1/cmd
      printf 'PATH=/bin\\nGREETING=hello from env\\n' > aws/r1/env
      for r in r0 r1; do (cd aws/$r && find . | cpio -o -H newc --quiet) > aws/$r.cpio; done
      python3 - \(Self.assets)/kernel-enclave/bzImage aws/r0.cpio aws/r1.cpio aws.eif <<'X'
      import struct, sys, zlib
      kernel, r0, r1 = (open(p, "rb").read() for p in sys.argv[1:4])
      line = b"reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd random.trust_cpu=on"
      parts = [(1, kernel), (2, line), (5, b"{}"), (3, r0), (3, r1)]
      offset, offsets, body = 548, [], b""
      for kind, data in parts:
          offsets.append(offset); body += struct.pack(">HHQ", kind, 0, len(data)) + data; offset += 12 + len(data)
      pad = [0] * (32 - len(parts))
      head = struct.pack(">4sHHQQHH", b".eif", 4, 0, 1 << 30, 2, 0, len(parts)) + struct.pack(">32Q", *offsets, *pad) \\
          + struct.pack(">32Q", *[len(d) for _, d in parts], *pad) + bytes(4)
      open(sys.argv[4], "wb").write(head + struct.pack(">I", zlib.crc32(body, zlib.crc32(head))) + body)
      X
      ip netns exec \(World.host) \(tombolo) boot \(qemu) aws.eif; echo "status $?"
      """, timeout: 90)
    XCTAssertEqual(
      outcome.output, "hello from env\ncontent-of-file\nnameserver 169.254.53.53\nstatus 7\n", outcome.errors)
  }

  /// What `image build` prints, what a few independent lines compute and what the machine's security module measured.
  func testMeasurementsAgree() {
    let outcome = bash(
      """
      cd \(directory); rm -rf root; cp -a \(Self.debian) root
      cat > root/pcr.pl <<'X'
      for my $i (0, 1, 2) {
        open(my $f, "+<", "/dev/nsm") or die "nsm: $!";
        my $q = "\\xa1\\x6bDescribePCR\\xa1\\x65index" . chr($i); my $a = "\\0" x 0x3000;
        my $m = pack("P", $q) . pack("Q", length $q) . pack("P", $a) . pack("Q", length $a);
        ioctl($f, 0xC0200A00, $m) or die "ioctl: $!";
        $a =~ /data\\x58\\x30(.{48})/s or die "answer"; print unpack("H*", $1), "\\n";
      }
      X
      build="\(tombolo) image build --rootfs root --kernel \(Self.assets)/kernel-enclave/bzImage --name pcr"
      $build -o pcr.eif -- perl /pcr.pl > built.json; $build -o again.eif -- perl /pcr.pl >/dev/null
      cmp pcr.eif again.eif && echo identical
      python3 -c 'import json; m = json.load(open("built.json"))["Measurements"]; [print(m["PCR%d" % i]) for i in range(3)]' > a
      python3 - > b <<'X'
      import hashlib, struct
      f = open("pcr.eif", "rb").read(); n = struct.unpack(">H", f[26:28])[0]
      offsets, sizes = struct.unpack(">32Q", f[28:284]), struct.unpack(">32Q", f[284:540])
      parts = [(struct.unpack(">H", f[o:o + 2])[0], f[o + 12:o + 12 + s]) for o, s in zip(offsets[:n], sizes[:n])]
      def pcr(data): return hashlib.sha384(bytes(48) + hashlib.sha384(data).digest()).hexdigest()
      base = b"".join(d for k, d in parts if k in (1, 2)); rams = [d for k, d in parts if k == 3]
      print(pcr(base + b"".join(rams))); print(pcr(base + rams[0])); print(pcr(b"".join(rams[1:])))
      X
      \(tombolo) boot \(qemu) --memory 2048 pcr.eif > c; rm -rf root
      cmp a b && cmp b c && wc -l < c
      printf X | dd of=pcr.eif bs=1 seek=900000 conv=notrunc 2>/dev/null; \(tombolo) image describe pcr.eif >/dev/null; echo "describe $?"
      """, timeout: 240)
    XCTAssertTrue(outcome.output.hasPrefix("identical\n3\ndescribe "), outcome.output + outcome.errors)
    XCTAssertFalse(outcome.output.hasSuffix("describe 0\n"), outcome.output)
    XCTAssertTrue(outcome.errors.lowercased().contains("crc") || outcome.errors.contains("checksum"), outcome.errors)
  }

  // MARK: what goes wrong

  /// Boots busybox with the enclave's kernel; the console is part of the output.
  func boot(_ build: String, command: String = "/bin/true", options: String = "", script: String = "") -> Outcome {
    bash(
      """
      cd \(directory); rm -rf bad; cp -a busybox bad; \(script)
      \(tombolo) image build --rootfs bad --kernel \(Self.assets)/kernel-enclave/bzImage \(build) -o bad.eif -- \(command) >/dev/null || exit 90
      \(tombolo) boot \(qemu) --console \(options) bad.eif; echo "status $?"
      """, timeout: 60)
  }

  func testAProgramThatIsNotThere() {
    let outcome = boot("", command: "/no/such")
    XCTAssertTrue(outcome.output.hasSuffix("status 127\n"), outcome.output + outcome.errors)
    XCTAssertTrue(outcome.errors.contains("/no/such: not found in the enclave"), outcome.errors)
  }

  /// Another process of the image fills /run in the moment it is there: what init writes to it, it cannot write.
  func testARunThatIsFullWhileInitBoots() {
    let own = "cp \(World.binaries)/tombolo-init bad/; mkdir bad/etc"
    bash("cc -O2 -static -o \(directory)/fill-run \(Self.repository)/Tests/boot-guests/fill-run.c")
    for (resolver, path) in [
      ("echo nameserver 192.0.2.1 > bad/etc/resolv.conf", "/run/tombolo/etc/resolv.conf"),
      ("ln -s /run/resolvconf/resolv.conf bad/etc/resolv.conf", "/run/resolvconf/resolv.conf"),
    ] {
      let outcome = boot("--init fill-run", script: "\(own); \(resolver)")
      let sentence = "write \(path): No space left on device (ENOSPC)"
      // On the console, and on the log channel, which is all that an operator of an enclave in production has.
      for line in ["tombolo-init: \(sentence)", "tombolo init: error: \(sentence)"] {
        XCTAssertTrue(outcome.errors.contains(line), outcome.output + outcome.errors)
      }
      XCTAssertTrue(outcome.output.hasSuffix("status 125\n"), outcome.output + outcome.errors)
      XCTAssertFalse(outcome.errors.contains("Kernel panic"), outcome.errors)
    }
  }

  /// While the program runs nothing of ours needs /run: the network, also of a proxy that had to be started again, every
  /// line and the exit status are as ever.
  func testAProgramThatFillsRun() {
    let outcome = bash(
      """
      cd \(directory); rm -rf bad; cp -a busybox bad; cat > bad/fill.sh <<'X'
      b=/bin/busybox
      $b dd if=/dev/zero of=/run/full bs=1M 2>/dev/null || echo full
      echo more > /run/more || echo "no room"
      for p in /proc/[0-9]*; do $b grep -qs ^tombolo-init.proxy $p/cmdline && kill -9 ${p#/proc/} && echo killed; done
      i=0; until $b wget -qO- http://10.9.0.2:8080/file; do i=$((i+1)); [ $i -lt 50 ] || break; $b sleep 0.1; done
      i=0; while [ $i -lt 2000 ]; do echo "line $i"; i=$((i+1)); done
      exit 7
      X
      \(tombolo) image build --rootfs bad --kernel \(Self.assets)/kernel-enclave/bzImage -o bad.eif -- /bin/sh /fill.sh >/dev/null || exit 90
      ip netns exec \(World.host) \(tombolo) boot \(qemu) bad.eif > full.out; echo "status $?"
      grep -v '^line ' full.out; grep -c '^line ' full.out
      """, timeout: 90)
    XCTAssertEqual(
      outcome.output, "status 7\nfull\nno room\nkilled\ncontent-of-file\n2000\n", outcome.errors)
  }

  /// An image made for `ENTRYPOINT ["/tombolo-init", …]` with tombolo-init as the machine's own init: it does what that
  /// command line asks for, and is not started a second time over its own ports.
  func testAnEntrypointThatIsInitItself() {
    let own = "mkdir bad/etc; printf 'hostname = \"other\"\\n' > bad/etc/other.toml"
    let outcome = boot(
      "", command: "/sbin/tombolo-init --config /etc/other.toml -- /bin/sh -c 'echo \"on $HOSTNAME\"; exit 4'",
      script: own)
    XCTAssertEqual(outcome.output, "on other\nstatus 4\n", outcome.errors)
    let wrong = boot("", command: "/tombolo-init --nonsense -- /bin/sh")
    XCTAssertTrue(wrong.errors.contains("tombolo-init: unknown option --nonsense"), wrong.errors)
    XCTAssertEqual(wrong.output, "status 125\n", wrong.errors)
  }

  func testStopReachesTheProgram() {
    let outcome = bash(
      """
      cd \(directory); rm -rf bad; cp -a busybox bad
      \(tombolo) image build --rootfs bad --kernel \(Self.assets)/kernel-enclave/bzImage -o stop.eif -- /bin/sh -c 'trap "echo stopping; exit 3" TERM; echo up; while :; do /bin/busybox sleep 0.1; done' >/dev/null || exit 90
      \(tombolo) boot \(qemu) stop.eif > stop.out & p=$!
      for i in $(seq 200); do grep -q up stop.out && break; sleep 0.1; done
      kill -TERM $p; wait $p; echo "status $?"; cat stop.out
      """, timeout: 60)
    XCTAssertEqual(outcome.output, "status 3\nup\nstopping\n", outcome.errors)
  }

  /// A guest that has broken out of QEMU is a user without files, rights, other programs or a way to be another user; and an
  /// image that only root may read boots all the same, from where only root may look.
  func testQEMUHasNoRightsOfOurs() {
    let outcome = bash(
      """
      cd \(directory); rm -rf bad; cp -a busybox bad; mkdir -p -m 700 closed
      \(tombolo) image build --rootfs bad --kernel \(Self.assets)/kernel-enclave/bzImage -o closed/up.eif -- /bin/sh -c 'echo up; while :; do /bin/busybox sleep 0.1; done' >/dev/null || exit 90
      chmod 600 closed/up.eif
      for machine in nitro-enclave q35; do
        \(tombolo) boot \(qemu) --machine $machine closed/up.eif > up.out & p=$!
        for i in $(seq 300); do grep -q up up.out && break; sleep 0.1; done; cat up.out
        q=$(pgrep -P $p qemu-system); uid=$(awk '/^Uid:/ {print $2}' /proc/$q/status)
        [ $uid -ge 61100 ] && [ $uid -lt 61164 ] && sed -n "s/$uid/user/g; s/[[:space:]]\\+/ /gp" /proc/$q/status | grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)'
        kill -KILL $q; wait $p; echo "status $?"
      done
      """, timeout: 60)
    let rights = """
      up
      Uid: user user user user
      Gid: user user user user
      Groups: 
      CapInh: 0000000000000000
      CapPrm: 0000000000000000
      CapEff: 0000000000000000
      CapBnd: 0000000000000000
      CapAmb: 0000000000000000
      NoNewPrivs: 1
      Seccomp: 2
      status 125

      """
    XCTAssertEqual(outcome.output, rights + rights, outcome.errors)
    XCTAssertTrue(outcome.errors.contains("was ended by signal 9"), outcome.errors)
  }

  /// Without a filter QEMU is not started, unless somebody says so.
  func testAQEMUThatCannotConfineItself() {
    let outcome = bash(
      """
      cd \(directory); printf '#!/bin/sh\ncase " $* " in *" -sandbox "*) echo "-sandbox support is not enabled in this QEMU binary" >&2; exit 1;; *) echo "q35 PC";; esac\n' > bare-qemu; chmod 755 bare-qemu
      \(tombolo) boot --qemu ./bare-qemu --kernel /bin/true --initrd /bin/true; echo "status $?"
      """, timeout: 30)
    XCTAssertEqual(outcome.output, "status 125\n", outcome.errors)
    XCTAssertEqual(
      outcome.errors,
      "tombolo: ./bare-qemu was built without libseccomp and cannot confine itself; use another, or --no-sandbox\n")
  }

  /// AF_VSOCK on both sides, in one guest whose kernel carries vsock back to itself: the daemon, and an enclave under another init in a network namespace of its own, without a way out but vsock; plain streams of forwards too.
  func testBothSidesOverTheKernelsVsock() {
    let outcome = bash(
      """
      cd \(directory); rm -rf root; cp -a \(Self.debian) root
      cp \(World.binaries)/tombolo \(World.binaries)/tombolo-init root/usr/local/bin/
      printf '[network]\\nparent_cid = 1\\nparent_port = 7700\\n[ingress]\\nports = [80]\\n[[forward]]\\nlisten = "127.0.0.2:443"\\nvsock_port = 8000\\n[[forward]]\\nvsock_listen = 5000\\nconnect = "127.0.0.1:80"\\n' > root/inner.toml
      printf '[network]\\nmode = "raw"\\n' > outer.toml; echo '\(World.everyRight)' >> outer.toml
      cat > root/outer.sh <<'X'
      tombolo host --cid 1 --port 7700 -p 127.0.0.1:9090:80 --forward 8000:10.9.0.2:8080 --forward-in 9091:5000 --dns 127.0.0.1 > /tmp/host.out 2> /tmp/host.err & host=$!
      unshare -n tombolo-init --config /inner.toml -- sh -c 'curl -sS http://10.9.0.2:8080/file; curl -sS http://127.0.0.2:443/file | tr a-z A-Z; nginx; for i in $(seq 300); do [ -e /tmp/asked ] && break; sleep 0.1; done; echo "from inside"; exit 7' & enclave=$!
      for i in $(seq 300); do curl -sS -m 2 http://127.0.0.1:9090/ 2>/dev/null | grep -o "Welcome to nginx!" | head -1 > /tmp/page; [ -s /tmp/page ] && break; sleep 0.1; done
      cat /tmp/page; curl -sS -m 10 http://127.0.0.1:9091/ | grep -o "Welcome to nginx!" | head -1; touch /tmp/asked
      wait $enclave; echo "enclave $?"
      kill $host; wait $host; echo "host $?"
      cat /tmp/host.out /tmp/host.err
      X
      \(tombolo) image build --rootfs root --kernel \(Self.assets)/kernel-enclave/bzImage --config outer.toml -o loop.eif -- sh /outer.sh >/dev/null || exit 90
      rm -rf root
      ip netns exec \(World.host) \(tombolo) boot \(qemu) --raw --memory 2048 --machine microvm --cid 77 loop.eif; echo "status $?"
      """, timeout: 180)
    let output = outcome.output
    XCTAssertTrue(
      output.hasPrefix("Welcome to nginx!\nWelcome to nginx!\nenclave 7\nhost 0\n"), output + outcome.errors)
    for line in [
      "stdout | content-of-file\n", "stdout | CONTENT-OF-FILE\n", "stdout | from inside\n",
      "the enclave's program ended with status 7\n",
    ] {
      XCTAssertTrue(output.contains(line), output + outcome.errors)
    }
    XCTAssertTrue(output.hasSuffix("\nstatus 0\n"), output + outcome.errors)
  }

  /// `tombolo host --hybrid` behind anybody's QEMU.
  func testHybridHost() {
    let outcome = bareMachine(
      "[boot]\\nheartbeat = \"never\"\\n",
      host:
        "\(tombolo) host --hybrid bare/v > bare/host.out 2>&1 & h=$!; for i in $(seq 50); do [ -S bare/v_7766 ] && break; sleep 0.1; done"
    )
    let log = bash("cat \(directory)/bare/host.out").output
    XCTAssertTrue(log.contains("the enclave's program ended with status 0"), log + outcome.output)
  }

  func testAMissingModuleAndAnEmptyCommand() {
    let outcome = bash(
      """
      cd \(directory); rm -rf mod; mkdir -p mod/lib/modules mod/rootfs mod/dev; cp \(World.binaries)/tombolo-init mod/init
      run() { (cd mod && find . | cpio -o -H newc --quiet) > mod.cpio
        \(tombolo) boot \(qemu) --machine q35 --kernel \(Self.assets)/kernel-6.1/vmlinuz --initrd mod.cpio 2>&1; echo "status $?"; }
      echo /lib/modules/nosuch.ko > mod/lib/modules/tombolo.load; run
      rm mod/lib/modules/tombolo.load; mkdir -p mod/rootfs/etc; printf '[boot]\\nheartbeat = "never"\\nat_end = "poweroff"\\n' > mod/rootfs/etc/tombolo.toml; : > mod/cmd; run
      printf '[boot\\n' > mod/rootfs/etc/tombolo.toml; run
      """, timeout: 90)
    for sentence in [
      "open /lib/modules/nosuch.ko: No such file or directory (ENOENT)", "/cmd is empty: there is no program to start",
      "/etc/tombolo.toml:1: not TOML",
    ] {
      XCTAssertTrue(outcome.output.contains("tombolo-init: " + sentence), "\(sentence): \(outcome.output)")
    }
    XCTAssertEqual(outcome.output.components(separatedBy: "status 125").count, 4, outcome.output)
    XCTAssertEqual(outcome.output.components(separatedBy: "reboot: Restarting system").count, 3, outcome.output)
    XCTAssertEqual(outcome.output.components(separatedBy: "reboot: Power down").count, 2, outcome.output)
    XCTAssertFalse(outcome.output.contains("Kernel panic"), outcome.output)
  }

  /// A Docker ENTRYPOINT, or AWS's init above us: nothing is mounted, the status is ours, orphans are reaped.
  func testUnderAnotherInit() {
    let outcome = bash(
      """
      cd \(directory); d=$(mktemp -d); chmod 755 $d; printf "[network]\\ntransport = \\"unix:$d\\"\\n[logs]\\nlevel = \\"warning\\"\\n" > child.toml
      ip netns exec \(World.host) \(tombolo) host --transport unix:$d --log-format raw > child.out 2>/dev/null & h=$!
      for i in $(seq 50); do [ -S $d/host_7766 ] && break; sleep 0.1; done
      unshare --net --mount --pid --fork --mount-proc sh -c '\(World.binaries)/tombolo-init --config child.toml -- sh -c "(sleep 0.2 & ) ; curl -sS http://10.9.0.2:8080/file; hostname > /dev/null; exit 9"; echo "init says $?"'
      sleep 0.3; kill $h; wait $h; cat child.out; rm -r $d
      """, timeout: 30)
    XCTAssertEqual(outcome.output, "init says 9\ncontent-of-file\n", outcome.errors)
  }

  /// An enclave that was killed leaves its socket behind; the next one in that directory must start all the same, and not
  /// beside one that lives.
  func testAnEnclaveAfterAKilledOne() {
    let outcome = bash(
      """
      cd \(directory); d=$(mktemp -d); chmod 755 $d; printf "[network]\\ntransport = \\"unix:$d\\"\\n[logs]\\nlevel = \\"warning\\"\\n" > killed.toml
      ip netns exec \(World.host) \(tombolo) host --transport unix:$d --log-format raw > killed.out 2>/dev/null & h=$!
      for i in $(seq 50); do [ -S $d/host_7766 ] && break; sleep 0.1; done
      inside="unshare --net --mount --pid --fork --kill-child --mount-proc \(World.binaries)/tombolo-init --config killed.toml --"
      $inside sh -c 'echo first; sleep 30' & first=$!
      for i in $(seq 100); do grep -q first killed.out && break; sleep 0.1; done
      $inside true 2>&1 | grep -o "refuses this enclave's session: denied by policy"
      kill -9 $first; wait $first 2>/dev/null; sleep 0.3; [ -S $d/enclave_7766 ] && echo "left behind"
      $inside curl -sS http://10.9.0.2:8080/file; echo "init says $?"
      sleep 0.3; kill $h; wait $h; cat killed.out; rm -r $d
      """, timeout: 40)
    XCTAssertEqual(
      outcome.output,
      "refuses this enclave's session: denied by policy\nleft behind\ninit says 0\nfirst\ncontent-of-file\n",
      outcome.errors)
  }

  /// In production nobody sees an ENTRYPOINT's standard error: why it did not start is in the host's log too.
  func testAFailedStartUnderAnotherInitIsInTheLog() {
    let outcome = bash(
      """
      cd \(directory); d=$(mktemp -d); chmod 755 $d; printf "[network]\\ntransport = \\"unix:$d\\"\\n" > child.toml
      ip netns exec \(World.host) \(tombolo) host --transport unix:$d --log-format text > child.out 2>/dev/null & h=$!
      for i in $(seq 50); do [ -S $d/host_7766 ] && break; sleep 0.1; done
      unshare --net --mount --pid --fork --mount-proc sh -c '
        ip link set lo up; python3 -c "import socket, time; s = socket.create_server((\\"127.0.0.1\\", 61001)); open(\\"taken\\", \\"w\\"); time.sleep(30)" & p=$!
        for i in $(seq 50); do [ -e taken ] && break; sleep 0.1; done
        \(World.binaries)/tombolo-init --config child.toml -- true; echo "init says $?"; kill $p'
      sleep 0.3; kill $h; wait $h; cat child.out; rm -r $d taken
      """, timeout: 30)
    let sentence = "bind 127.0.0.1:61001: Address already in use (EADDRINUSE)"
    XCTAssertTrue(outcome.output.hasPrefix("init says 125\n"), outcome.output + outcome.errors)
    XCTAssertTrue(outcome.errors.contains("tombolo-init: \(sentence)"), outcome.errors)
    XCTAssertTrue(outcome.output.contains("error: \(sentence)"), outcome.output)
  }
}
