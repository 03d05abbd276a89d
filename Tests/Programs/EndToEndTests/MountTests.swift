import Foundation
import XCTest

/// File systems of the configuration in local enclaves, with and without root.
final class MountTests: XCTestCase {
  static let place = "/var/tmp/tombolo-mounts-\(World.id)"

  override class func setUp() {
    bash("install -d -m755 \(place) && install -m755 \(World.tombolo) \(World.binaries)/tombolo-init \(place)")
  }

  override class func tearDown() { bash("rm -rf \(place)") }

  private let kinds = """
    [[mount]]
    type = "overlay"
    target = "/merged"
    options = ["lowerdir=/scratch/low", "upperdir=/scratch/up", "workdir=/scratch/work"]
    required = false
    [[mount]]
    type = "tmpfs"
    target = "/scratch"
    options = ["size=1m", "mode=1770", "noexec"]
    [[mount]]
    type = "bind"
    source = "/usr/share"
    target = "/srv/new/share"
    options = ["ro"]
    [[mount]]
    type = "bind"
    source = "/etc/passwd"
    target = "/srv/users"
    options = ["ro"]
    """

  /// What the operator wrote is what the program finds, and it can neither write nor unmount what is read-only.
  func testEachKindIsWhatItSays() {
    for user in ["", "setpriv --reuid 1000 --regid 1000 --clear-groups "] {
      let outcome = bash(
        """
        cd \(Self.place); cat > c.toml <<'X'
        \(kinds)
        X
        \(user)\(Self.place)/tombolo run -v --mode none --config c.toml -- sh -c '
          grep -o "/scratch tmpfs [a-z,]*,size=1024k,mode=1770" /proc/mounts; head -c 2000000 /dev/zero > /scratch/f 2>/dev/null || echo full
          ls /srv/new/share | grep -c ^dpkg$; touch /srv/new/share/x 2>&1 | grep -o "Read-only file system"
          cmp /srv/users /etc/passwd && echo the same; echo x 2>/dev/null > /srv/users || echo read-only
          umount /srv/new/share 2>/dev/null || echo stays; mount -o remount,rw /srv/new/share 2>/dev/null || echo stays
          ls -d /merged'; echo "status $?"; ls -d /srv/new /scratch 2>/dev/null
        """)
      XCTAssertEqual(
        outcome.output,
        """
        /scratch tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k,mode=1770
        full
        1
        Read-only file system
        the same
        read-only
        stays
        stays
        /merged
        status 0

        """, outcome.errors)
      // Its directories were not there: a line, and no more, since it is not required.
      XCTAssertTrue(outcome.errors.contains("mount overlay on /merged: No such file or directory"), outcome.errors)
    }
  }

  /// A link in a tree of somebody else's leads neither out of it nor to where the kernel's own files are.
  func testLinksLeadNowhereElse() {
    let outcome = bash(
      """
      cd \(Self.place); rm -rf tree; mkdir -p tree/bin tree/real outside; cp /bin/busybox tree/bin/; ln -s busybox tree/bin/sh
      ln -s \(Self.place)/outside tree/away; ln -s ../../../../real tree/up; ln -s /proc/sys tree/kernel
      for target in away/x up/x kernel; do
        printf '[[mount]]\\ntype = "tmpfs"\\ntarget = "/%s"\\n' $target > c.toml
        \(World.tombolo) run --mode none --rootfs tree --config c.toml -- sh -c '/bin/busybox grep tmpfs /proc/mounts | /bin/busybox cut -d" " -f2 | /bin/busybox grep x$'; echo "status $?"
      done; ls outside
      """)
    XCTAssertEqual(
      outcome.output, "\(Self.place)/outside/x\nstatus 0\n/real/x\nstatus 0\nstatus 125\n", outcome.errors)
    XCTAssertTrue(
      outcome.errors.contains("mount /kernel: a link leads to /proc/sys, where nothing is mounted"), outcome.errors)
  }

  func testMisuseIsSaid() {
    let nfs = "[[mount]]\\ntype = \"nfs\"\\nsource = \"10.9.0.2:/v\"\\ntarget = \"/d\"\\n"
    let cases: [(user: String, text: String, options: String, sentence: String)] = [
      (
        "", "[[mount]]\\ntype = \"tmpfs\"\\ntarget = \"/d\"\\noptions = [\"sice=1\"]\\n", "",
        "c.toml:4: mount[1].options: found \"sice=1\""
      ),
      ("", nfs, "--mode none", "c.toml: mount: /d is of type \"nfs\", and with network.mode = \"none\""),
      (
        "setpriv --reuid 1000 --regid 1000 --clear-groups ", nfs, "",
        "mount: /d is of type \"nfs\", which Linux mounts for root of the machine only"
      ),
      (
        "", "[[mount]]\\ntype = \"bind\"\\nsource = \"/nosuch\"\\ntarget = \"/d\"\\n", "--mode none",
        "/nosuch: No such file or directory (ENOENT)"
      ),
      (
        "", "[[mount]]\\ntype = \"overlay\"\\ntarget = \"/d\"\\noptions = [\"lowerdir=/nosuch\"]\\n", "--mode none",
        "mount overlay on /d: No such file or directory (ENOENT)"
      ),
    ]
    for (user, text, options, sentence) in cases {
      let outcome = bash(
        "cd \(Self.place); printf '\(text)' > c.toml; \(user)\(Self.place)/tombolo run \(options) --config c.toml -- true",
        timeout: 30)
      XCTAssertEqual(outcome.status, 125, outcome.errors)
      XCTAssertTrue(outcome.errors.contains(sentence), "\(sentence): \(outcome.errors)")
    }
  }
}
