import Foundation
import XCTest

/// The repository's Dockerfile, built by buildah, and what comes out of it: in images with next to nothing in them, and
/// along docs/boot.md from an enclave's Dockerfile to an enclave that serves.
final class DockerfileTests: XCTestCase {
  static let repository =
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
    .path
  static let guests = repository + "/Tests/boot-guests"
  /// As the tests' own build says it, with the line's end.
  static let version = String(bash("\(World.tombolo) --version").output.dropFirst("tombolo ".count))
  /// The product as the Dockerfile builds it, taken out of the image.
  static let product = World.directory + "/product"

  /// What every script here begins with.
  static let prelude = """
    cd \(World.directory); export TOMBOLO_CONTAINERS=\(World.directory)/containers; b=\(guests)/buildah
    # save IMAGE FILE: as `docker save` writes it.
    save() { $b push --quiet localhost/$1 docker-archive:$2:$1:latest; }
    # Starts a container of IMAGE as Docker would, its ENTRYPOINT and CMD, with no network but lo and /enclave shared
    # with the host side. tombolo-init is a child there: buildah is above it.
    start() {
      local c; c=$($b from --pull-never localhost/$1) || return 99
      $b inspect --type image localhost/$1 | python3 -c '
    import json, shlex, sys
    config = json.load(sys.stdin)["OCIv1"]["config"]
    print(shlex.join((config.get("Entrypoint") or []) + (config.get("Cmd") or [])))' > words
      eval "unshare --net --pid --fork --mount-proc $b run --cap-add CAP_NET_ADMIN -v $PWD/shared:/enclave $c -- $(cat words)"
    }
    # hosted COMMAND...: the host side in H while COMMAND runs; then what the enclave's program wrote.
    hosted() {
      rm -rf shared; mkdir -m 755 shared
      ip netns exec \(World.host) \(product)/tombolo host --transport unix:$PWD/shared --log-format raw > hosted.out 2> hosted.err & local h=$! i
      for i in $(seq 50); do [ -S shared/host_7766 ] && break; sleep 0.1; done
      "$@"; echo "status $?"
      for i in $(seq 50); do grep -q "ended with status" hosted.err && break; sleep 0.1; done
      kill $h; wait $h; cat hosted.out; cat hosted.err >&2
    }

    """

  override class func setUp() {
    World.setUp(bigFile: false)
    let built = bash("\(prelude) \(guests)/tombolo-image", timeout: 2400)
    XCTAssertEqual(built.status, 0, "the Dockerfile does not build: \(built.errors.suffix(4000))")
    // An Alpine in all that a program sees of it: busybox, and musl as the only C library.
    let made = bash(
      """
      \(prelude) set -e
      save tombolo tombolo.tar; mkdir archive product; tar -xf tombolo.tar -C archive
      for layer in $(python3 -c 'import json; print(*json.load(open("archive/manifest.json"))[0]["Layers"])'); do tar -xf archive/$layer -C product; done
      mkdir -p alpine/{bin,etc/apk,lib,usr/bin,root,tmp,proc,sys,dev,run,var}; cp /bin/busybox alpine/bin/
      for name in $(busybox --list); do [ $name = busybox ] || ln -s /bin/busybox alpine/bin/$name; done
      cp -L /lib/ld-musl-x86_64.so.1 alpine/lib/; ln -s ld-musl-x86_64.so.1 alpine/lib/libc.musl-x86_64.so.1
      musl-gcc -O2 -o alpine/usr/bin/fetch \(guests)/fetch.c
      echo 3.20.3 > alpine/etc/alpine-release; printf 'NAME="Alpine Linux"\\nID=alpine\\n' > alpine/etc/os-release
      : > alpine/etc/apk/world; echo 'root:x:0:0:root:/root:/bin/ash' > alpine/etc/passwd; echo root:x:0:root > alpine/etc/group
      """, timeout: 60)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() { World.tearDown() }

  func testTheImageHoldsTheStaticProgramsAndNothingElse() {
    let outcome = bash(
      """
      \(Self.prelude) (cd product && find . -type f -printf '%P %m\\n' | sort && find . ! -type f ! -type d)
      for p in product/*; do file -b $p | grep -q 'static-pie linked' && $p --version; done
      $b inspect --type image localhost/tombolo | python3 -c 'import json, sys; print(json.load(sys.stdin)["OCIv1"]["config"]["Entrypoint"])'
      """)
    let version = Self.version
    XCTAssertEqual(
      outcome.output,
      "tombolo 755\ntombolo-attest 755\ntombolo-dns 755\ntombolo-init 755\ntombolo \(version)tombolo-attest \(version)"
        + "tombolo-dns \(version)tombolo-init \(version)['/tombolo-init']\n", outcome.errors)
  }

  /// The only file there is must be enough for itself: no libc, no /etc, no shell, no directory.
  func testInAnEmptyRoot() {
    let outcome = bash(
      """
      \(Self.prelude) mkdir empty; cp product/tombolo-init empty/
      ip netns exec \(World.host) product/tombolo run --rootfs empty -- /tombolo-init --version; echo "status $?"
      ip netns exec \(World.host) product/tombolo run --rootfs empty -- /no/such; echo "status $?"; find empty -type f
      printf '[network]\\ntransport = "unix:/enclave"\\n' > only.toml
      printf 'FROM localhost/tombolo\\nCOPY only.toml /etc/tombolo.toml\\nCMD ["--", "/tombolo", "--version"]\\n' > Only
      $b build --quiet --pull-never --file Only --tag only . >/dev/null
      hosted start only
      """, timeout: 120)
    XCTAssertEqual(
      outcome.output,
      "tombolo-init \(Self.version)status 0\nstatus 127\nempty/tombolo-init\nstatus 0\ntombolo \(Self.version)",
      outcome.errors)
  }

  /// Names through musl's resolver, data, and the status; nothing of glibc is there to lean on.
  func testInAnAlpineLikeRoot() {
    let outcome = bash(
      """
      \(Self.prelude)
      ip netns exec \(World.host) product/tombolo run --dns 10.9.0.2 --rootfs alpine -- \\
        ash -c 'cat /etc/alpine-release; fetch web.test 8080 /file; exit 9'; echo "status $?"
      printf '[network]\\ntransport = "unix:/enclave"\\n' > alpine.toml
      cat > Alpine <<'X'
      FROM scratch
      COPY alpine /
      COPY --from=localhost/tombolo /tombolo-init /tombolo-init
      COPY alpine.toml /etc/tombolo.toml
      ENTRYPOINT ["/tombolo-init", "--", "/bin/sh", "-c", "fetch 10.9.0.2 8080 /file; fetch 10.9.0.2 9 / || cat /etc/alpine-release; exit 5"]
      X
      $b build --quiet --pull-never --file Alpine --tag alpine-app . >/dev/null
      hosted start alpine-app
      """, timeout: 120)
    XCTAssertEqual(
      outcome.output,
      "3.20.3\ncontent-of-file\nstatus 9\nstatus 5\ncontent-of-file\n3.20.3\n",
      outcome.errors)
  }

  /// docs/boot.md from its Dockerfile on. The image, as `docker save` writes it, becomes an enclave twice: with an init
  /// like AWS's, under which tombolo-init is a child; and with ours, which must not start itself again as the program.
  func testTheEnclaveDockerfileOfTheDocumentation() {
    let assets = bash("\(Self.repository)/rootfs/boot-assets --check").output.trimmingCharacters(in: .newlines)
    let outcome = bash(
      """
      \(Self.prelude) \(Self.guests)/debian-image $(\(Self.guests)/debian-root | tail -1) debian >&2 || exit 90
      mkdir app; awk '/^```dockerfile$/ { on = 1; next } /^```$/ { on = 0 } on' \(Self.repository)/docs/boot.md > app/Dockerfile
      printf '[ingress]\\nports = [80]\\n' > app/tombolo.toml
      $b build --quiet --pull-never --from localhost/debian --tag app app >&2 || exit 91
      save app app.tar; cc -O2 -static -o aws-init \(Self.guests)/aws-init.c
      for init in aws-init product/tombolo-init; do
        product/tombolo image build --archive app.tar --init $init --kernel \(assets)/kernel-enclave/bzImage -o app.eif >/dev/null || exit 92
        ip netns exec \(World.host) bash -c '
          product/tombolo boot --qemu \(assets)/qemu/qemu-system-x86_64 --memory 2048 -p 127.0.0.1:9092:80 app.eif >&2 & boot=$!
          for i in $(seq 200); do curl -sS -m 2 http://127.0.0.1:9092/ 2>/dev/null | grep -o "<h1>.*</h1>" && break; kill -0 $boot 2>/dev/null || break; sleep 0.2; done
          kill $boot; wait $boot; echo "status $?"'
      done
      """, timeout: 240)
    XCTAssertEqual(
      outcome.output, String(repeating: "<h1>Welcome to nginx!</h1>\nstatus 0\n", count: 2), outcome.errors)
  }
}
