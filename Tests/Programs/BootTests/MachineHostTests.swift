import Foundation
import XCTest

// Machines whose host is late, silent or not there.
extension MachineTests {
  /// QEMU with our device and nobody, or not enough, behind it: each ends with its sentence, within its bound.
  func bareMachine(_ toml: String, host: String = "", device: Bool = true) -> Outcome {
    bash(
      """
      cd \(directory); rm -rf bare; mkdir bare; printf '\(toml)' > bare/c.toml
      \(tombolo) image build --rootfs busybox --kernel \(Self.assets)/kernel-enclave/bzImage --config bare/c.toml -o bare/x.cpio -- /bin/sh -c 'exit 0' >/dev/null || exit 90
      \(device ? "\(tombolo) vsock-device --once --socket bare/dev --cid 5 --uds bare/v & d=$!; for i in $(seq 50); do [ -S bare/dev ] && break; sleep 0.1; done" : "")
      \(host)
      \(Self.assets)/qemu/qemu-system-x86_64 -L \(Self.assets)/qemu/share -nodefaults -no-user-config -display none -no-reboot -serial stdio \
        -accel tcg -cpu max -m 512M \(device ? "-chardev socket,id=c,path=bare/dev -object memory-backend-memfd,id=m,size=512M,share=on -M microvm,memory-backend=m,acpi=off,auto-kernel-cmdline=on,pit=on,pic=on,rtc=on -device vhost-user-vsock-device,chardev=c" : "-M microvm,acpi=off,pit=on,pic=on,rtc=on") \
        -kernel \(Self.assets)/kernel-enclave/bzImage -initrd bare/x.cpio -append 'console=ttyS0 quiet reboot=t panic=-1' |
        while IFS= read -r line; do echo "$EPOCHREALTIME $line"; done
      echo "qemu ${PIPESTATUS[0]}"; \(device ? "kill $d 2>/dev/null; wait $d" : "") \(host.isEmpty ? "" : "; kill $h; wait $h")
      """, timeout: 60)
  }

  /// Seconds from init's first line to the last of the machine.
  func secondsOfInit(_ outcome: Outcome) -> Double? {
    let lines = outcome.output.split(whereSeparator: \.isNewline).filter { $0.first?.isNumber == true }
    func time(_ line: Substring?) -> Double? { (line?.prefix { $0 != " " }).flatMap { Double($0) } }
    guard let start = time(lines.first { $0.contains("started by the kernel") }), let end = time(lines.last) else {
      return nil
    }
    return end - start
  }

  /// What is configured to take two seconds took them, and the telling of it a few more at most; then the machine was
  /// restarted in order.
  func endsInTime(_ outcome: Outcome, file: StaticString = #filePath, line: UInt = #line) {
    let seconds = secondsOfInit(outcome) ?? 0
    XCTAssertTrue((1.9...10).contains(seconds), "\(seconds) s: \(outcome.output)", file: file, line: line)
    XCTAssertTrue(outcome.output.contains("reboot: Restarting system"), outcome.output, file: file, line: line)
    XCTAssertTrue(outcome.output.hasSuffix("qemu 0\n"), outcome.output, file: file, line: line)
    XCTAssertFalse(outcome.output.contains("Kernel panic"), outcome.output, file: file, line: line)
  }

  func testNoVsockDevice() {
    let outcome = bareMachine("[boot]\\nheartbeat = \"never\"\\nhost_timeout = \"2s\"\\n", device: false)
    XCTAssertTrue(
      outcome.output.contains("no host was found within 2.0 seconds: there is no vsock device"),
      outcome.output + outcome.errors)
    endsInTime(outcome)
  }

  func testNobodyAnswersTheHeartbeat() {
    let outcome = bareMachine("[boot]\\nheartbeat_timeout = \"2s\"\\n")
    XCTAssertTrue(
      outcome.output.contains("the heartbeat was not answered within 2.0 seconds"), outcome.output + outcome.errors)
    endsInTime(outcome)
  }

  /// Somebody takes the connection and keeps silent: the bound holds all the same.
  func testAHeartbeatThatIsTakenAndNotAnswered() {
    let outcome = bareMachine(
      "[boot]\\nheartbeat_timeout = \"2s\"\\n",
      host:
        "python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.bind(\"bare/v_9000\"); s.listen(); held = [s.accept() for _ in range(999)]' & h=$!; for i in $(seq 50); do [ -S bare/v_9000 ] && break; sleep 0.1; done"
    )
    XCTAssertTrue(
      outcome.output.contains("the heartbeat was not answered within 2.0 seconds"), outcome.output + outcome.errors)
    endsInTime(outcome)
  }

  func testNoHostListens() {
    let outcome = bareMachine("[boot]\\nheartbeat = \"never\"\\nhost_timeout = \"2s\"\\n")
    XCTAssertTrue(
      outcome.output.contains("no host was found within 2.0 seconds: connect vsock"), outcome.output + outcome.errors)
    endsInTime(outcome)
  }

  /// A host that is started after the enclave is found by trying again.
  func testAHostThatComesLate() {
    let outcome = bareMachine(
      "[boot]\\nheartbeat = \"never\"\\n",
      host: "(sleep 6; exec \(tombolo) host --hybrid bare/v > bare/host.out 2>&1) & h=$!")
    let log = bash("cat \(directory)/bare/host.out").output
    XCTAssertTrue(log.contains("the enclave's program ended with status 0"), log + outcome.output)
    let seconds = secondsOfInit(outcome)
    XCTAssertTrue(seconds.map { $0 > 2 } == true, "the host was not late: \(outcome.output)")
  }
}
