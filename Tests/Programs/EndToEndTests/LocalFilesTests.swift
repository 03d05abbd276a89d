import Foundation
import XCTest

/// A local enclave and the files of the machine: what it can read, and that it can change nothing outside.
final class LocalFilesTests: XCTestCase {
  /// Outside of /tmp and /run, of which enclaves have their own.
  let place = "/var/tmp/tombolo-files-\(World.id)"
  let tombolo = World.tombolo

  override func setUp() {
    // A user who is not root must reach the programs.
    bash("install -d -m755 \(place) && install -m755 \(tombolo) \(World.binaries)/tombolo-init \(place)")
  }

  override func tearDown() { bash("rm -rf \(place)") }

  /// The prefix of a `tombolo run` without root.
  var asUser: String { "setpriv --reuid 1000 --regid 1000 --clear-groups \(place)/tombolo run --mode none" }

  // MARK: issue 10, 6

  /// With a mount below $HOME there is no overlay of $HOME. Nothing that the program does to the files beside that mount
  /// may reach them.
  func testWithoutRootFilesBesideAMountAreNotWritten() {
    let outcome = bash(
      """
      cat > \(place)/outside.sh <<'X'
      set -e; cd \(place); mkdir -p home/mnt home/sub; cd home
      echo 'export A=1' > .bashrc; chmod 640 .bashrc; echo 'echo hello' > tool; chmod 755 tool; touch -d 2001-02-03 tool
      echo secret > key; chmod 400 key; head -c 2000000 /dev/zero > large; echo x > sub/file; mkfifo pipe
      python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
      chmod 700 .; chown -R 1000:1000 .; mount -t tmpfs tmpfs mnt; echo m > mnt/m
      state() { find . -xdev -printf '%p %m %u %s %T@ %l\\n' | sort; find . -xdev -type f -exec sha256sum {} + | sort; }
      state > ../before
      X
      cat > \(place)/inside.sh <<'X'
      cat .bashrc; ./tool; stat -c '%a %y' tool | cut -c1-14; stat -c '%n %a' . .bashrc key | xargs; wc -c < large; ls -A | xargs
      echo evil >> .bashrc && tail -n1 .bashrc; chmod 777 .bashrc tool large; chmod 777 .; mv tool tool2; mv large large2
      truncate -s 0 key; truncate -s 0 large; echo evil > large; : > tool; ln -f .bashrc hard; rm -f .bashrc key large sub/file
      touch -d 2002-02-02 large sub; echo x > new; echo x > mnt/m; setfattr -n user.x -v y large 2>/dev/null; echo end
      X
      unshare -m --propagation private bash -c '. \(place)/outside.sh; \(asUser) -- sh \(place)/inside.sh 2>/dev/null
        state > ../after; diff ../before ../after && echo unchanged; cat mnt/m'
      """)
    XCTAssertEqual(
      outcome.output,
      """
      export A=1
      hello
      755 2001-02-03
      . 700 .bashrc 640 key 400
      2000000
      .bashrc key large mnt sub tool
      evil
      end
      unchanged
      m

      """, outcome.errors)
  }

  /// A file system of its own keeps the mode and the owner of its top: PostgreSQL refuses a data directory of another user.
  func testTheTopOfAFileSystemKeepsItsOwner() {
    let outcome = bash(
      """
      mkdir \(place)/data; chown 33:33 \(place)/data; chmod 700 \(place)/data
      unshare -m --propagation private bash -c '
        mount --bind \(place)/data \(place)/data && \(tombolo) run --mode none -- stat -c "%u %g %a" \(place)/data'
      \(asUser) -- stat -c %a /root
      """)
    XCTAssertEqual(outcome.output, "33 33 700\n700\n", outcome.errors)
  }

  /// As under the container runtimes: 64 MiB of shared memory, and more for who says so; `/dev` is for names.
  func testWhatDevAndSharedMemoryHoldIsBounded() {
    let outcome = bash(
      """
      cd \(place); printf '[program]\\nshared_memory = "80MiB"\\n' > shared.toml
      for options in "" "--config shared.toml"; do
        \(tombolo) run --mode none $options -- sh -c '
          head -c 99000000 /dev/zero 2>&1 > /dev/shm/x | grep -o "No space left"; stat -c %s /dev/shm/x
          head -c 99000000 /dev/zero 2>&1 > /dev/x | grep -o "No space left"; stat -c %s /dev/x'
      done
      """, timeout: 30)
    XCTAssertEqual(
      outcome.output,
      [67_108_864, 83_886_080].map { "No space left\n\($0)\nNo space left\n65536\n" }.joined(), outcome.errors)
  }

  /// A device's owner and mode are the machine's: `chmod 600 /dev/null` inside would stop every other user outside.
  func testDevicesWorkAndCannotBeChanged() {
    let outcome = bash(
      """
      \(tombolo) run --mode none -- sh -c '
        for d in null zero full random urandom tty; do chmod $(stat -c %a /dev/$d) /dev/$d 2>/dev/null && echo changed $d; done
        echo x > /dev/null && echo y >> /dev/null && head -c 3 /dev/zero | wc -c && head -c 5 /dev/urandom | wc -c
        ls /dev | xargs'
      """)
    XCTAssertEqual(outcome.output, "3\n5\nfd full null ptmx pts random shm stderr stdin stdout tty urandom zero\n")
  }

  /// Only settings of the enclave's own namespaces can be written, by root too. The test writes back what is there, and
  /// only opens what acts on a write.
  func testTheMachinesSettingsCannotBeWritten() {
    let script = """
      import os
      def write(path):
          try:
              value = open(path).read()
              with open(path, "w") as f: f.write(value)
              return "written"
          except OSError as e: return os.strerror(e.errno)
      for name in ["vm/swappiness", "kernel/core_pattern", "kernel/modprobe", "kernel/panic", "fs/file-max", "user/max_user_namespaces", "net/ipv4/ip_forward", "kernel/shmmax", "kernel/sem", "kernel/msgmax", "kernel/hostname", "kernel/domainname", "fs/mqueue/msg_max"]:
          if os.path.exists("/proc/sys/" + name): print(name, write("/proc/sys/" + name))
      for path in ["/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"]:
          try: os.close(os.open(path, os.O_WRONLY)); print(path, "opened")
          except FileNotFoundError: pass
          except OSError as e:
              if e.errno != 30: print(path, os.strerror(e.errno))
      for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list"]:
          if os.path.exists(path) and open(path, "rb").read(1): print(path, "can be read")
      print(os.listdir("/sys/firmware") if os.path.exists("/sys/firmware") else [])
      """
    bash("cat > \(place)/settings.py <<'X'\n\(script)\nX")
    // The kernel wants it for net.ipv4.ip_forward.
    bash("printf '[program]\\ncapabilities = [\"NET_ADMIN\"]\\n' > \(place)/rights.toml")
    let refused = ["vm/swappiness", "kernel/core_pattern", "kernel/modprobe", "kernel/panic", "fs/file-max"]
    let own = ["net/ipv4/ip_forward", "kernel/shmmax", "kernel/sem", "kernel/msgmax"]
    for (run, also) in [
      ("\(tombolo) run --mode none", ["kernel/hostname", "kernel/domainname", "fs/mqueue/msg_max"]), (asUser, []),
    ] {
      let outcome = bash("cd /; \(run) --config \(place)/rights.toml -- python3 \(place)/settings.py")
      let lines = Set(outcome.output.split(separator: "\n").map(String.init))
      for name in refused + ["user/max_user_namespaces"]
      where FileManager.default.fileExists(atPath: "/proc/sys/\(name)") {
        XCTAssertTrue(lines.contains("\(name) Read-only file system"), "\(name): \(outcome.output)\(outcome.errors)")
      }
      for name in own + also where FileManager.default.fileExists(atPath: "/proc/sys/\(name)") {
        XCTAssertTrue(lines.contains("\(name) written"), "\(name): \(outcome.output)\(outcome.errors)")
      }
      XCTAssertFalse(outcome.output.contains("opened"), outcome.output)
      XCTAssertFalse(outcome.output.contains("can be read"), outcome.output)
      XCTAssertTrue(outcome.output.hasSuffix("[]\n"), outcome.output + outcome.errors)
    }
  }

  // MARK: --rootfs

  /// A tree with one static program and what `more` adds, at `place`/NAME.
  func tree(_ name: String, _ more: String = "true") -> String {
    "mkdir -p \(place)/\(name) && cp /bin/busybox \(place)/\(name)/ && (cd \(place)/\(name) && \(more))"
  }

  let show = "/busybox sh -c '/busybox cat /etc/resolv.conf; /busybox ls -d /proc/1 /sys/class /dev/null /run/tombolo'"
  let shown = "nameserver 169.254.53.53\n/dev/null\n/proc/1\n/run/tombolo\n/sys/class\n"

  /// Issue 12, 10: a tree that an attacker has made. Nothing outside of it is created, changed or covered, before the start
  /// or after the end; and links that stay in it work.
  func testLinksInARootLeadNowhereElse() {
    let outcome = bash(
      """
      cd \(place); mkdir -p victim/etc; echo keep > victim/etc/hosts; touch victim/etc/hostname; chmod 755 victim
      state() { find victim -printf '%p %m %s %T@\\n' | sort; }; state > before
      run() { \(tombolo) run --mode none --rootfs $1 -- \(show) 2>&1; echo "status $?"; }
      \(tree("inner", "mkdir -p var/run private/etc usr/dev; ln -s var/run run; ln -s /private/etc etc; ln -s ../../usr/dev dev")); run inner
      \(tree("away", "ln -s /\(place)/victim/etc etc")); run away | tail -1
      \(tree("up", "ln -s ../../../../..\(place)/victim proc")); run up | sed 's/, which.*//; s/.*up.proc/proc/'
      \(tree("file", "mkdir etc; ln -s ../../victim/new etc/resolv.conf; ln -s \(place)/victim/etc/hostname etc/hostname")); run file
      \(tree("config", "mkdir etc; ln -s \(place)/victim/etc/hosts etc/tombolo.toml")); run config | tail -1
      \(tree("swap")); \(tombolo) run --mode none --rootfs swap -- /busybox sh -c '
        /busybox mv /etc /old; /busybox ln -s \(place)/victim/etc /etc'; echo "status $?"
      state | diff before - && echo unchanged; ls -A inner/var/run; ls victim/etc
      """)
    XCTAssertEqual(
      outcome.output,
      """
      \(shown)status 0
      status 125
      proc is a link to ../../../../..\(place)/victim
      status 125
      \(shown)status 0
      status 0
      status 0
      unchanged
      hostname
      hosts

      """, outcome.errors)
  }

  /// A tree that cannot be written, and has nothing that could be mounted on.
  func testARootThatCannotBeWritten() {
    let outcome = bash(
      """
      cd \(place); \(tree("ro", "mkdir -p etc/ssl bin data; echo x > etc/ssl/x; ln -s busybox sh; echo keep > data/f; touch a:b"))
      unshare -m --propagation private bash -c '
        mount --bind ro ro && mount -o remount,bind,ro ro && mount -t tmpfs tmpfs ro/data && echo below > ro/data/g
        \(tombolo) run --mode none --rootfs ro -- \(show.replacingOccurrences(of: "'", with: "\""))
        \(tombolo) run --mode none --rootfs ro -- /sh -c "/busybox ls -A /; /busybox cat /etc/ssl/x /data/g; echo y > /new; echo y > /data/h" 2>&1
        ls ro/data | xargs'; ls -A ro | xargs; ls ro/etc
      """)
    XCTAssertEqual(
      outcome.output,
      """
      \(shown)a:b
      bin
      busybox
      data
      dev
      etc
      proc
      run
      sh
      sys
      tmp
      x
      below
      /sh: can't create /new: Read-only file system
      g h
      a:b bin busybox data etc sh
      ssl

      """, outcome.errors)
  }

  /// Without root: a tree that somebody else owns works the same way, and one that may not be read is a sentence.
  func testAForeignRootWithoutRoot() {
    let outcome = bash(
      """
      cd \(place); \(tree("foreign", "mkdir etc; echo x > etc/x")); \(tree("secret")); chmod 700 secret
      \(asUser) --rootfs \(place)/foreign -- \(show); echo "status $?"; ls -A foreign | xargs
      \(asUser) --rootfs \(place)/secret -- true; echo "status $?"
      """)
    XCTAssertEqual(
      outcome.output, "\(shown)status 0\nbusybox etc\nstatus 125\n", outcome.errors)
    XCTAssertTrue(
      outcome.errors.contains("--rootfs: this user cannot read \(place)/secret, which somebody else owns"),
      outcome.errors)
  }

  // MARK: users without root

  /// With subordinate ids, which this test gives to uid 1000 in a mount namespace of its own, unmodified servers that start
  /// as root and serve as another user work without root; and the proxy has its uid.
  func testUsersWithoutRoot() {
    let outcome = bash(
      """
      cat > \(place)/nginx.conf <<'X'
      user www-data; worker_processes 1; daemon on; pid /run/nginx.pid; error_log /tmp/error.log;
      events {} http { access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;
      uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; server { listen 127.0.0.1:80; root \(place)/www; } }
      X
      mkdir \(place)/www; echo served > \(place)/www/file
      cat > \(place)/nginx.sh <<'X'
      nginx -c \(place)/nginx.conf && curl -sS http://127.0.0.1/file; ps -eo user:10=,args= | grep -c '^www-data *nginx: worker'
      ps -o uid= -p 2; kill $(cat /run/nginx.pid)
      X
      cd /; getent passwd 1000 > /dev/null || echo 'tombolo:x:1000:1000::/:/bin/sh' > \(place)/more
      cat /etc/passwd \(place)/more > \(place)/passwd 2>/dev/null
      echo '1000:200000:65536' > \(place)/ids; : > \(place)/none
      with() { unshare -m --propagation private bash -c 'mount --bind \(place)/passwd /etc/passwd
        for f in subuid subgid; do mount --bind $0 /etc/$f; done; eval "$1"' "$@"; }
      with \(place)/ids '\(asUser.replacingOccurrences(of: "--mode none", with: "")) -- sh \(place)/nginx.sh'
      with \(place)/ids '\(asUser) -u www-data -- sh -c "id -un; id -Gn; touch /tmp/x && stat -c %U /tmp/x"'
      with \(place)/ids '\(asUser) -- id'
      with \(place)/none '\(asUser) -u www-data -- id; echo status $?'
      """)
    XCTAssertEqual(
      outcome.output,
      """
      served
      1
      61042
      www-data
      www-data
      www-data
      uid=0(root) gid=0(root) groups=0(root)
      status 125

      """, outcome.errors)
    XCTAssertTrue(outcome.errors.contains("/etc/subuid has no ids for this user"), outcome.errors)
  }
}
