import Foundation
import XCTest

/// Programs that need rights, in local enclaves with a container's: they work as under Docker, with the documented keys.
final class RealProgramsTests: XCTestCase {
  override class func setUp() { World.setUp(bigFile: false) }
  override class func tearDown() { World.tearDown() }

  /// Of capabilities(7), in the order of their numbers.
  private static let capabilities = """
    chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
    net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin
    sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override
    mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore
    """.split(whereSeparator: \.isWhitespace).map { "cap_\($0)" }
  /// Docker's default ("Runtime privilege and Linux capabilities", docs.docker.com/engine/containers/run).
  private static let docker: Set<String> = Set(
    """
    audit_write chown dac_override fowner fsetid kill mknod net_bind_service net_raw setfcap setgid setpcap setuid
    sys_chroot
    """.split(whereSeparator: \.isWhitespace).map { "cap_\($0)" })

  /// What `docker run debian capsh --print` prints.
  private func printed(without: Set<String>, noNewPrivileges: Bool) -> String {
    let kept = Self.capabilities.filter { Self.docker.contains($0) && !without.contains($0) }
    let last =
      Int((try? String(contentsOfFile: "/proc/sys/kernel/cap_last_cap", encoding: .utf8))?.dropLast() ?? "") ?? 40
    let gone = Self.capabilities.prefix(last + 1).filter { !kept.contains($0) }
    return """
      Current: \(kept.joined(separator: ","))=ep
      Bounding set =\(kept.joined(separator: ","))
      Ambient set =
      Current IAB: \(gone.map { "!\($0)" }.joined(separator: ","))
      Securebits: 00/0x0/1'b0 (no-new-privs=\(noNewPrivileges ? 1 : 0))
       secure-noroot: no (unlocked)
       secure-no-suid-fixup: no (unlocked)
       secure-keep-caps: no (unlocked)
       secure-no-ambient-raise: no (unlocked)
      uid=0(root) euid=0(root)
      gid=0(root)
      groups=0(root)
      Guessed mode: HYBRID (4)

      """
  }

  /// But for CAP_MKNOD, which a local enclave has not: it has no device group.
  func testCapshPrintsWhatItPrintsUnderDocker() {
    XCTAssertEqual(Self.docker.count, 14)
    let mknod: Set<String> = ["cap_mknod"]
    let usual = bash("\(World.run) -- capsh --print")
    XCTAssertEqual(usual.output, printed(without: mknod, noNewPrivileges: true), usual.errors)
    let docker = bash(
      """
      printf '[program]\\nnew_privileges = true\\n' > \(World.directory)/new.toml
      \(World.run) --config \(World.directory)/new.toml -- capsh --print
      """)
    XCTAssertEqual(docker.output, printed(without: mknod, noNewPrivileges: false), docker.errors)
  }

  /// Logging in, with and without a terminal, as root and as another user, and copying a file.
  func testSshdNeedsNoKeys() {
    let outcome = bash(
      """
      cd \(World.directory); ssh-keygen -q -t ed25519 -N '' -f key; echo text > sent
      cat > sshd.sh <<'X'
      mkdir -p /run/sshd; cp \(World.directory)/key.pub /tmp/keys; chmod 644 /tmp/keys; ssh-keygen -q -t ed25519 -N '' -f /tmp/host
      exec /usr/sbin/sshd -D -e -h /tmp/host -o AuthorizedKeysFile=/tmp/keys -o StrictModes=no -o UsePAM=no -o PermitRootLogin=yes -o LogLevel=ERROR
      X
      ip netns exec \(World.host) \(World.tombolo) run -p 127.0.0.1:2222:22 -- sh sshd.sh >/dev/null 2> sshd.log & enclave=$!
      s() { ip netns exec \(World.host) ssh -F none -p 2222 -i key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$@" < /dev/null; }
      for i in $(seq 100); do s root@127.0.0.1 'id -u; hostname' 2>/dev/null && break; sleep 0.1; done
      s -tt root@127.0.0.1 'tty; stty size > /dev/null && echo terminal' | tr -d '\\r'; s www-data@127.0.0.1 true; echo "another user $?"
      ip netns exec \(World.host) scp -q -F none -P 2222 -i key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR sent root@127.0.0.1:/tmp/got && s root@127.0.0.1 cat /tmp/got
      kill $enclave; wait $enclave; cat sshd.log >&2
      """)
    // www-data's shell is nologin, which ends with 1.
    XCTAssertEqual(
      outcome.output,
      "0\nenclave\n/dev/pts/0\nterminal\nThis account is currently not available.\nanother user 1\ntext\n",
      outcome.errors)
  }

  /// `sudo` gives root where `program.new_privileges` says so, and says what is wrong where it does not.
  func testSudoWithNewPrivileges() {
    let outcome = bash(
      """
      cd \(World.directory); printf '[program]\\nnew_privileges = true\\n' > new.toml
      for config in new.toml /dev/null; do
        \(World.run) --config $config -- sh -c 'echo "nobody ALL=(ALL) NOPASSWD: ALL" > /etc/sudoers.d/test; chmod 440 /etc/sudoers.d/test
          setpriv --reuid nobody --regid nogroup --clear-groups sudo -n sh -c "id -un; touch /etc/made && echo made" 2>&1 | grep -v "unable to resolve"' | head -2 | cut -c1-60
      done
      """)
    XCTAssertEqual(
      outcome.output,
      "root\nmade\nsudo: The \"no new privileges\" flag is set, which prevents su\nsudo: If sudo is running in a container, you may need to adj\n",
      outcome.errors)
  }

  /// The transport's directory is the one thing shared with the machine: nothing can be written or removed there, or it would
  /// fill the machine's disk, and nobody takes the place of a socket.
  func testTheTransportsDirectoryCannotBeWritten() {
    for run in [
      World.run, "setpriv --reuid 1000 --regid 1000 --clear-groups \(World.directory)/t/tombolo run --mode none",
    ] {
      let outcome = bash(
        """
        install -d -m755 \(World.directory)/t; install -m755 \(World.tombolo) \(World.binaries)/tombolo-init \(World.directory)/t
        cd /; \(run) -- sh -c 'cd /run/tombolo/host; for c in "touch new" "mkdir new" "rm host_7766" "mv host_7766 x" "chmod 777 host_7766" "chown 1 host_7766" "ln -s /etc new"; do
          $c 2>&1 | grep -o "Read-only file system" || echo "possible: $c"; done; ls'
        """)
      let lines = outcome.output.split(separator: "\n")
      XCTAssertEqual(lines.filter { $0 == "Read-only file system" }.count, 7, outcome.output + outcome.errors)
      XCTAssertFalse(outcome.output.contains("possible"), outcome.output)
    }
  }
}
