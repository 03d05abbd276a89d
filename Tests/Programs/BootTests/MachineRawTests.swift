import Foundation
import XCTest

// Raw mode under kernels that start `tombolo-init` themselves.
extension MachineTests {
  /// Whole packets over vsock on a kernel like Nitro's own: no nf_tables, no nfnetlink. What TCP mode cannot do is what this
  /// shows, with addresses that the host gives: ICMP, UDP, refusals and time-outs as they are, and the client's own address in nginx's log.
  func testRawModeOnTheEnclaveKernel() {
    let outcome = bash(
      """
      cd \(directory); rm -rf root; cp -a \(Self.debian) root; cp /bin/busybox root/bin/busybox
      printf '[network]\\nmode = "raw"\\naddress = "host"\\naddress6 = "host"\\nqueues = 2\\n[ingress]\\nports = [80]\\n' > raw.toml
      cat > root/inside.sh <<'X'
      echo "$(ls /proc/net/netfilter 2>/dev/null | grep -c nfnetlink) nfnetlink"
      nginx
      curl -sS http://10.9.0.2:8080/file; curl -gsS http://[fd09::2]:8080/file; curl -sS http://web.test:8080/file
      busybox ping -c 3 -q 10.9.0.2 | grep -o '[0-9]* packets received'; busybox ping -6 -c 3 -q fd09::2 | grep -o '[0-9]* packets received'
      curl -s -m 10 http://10.9.0.2:9/; echo "refused $?"
      curl -s http://10.9.0.2:8080/big8 | sha256sum | cut -d' ' -f1
      i=0; while [ $i -lt 300 ] && ! grep -q asked6 /var/log/nginx/access.log; do busybox sleep 0.1; i=$((i+1)); done
      cut -d' ' -f1 /var/log/nginx/access.log | sort -u
      exit 7
      X
      head -c 8388608 /dev/urandom > www/big8; chmod a+r www/big8; sum=$(sha256sum www/big8 | cut -d' ' -f1)
      \(tombolo) image build --rootfs root --kernel \(Self.assets)/kernel-enclave/bzImage --config raw.toml -o raw.eif -- sh /inside.sh >/dev/null || exit 90
      rm -rf root; H="ip netns exec \(World.host)"; S="ip netns exec \(World.server)"
      $H nft list ruleset > before; $H ip -br link >> before; $H sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding >> before
      $H \(tombolo) boot \(qemu) --memory 2048 --raw --dns 10.9.0.2 -p 9092:80 -p [::]:9092:80 raw.eif > raw.out 2> raw.err & boot=$!
      for i in $(seq 400); do $S curl -sS -m 2 http://10.9.0.1:9092/asked >/dev/null 2>&1 && break; kill -0 $boot 2>/dev/null || break; sleep 0.2; done
      $S curl -gsS -m 5 http://[fd09::1]:9092/asked6 | grep -o "404 Not Found" | head -1
      \(tombolo) status raw | grep -c '  queue'
      wait $boot; echo "status $?"; sed "s/$sum/the same bytes/" raw.out
      $H nft list ruleset > after; $H ip -br link >> after; $H sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding >> after
      cmp before after && echo as before; grep -c 'is given 10.118.0.2/30, fd74:6f6d:626f::2/64' raw.err; cat raw.err >&2
      """, timeout: 240)
    XCTAssertEqual(
      outcome.output,
      """
      404 Not Found
      2
      status 7
      0 nfnetlink
      content-of-file
      content-of-file
      content-of-file
      3 packets received
      3 packets received
      refused 7
      the same bytes
      10.9.0.2
      fd09::2
      as before
      1

      """, outcome.errors)
  }

  /// Rules by name for packets in a machine: of the address that a name has, only what the rule allows can be reached, and only
  /// once it was asked for; nobody else's answer counts.
  func testNamesInAMachine() {
    let outcome = bash(
      """
      cd \(directory); rm -rf root; cp -a \(Self.debian) root; cp /bin/busybox root/bin/busybox
      cat > names.toml <<'X'
      [network]
      mode = "raw"
      address = "host"
      address6 = "host"
      [egress]
      default = "deny"
      allow = ["web.test:8080"]
      sni = "check"
      X
      cat > root/inside.sh <<'X'
      fetch() { curl -sS -m 20 "$@" 2>/dev/null || echo "curl $?"; }
      fetch http://10.9.0.2:8080/file
      fetch -4 http://web.test:8080/file; fetch -6 http://web.test:8080/file; fetch http://10.9.0.2:8080/file
      fetch http://web.test:8081/; fetch http://big.test:8080/
      busybox nslookup big.test 10.9.0.2 2>&1 | grep -o REFUSED | head -1; busybox nslookup web.test 8.8.8.8 2>/dev/null | grep -o '10.9.0.2$'
      busybox ping -c 1 -W 5 10.9.0.2 >/dev/null 2>&1 || echo "no ping"
      exit 7
      X
      \(tombolo) image build --rootfs root --kernel \(Self.assets)/kernel-enclave/bzImage --config names.toml -o names.eif -- sh /inside.sh >/dev/null || exit 90
      rm -rf root
      ip netns exec \(World.host) \(tombolo) boot \(qemu) --memory 2048 --raw --dns 10.9.0.2 names.eif; echo "status $?"
      """, timeout: 240)
    XCTAssertEqual(
      outcome.output,
      """
      curl 7
      content-of-file
      content-of-file
      content-of-file
      curl 7
      curl 6
      REFUSED
      10.9.0.2
      no ping
      status 7

      """, outcome.errors)
    for sentence in [
      "packets to 10.9.0.2:8080 (TCP) denied: no rule of egress.allow names it", "dns: big.test A denied",
      "packets to 10.9.0.2:8081 (TCP, web.test) denied",
    ] { XCTAssertTrue(outcome.errors.contains(sentence), "\(sentence): \(outcome.errors)") }
  }

  /// The host's own address in an enclave, with nf_tables' `queue` on both sides, as nearly every distribution's kernel has
  /// it: in a guest with Debian's kernel runs a local enclave that shares the guest's address.
  func testSharedAddressWithNFTables() {
    let outcome = bash(
      """
      cd \(directory); rm -rf root; cp -a \(Self.debian) root
      cp \(World.binaries)/tombolo \(World.binaries)/tombolo-init root/usr/local/bin/
      printf '[network]\\nmode = "raw"\\n[ingress]\\nports = [80]\\n' > outer.toml; echo '\(World.everyRight)' >> outer.toml
      cat > root/inner.sh <<'X'
      nginx
      curl -sS http://10.9.0.2:8080/file; curl -gsS http://[fd09::2]:8080/file; curl -sS http://web.test:8080/file
      curl -s http://10.9.0.2:8080/big8 | sha256sum | cut -d' ' -f1
      bash -c 'head -c 3000000 /dev/zero > /dev/tcp/10.9.0.2/7003'
      curl -s -m 10 http://10.9.0.2:9/; echo "refused $?"
      i=0; while [ $i -lt 300 ] && ! grep -q asked6 /var/log/nginx/access.log; do sleep 0.1; i=$((i+1)); done
      cut -d' ' -f1 /var/log/nginx/access.log | sort -u
      exit 7
      X
      cat > root/outer.sh <<'X'
      tombolo run -v --mode raw --capture nfqueue -p 80:80 -p [::]:80:80 -- sh /inner.sh 2> /tmp/run.err; echo "inner $?"
      cat /tmp/run.err >&2
      X
      head -c 8388608 /dev/urandom > www/big8; chmod a+r www/big8; sum=$(sha256sum www/big8 | cut -d' ' -f1)
      \(tombolo) image build --rootfs root --kernel \(Self.assets)/kernel-6.1/vmlinuz --modules \(Self.assets)/kernel-6.1 --config outer.toml -o shared.eif -- sh /outer.sh >/dev/null || exit 90
      rm -rf root; H="ip netns exec \(World.host)"; S="ip netns exec \(World.server)"
      $S timeout 200 python3 -c 'import socket; print(len(socket.create_server(("10.9.0.2", 7003)).accept()[0].makefile("rb").read()))' > count & counter=$!
      $H \(tombolo) boot \(qemu) --machine q35 --memory 2048 --raw --dns 10.9.0.2 -p 9092:80 -p [::]:9092:80 shared.eif > shared.out 2> shared.err & boot=$!
      for i in $(seq 400); do $S curl -sS -m 2 http://10.9.0.1:9092/asked >/dev/null 2>&1 && break; kill -0 $boot 2>/dev/null || break; sleep 0.2; done
      $S curl -gsS -m 5 http://[fd09::1]:9092/asked6 | grep -o "404 Not Found" | head -1
      wait $boot; sleep 0.3; kill $counter 2>/dev/null; wait $counter; sed "s/$sum/the same bytes/" shared.out; cat count
      grep -c 'on tun0 are the enclave.s, rules in nf_tables' shared.err; grep -c 'rules installed with nf_tables' shared.err; cat shared.err >&2
      """, timeout: 240)
    XCTAssertEqual(
      outcome.output,
      """
      404 Not Found
      content-of-file
      content-of-file
      content-of-file
      the same bytes
      refused 7
      10.9.0.2
      fd09::2
      inner 7
      3000000
      1
      1

      """, outcome.errors)
  }

  /// A kernel like Nitro's own has no packet queues; the console says so, and what has them.
  func testPacketQueuesThatTheKernelHasNot() {
    let outcome = bash(
      """
      cd \(directory); printf '[network]\\nmode = "raw"\\ncapture = "nfqueue"\\n' > queues.toml
      \(tombolo) image build --rootfs busybox --kernel \(Self.assets)/kernel-enclave/bzImage --config queues.toml -o queues.eif -- /bin/sh -c 'exit 3' >/dev/null || exit 90
      ip netns exec \(World.host) \(tombolo) boot \(qemu) --console --raw --raw-capture nfqueue queues.eif 2>&1; echo "status $?"
      ip netns exec \(World.host) sh -c 'iptables-legacy-save && ip6tables-legacy-save && nft list ruleset' > left || echo "no list"; grep -c tombolo left
      """, timeout: 60)
    XCTAssertTrue(
      outcome.output.contains(
        "[network] capture = \"nfqueue\": the kernel has no nfnetlink_queue (CONFIG_NETFILTER_NETLINK_QUEUE;"),
      outcome.output)
    XCTAssertTrue(outcome.output.hasSuffix("status 125\n0\n"), outcome.output)
    XCTAssertFalse(outcome.output.contains("Kernel panic"), outcome.output)
  }

  /// An image in raw mode has no way into a network that was not opened for it.
  func testRawModeIsNotForWhoeverAsks() {
    let outcome = bash(
      """
      cd \(directory); printf '[network]\\nmode = "raw"\\n' > raw.toml
      \(tombolo) image build --rootfs busybox --kernel \(Self.assets)/kernel-enclave/bzImage --config raw.toml -o closed.eif -- /bin/sh -c 'exit 3' >/dev/null || exit 90
      \(tombolo) boot \(qemu) closed.eif; echo "status $?"
      """, timeout: 60)
    XCTAssertEqual(outcome.output, "status 3\n", outcome.errors)
    XCTAssertTrue(outcome.errors.contains("its host side was not started so (--raw"), outcome.errors)
  }
}
