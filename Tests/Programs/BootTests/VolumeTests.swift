import Foundation
import XCTest

// Volumes of machines: the kernel's own NFS client through Tombolo's network, on an unmodified nfs-ganesha.
extension MachineTests {
  /// What the volume's tests share: `serve` starts the server, `reached FILE WHAT N` waits until a number in a file is so
  /// high, `said FILE TEXT` until a log has a line.
  private var volumeWorld: String {
    """
    cd \(directory); H="ip netns exec \(World.host)"; export="$PWD/nfs/export"; rm -rf nfs; mkdir -p nfs
    serve() { ganesha=$(\(Self.repository)/Tests/boot-guests/ganesha \(World.server) $PWD/nfs); }
    stop() { kill -9 $ganesha 2>/dev/null; while kill -0 $ganesha 2>/dev/null; do sleep 0.1; done; }
    trap 'stop; kill ${others[@]} 2>/dev/null' EXIT; others=(); ganesha=99999999
    reached() { for i in $(seq 600); do [ "$(cat "$export/progress" 2>/dev/null || echo 0)" -ge $1 ] 2>/dev/null && return; sleep 0.1; done; echo "never $1"; }
    said() { for i in $(seq 600); do grep -q "$2" $1 && return; sleep 0.1; done; echo "never said: $2"; }
    """
  }

  /// A server that is away at the start holds up the program that needs it, and not the one mount that may be missing; bytes
  /// are the same on both sides, also where the host's daemon and then the server are killed in the middle; and the end
  /// comes in order while something still writes. By name and with a policy that names nothing else.
  func testAVolumeThroughRestartsOfHostAndServer() {
    let outcome = bash(
      """
      \(volumeWorld)
      cat > nfs/c.toml <<'X'
      [boot]
      heartbeat = "never"
      [egress]
      allow = ["web.test:2049"]
      [[mount]]
      type = "nfs"
      source = "web.test:/vol"
      target = "/data"
      [[mount]]
      type = "bind"
      source = "/data/given"
      target = "/given"
      options = ["ro"]
      [[mount]]
      type = "nfs"
      source = "web.test:/vol"
      target = "/other"
      options = ["port=2050"]
      required = false
      X
      cat > busybox/volume.sh <<'X'
      /bin/busybox --install -s /bin; cd /data || exit 80
      cat /given/word; echo x 2>/dev/null > /given/word || echo read-only
      head -c 33554432 /dev/urandom > /tmp/x; cp /tmp/x x; sync; echo 3 > /proc/sys/vm/drop_caches
      [ "$(sha256sum < /tmp/x)" = "$(sha256sum < x)" ] && echo the same bytes
      i=0; while [ $i -lt 60 ]; do
        dd if=/tmp/x of=stream bs=262144 skip=$i seek=$i count=1 conv=notrunc,fsync 2>/dev/null || echo "write $i failed"
        i=$((i+1)); echo $i > progress; sleep 0.1; done
      echo 3 > /proc/sys/vm/drop_caches
      [ "$(head -c 15728640 /tmp/x | sha256sum)" = "$(sha256sum < stream)" ] && echo the same stream
      grep -o '/data nfs4 rw,nosuid,nodev,[^,]*,vers=4.2' /proc/mounts
      (while :; do cat /tmp/x; done > flood) & sleep 1; exit 7
      X
      \(tombolo) image build --rootfs busybox --kernel \(Self.assets)/kernel-enclave/bzImage --config nfs/c.toml -o nfs/x.cpio -- /bin/sh /volume.sh >/dev/null || exit 90
      \(tombolo) vsock-device --once --socket nfs/dev --cid 5 --uds nfs/v & others+=($!)
      host() { $H \(tombolo) host --hybrid nfs/v --dns 10.9.0.2 >> nfs/host.out 2>&1 & host=$!; others+=($host); }
      host; for i in $(seq 100); do [ -S nfs/dev ] && [ -S nfs/v_7766 ] && break; sleep 0.1; done
      \(Self.assets)/qemu/qemu-system-x86_64 -L \(Self.assets)/qemu/share -nodefaults -no-user-config -display none -no-reboot \
        -serial file:nfs/console -accel tcg -cpu max -m 1024M -chardev socket,id=c,path=nfs/dev \
        -object memory-backend-memfd,id=m,size=1024M,share=on \
        -M microvm,memory-backend=m,acpi=off,auto-kernel-cmdline=on,pit=on,pic=on,rtc=on -device vhost-user-vsock-device,chardev=c \
        -kernel \(Self.assets)/kernel-enclave/bzImage -initrd nfs/x.cpio -append 'console=ttyS0 quiet reboot=t panic=-1' & qemu=$!; others+=($qemu)
      said nfs/host.out '/data is not mounted yet: the server 10.9.0.2:2049: Connection refused'
      grep -c 'started /bin/sh' nfs/host.out
      mkdir -p $export/given; echo given > $export/given/word; serve
      reached 10; kill -9 $host; sleep 1; host
      reached 30; stop; serve
      wait $qemu; echo "qemu $?"; said nfs/host.out 'ended with status 7'
      sha256sum < $export/stream | cut -c1-10 > /dev/null; [ -s $export/flood ] && echo flooded
      grep -oE 'given$|read-only$|the same bytes$|the same stream$|/data nfs4 .*|write .* failed|(un)?mounted (web.test:/vol on )?/data$|policy.*other|/other is not mounted yet' nfs/host.out | sort -u
      cat nfs/host.out nfs/console >&2
      """, timeout: 150)
    XCTAssertEqual(
      outcome.output,
      """
      0
      qemu 0
      flooded
      /data nfs4 rw,nosuid,nodev,relatime,vers=4.2
      /other is not mounted yet
      given
      mounted web.test:/vol on /data
      read-only
      the same bytes
      the same stream
      unmounted /data

      """, outcome.errors)
  }

  /// The same kernel client as packets; and a server that is away for good does not hold up the end: what is lost is said.
  func testAVolumeInRawModeAndAServerThatIsGoneAtTheEnd() {
    let outcome = bash(
      """
      \(volumeWorld)
      cat > nfs/c.toml <<'X'
      [program]
      stop_timeout = "1s"
      [network]
      mode = "raw"
      [[mount]]
      type = "nfs"
      source = "10.9.0.2:/vol"
      target = "/data"
      options = ["vers=4.1"]
      unmount_timeout = "2s"
      X
      cat > busybox/volume.sh <<'X'
      /bin/busybox --install -s /bin; cd /data || exit 80
      head -c 16777216 /dev/urandom > /tmp/x; cp /tmp/x x; sync; echo 3 > /proc/sys/vm/drop_caches
      [ "$(sha256sum < /tmp/x)" = "$(sha256sum < x)" ] && echo the same bytes
      grep -o '/data nfs4 rw,nosuid,nodev,[^,]*,vers=4.1' /proc/mounts
      sha256sum < x | cut -c1-64 > sum; echo 1 > progress
      while :; do cat /tmp/x; done > flood
      X
      \(tombolo) image build --rootfs busybox --kernel \(Self.assets)/kernel-enclave/bzImage --config nfs/c.toml -o nfs/x.eif -- /bin/sh /volume.sh >/dev/null || exit 90
      serve; $H \(tombolo) boot \(qemu) --memory 1024 --raw nfs/x.eif > nfs/out 2> nfs/err & boot=$!; others+=($boot)
      reached 1; [ "$(cat $export/sum)" = "$(sha256sum < $export/x | cut -c1-64)" ] && echo the same outside
      sleep 1; stop; kill $boot; start=$SECONDS; wait $boot; case $? in 137 | 143) echo stopped;; esac; [ $((SECONDS - start)) -lt 45 ] && echo in time
      cat nfs/out; grep -oE '10.9.0.2:/vol has not taken what was written to /data within 2000 ms' nfs/err; cat nfs/err >&2
      """, timeout: 120)
    XCTAssertEqual(
      outcome.output,
      """
      the same outside
      stopped
      in time
      the same bytes
      /data nfs4 rw,nosuid,nodev,relatime,vers=4.1
      10.9.0.2:/vol has not taken what was written to /data within 2000 ms

      """, outcome.errors)
  }
}
