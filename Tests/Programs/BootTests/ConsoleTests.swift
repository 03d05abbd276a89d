import Foundation
import XCTest

/// The machine's console in the sentences of `tombolo boot`.
final class ConsoleTests: XCTestCase {
  /// A guest that is not trusted and ends without a word: what it wrote is shown, and does nothing to the terminal.
  func testTheConsolesEndDoesNothingToATerminal() {
    let assets = bash("\(MachineTests.repository)/rootfs/boot-assets --check").output
      .trimmingCharacters(in: .newlines)
    let outcome = bash(
      #"""
      cd $(mktemp -d /var/tmp/tombolo-console-XXXXXX); mkdir -p root/dev
      cat > hostile.c <<'X'
      #include <fcntl.h>
      #include <string.h>
      #include <sys/mount.h>
      #include <sys/reboot.h>
      #include <termios.h>
      #include <unistd.h>
      int main(void) {
        const char text[] = "first\nhidden\rshown \033]0;owned\007\302\233\377 \342\200\256end\n";
        mount("none", "/dev", "devtmpfs", 0, 0);
        int console = open("/dev/console", O_WRONLY);
        write(console, text, strlen(text));
        tcdrain(console);
        reboot(RB_AUTOBOOT);
      }
      X
      cc -O2 -static -w -o hostile hostile.c
      \#(World.tombolo) image build --rootfs root --kernel \#(assets)/kernel-enclave/bzImage --init hostile -o hostile.eif -- /bin/true >/dev/null || echo "no image"
      \#(World.tombolo) boot --qemu \#(assets)/qemu/qemu-system-x86_64 hostile.eif 2> errors; echo $?
      grep -a -A1 first errors; LC_ALL=C tr -d '\n\t\040-\176\200-\377' < errors | wc -c; iconv -f UTF-8 -t UTF-8 errors | cmp - errors && echo UTF-8
      rm -r $PWD
      """#, timeout: 90)
    XCTAssertEqual(
      outcome.output,
      #"""
      125
      first
      hidden\x0dshown \x1b]0;owned\x07\u{9b}\xff \u{202e}end
      0
      UTF-8

      """#, outcome.errors)
  }
}
