import Foundation
import XCTest

// Volumes of machines: the kernel's own NFS client through Tombolo's network, on an unmodified nfs-ganesha.
extension MachineTests {
  /// A server that is away at the start holds up the program that needs it, and not the one mount that may be missing; bytes
  /// are the same on both sides, also where the host's daemon and then the server are killed while it writes and while it
  /// reads; and the end comes in order while something still writes. By name and with a policy that names nothing else.
  /// `TOMBOLO_VOLUME_MIB=1024` has it do the same with a gibibyte, which takes minutes.
  func testAVolumeThroughRestartsOfHostAndServer() { throughRestarts(mode: "tcp") }

  /// The same kernel client as packets.
  func testAVolumeInRawModeThroughRestartsOfHostAndServer() { throughRestarts(mode: "raw") }

  private func throughRestarts(mode: String) {
    let size = ProcessInfo.processInfo.environment["TOMBOLO_VOLUME_MIB"].flatMap(Int.init) ?? 16
    let outcome = bash(
      """
      \(Self.repository)/Tests/boot-guests/volume \(mode) \(size) \(directory) \(World.host) \(World.server) \(tombolo) \(Self.assets)
      """, timeout: TimeInterval(180 + 2 * size))
    XCTAssertEqual(
      outcome.output,
      """
      0
      qemu 0
      the same outside
      flooded
      /data nfs4 rw,nosuid,nodev,relatime,vers=4.2
      /other is not mounted yet
      given
      mounted web.test:/vol on /data
      read-only
      the same bytes
      unmounted /data

      """, outcome.errors)
  }

  /// A server that is away for good does not hold up the end, in raw mode either: what is lost is said.
  func testAVolumeInRawModeAndAServerThatIsGoneAtTheEnd() {
    let outcome = bash(
      """
      cd \(directory); H="ip netns exec \(World.host)"; export="$PWD/nfs/export"; rm -rf nfs; mkdir -p nfs
      serve() { ganesha=$(\(Self.repository)/Tests/boot-guests/ganesha \(World.server) $PWD/nfs); }
      stop() { kill -9 $ganesha 2>/dev/null; while kill -0 $ganesha 2>/dev/null; do sleep 0.1; done; }
      trap 'stop; kill $(jobs -p) 2>/dev/null' EXIT; ganesha=99999999
      reached() { for i in $(seq 600); do [ "$(cat "$export/progress" 2>/dev/null || echo 0)" -ge $1 ] 2>/dev/null && return; sleep 0.1; done; echo "never $1"; }
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
      serve; $H \(tombolo) boot \(qemu) --memory 1024 --raw nfs/x.eif > nfs/out 2> nfs/err & boot=$!
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
