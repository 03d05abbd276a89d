import Foundation
import XCTest

/// What of the machine's files a program can read: a secret that somebody hides must not be there in any form, and with
/// `--show` nothing is there that nobody has named.
final class ShownFilesTests: XCTestCase {
  let place = "/var/tmp/tombolo-shown-\(World.id)"
  let tombolo = World.tombolo

  override func setUp() {
    bash(
      """
      install -d -m755 \(place) \(place)/secrets \(place)/open && install -m755 \(tombolo) \(World.binaries)/tombolo-init \(place)
      cd \(place); echo key > secrets/key; echo token > open/token; echo page > open/page; ln -s secrets link; chown -R 1000:1000 .
      """)
  }

  override func tearDown() { bash("rm -rf \(place)") }

  /// As root and without.
  private var ways: [String] {
    ["\(tombolo) run --mode none", "setpriv --reuid 1000 --regid 1000 --clear-groups \(place)/tombolo run --mode none"]
  }

  func testWhatIsHiddenIsEmpty() {
    for run in ways {
      let outcome = bash(
        """
        cd \(place); \(run) --hide secrets --hide \(place)/open/token -- sh -c '
          ls -A secrets | wc -l; cat link/key 2>&1 | grep -o "No such file"; wc -c < open/token; cat open/page
          echo x > secrets/new 2>/dev/null || echo refused; umount secrets 2>/dev/null || echo stays
          mv secrets other 2>/dev/null || echo fixed; rm -rf secrets 2>/dev/null; ls -A secrets; find / -xdev -name key -path "*secrets*" 2>/dev/null'
        cat secrets/key open/token
        """)
      XCTAssertEqual(
        outcome.output, "0\nNo such file\n0\npage\nrefused\nstays\nfixed\nkey\ntoken\n", "\(run): \(outcome.errors)")
    }
  }

  func testOnlyWhatIsShownIsThere() {
    for run in ways {
      let outcome = bash(
        """
        cd /; \(run) --show /usr --show /etc/ssl --show /etc/passwd --show \(place)/link --show \(place)/open/page -- sh -c '
          find / -mindepth 1 -maxdepth 1 ! -type l -printf "%f\\n" | sort | xargs; ls -A /etc | xargs; ls -A \(place) \(place)/open | xargs; cat \(place)/link/key \(place)/open/page
          /usr/bin/python3 -c "print(1)"; echo written > \(place)/open/page; echo written > \(place)/secrets/key; cat \(place)/link/key; touch /new && rm /new
          grep -c root /etc/passwd; head -c 10 /etc/resolv.conf'
        cat \(place)/open/page \(place)/secrets/key; ls /new 2>/dev/null
        """)
      XCTAssertEqual(
        outcome.output,
        """
        dev etc proc run sys tmp usr var
        hostname hosts passwd resolv.conf ssl
        \(place): link open secrets \(place)/open: page
        key
        page
        1
        written
        1
        nameserverpage
        key

        """, "\(run): \(outcome.errors)")
    }
  }

  /// Both together: of what is shown, a part is covered.
  func testHiddenWithinShown() {
    let outcome = bash(
      "cd /; \(tombolo) run --mode none --show /usr --show \(place) --hide \(place)/secrets -- sh -c 'ls -A \(place)/secrets | wc -l; cat \(place)/open/page; pwd'"
    )
    XCTAssertEqual(outcome.output, "0\npage\n/\n", outcome.errors)
  }

  /// A file system of its own below what is shown is shown, and below what is hidden is not.
  func testFileSystemsBelow() {
    let outcome = bash(
      """
      unshare -m --propagation private bash -c 'cd \(place); mount --bind open secrets; cd /
        \(tombolo) run --mode none --show /usr --show \(place)/secrets -- cat \(place)/secrets/page
        \(tombolo) run --mode none --show /usr --show \(place) -- cat \(place)/secrets/page
        \(tombolo) run --mode none --hide \(place) -- ls -A \(place) | wc -l'
      """)
    XCTAssertEqual(outcome.output, "page\npage\n0\n", outcome.errors)
  }

  func testMistakesAreSaid() {
    for (arguments, sentence) in [
      ("--hide /nowhere", "--hide: found \"/nowhere\", which is not there"),
      ("--show nowhere", "--show: found \"nowhere\", which is not there"),
      ("--hide /", "--hide: found \"/\", which is everything; expected something below it"),
      ("--show /usr/../etc", "--show: found \"/usr/../etc\", expected a path without \"..\""),
      ("--hide ''", "--hide: found \"\", expected a path without \"..\""),
      ("--show /tmp/x", "--show: found \"/tmp/x\", but /tmp is the enclave's own: nothing of this machine's is there"),
      ("--hide /proc", "--hide: found \"/proc\", but /proc is the enclave's own: nothing of this machine's is there"),
      ("--show /dev/../usr", "expected a path without \"..\""),
      ("--rootfs \(place) --hide /etc", "--hide: expected no --rootfs, which shows none of this machine's files"),
      ("--rootfs \(place) --show /etc", "--show: expected no --rootfs, which shows none of this machine's files"),
    ] {
      let outcome = bash("cd /; \(tombolo) run --mode none \(arguments) -- true")
      XCTAssertEqual(outcome.status, 125, arguments)
      XCTAssertTrue(outcome.errors.contains(sentence), "\(arguments): \(outcome.errors)")
    }
  }
}
