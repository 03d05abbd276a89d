import Foundation
import XCTest

/// Somebody who speaks the protocol and is not the enclave's PID 1, its proxy or its host: a program inside, another user of
/// the parent. Without this anybody could write an operator's log, end an enclave in his books, and send packets past
/// every rule.
final class ForgeryTests: XCTestCase {
  let tombolo = World.tombolo
  override class func setUp() {
    World.setUp(bigFile: false)
    // What a forger tries, with random tokens: session, log, question, connection, name, packets; then a port of the
    // program at the proxy. "denied" is status 5, "later" 7.
    bash(
      """
      cat > \(World.directory)/forge.py <<'X'
      import os, socket, struct, sys
      def ask(path, channel, parameters, rest=b""):
          s = socket.socket(socket.AF_VSOCK if isinstance(path, tuple) else socket.AF_UNIX); s.settimeout(10)
          try:
              s.connect(path)
              s.sendall(b"TMBL\\2" + bytes([channel]) + len(parameters).to_bytes(2, "big") + os.urandom(32) + parameters + rest)
              answer = s.recv(8)
          except OSError as e: return type(e).__name__
          return {5: "denied", 7: "later", 0: "OK"}.get(answer[5], answer[5]) if len(answer) == 8 else "closed"
      host, *proxy = sys.argv[1:]
      if host == "vsock": host = (2, 7766)
      record = struct.pack(">IBBHQQB", 21, 3, 3, 0, 1, 0, 0)
      endpoint = bytes([4]) + struct.pack(">H", 8080) + socket.inet_aton("10.9.0.2") + bytes(3)
      packets = struct.pack(">BBHI", 0, 1, 1500, 0) + bytes([4, 10, 118, 0, 2, 30, 0])
      print("session", ask(host, 6, os.urandom(16 + 64 + 48) + b"forged"))
      for name, channel, parameters, rest in [("log", 4, b"", record), ("question", 5, bytes([1, 3, 5, 220]), b""),
          ("connect", 1, endpoint, b"\\0\\0\\0\\1x"), ("resolve", 2, b"", b""), ("packets", 3, packets, b"")]:
          print(name, ask(host, channel, parameters, rest))
      for path in proxy: print("ingress", ask(path, 1, bytes([0, 0, 80, 0, 0, 0])))
      X
      chmod 755 \(World.directory); chmod 644 \(World.directory)/forge.py
      """)
  }
  override class func tearDown() { World.tearDown() }

  private static let refused = """
    session denied
    log denied
    question denied
    connect denied
    resolve denied
    packets denied

    """

  /// Inside: a socket that this user may not open at all, or one that opens and gives nothing. The real streams go on.
  func testNobodyInsideSpeaksForTheEnclave() {
    let forge =
      "/usr/bin/python3 /var/tmp/tombolo-e2e-\(World.id)/forge.py /run/tombolo/host/host_7766 /run/tombolo/host/enclave_7766"
    let outcome = bash(
      """
      cd \(World.directory)
      \(World.run) --hostname forged -p 127.0.0.1:9394:80 -- sh -c '
        setpriv --reuid 65534 --regid 65534 --clear-groups \(forge)
        capsh --drop=all -- -c "\(forge)"
        curl -sS http://10.9.0.2:8080/file; kill $(pidof sleep); exit 3' 2> forged.err & p=$!
      wait $p; echo "status $?"; grep -c "was refused" forged.err; grep -c "forged" forged.err
      """, timeout: 60)
    let nobody = Self.refused.replacingOccurrences(of: "denied", with: "PermissionError") + "ingress PermissionError\n"
    XCTAssertEqual(
      outcome.output, nobody + Self.refused + "ingress denied\ncontent-of-file\nstatus 3\n3\n0\n", outcome.errors)
  }

  /// The same counts, where an operator looks for them.
  func testRefusedStreamsAreCounted() {
    let outcome = bash(
      """
      cd \(World.directory); rm -f go
      ip netns exec \(World.host) \(tombolo) run --hostname counted-forger -- sh -c '
        for i in 1 2 3; do python3 \(World.directory)/forge.py /run/tombolo/host/host_7766 >/dev/null; done; echo forged; sleep 60' > forge.out 2>forge.err & p=$!
      for i in $(seq 200); do grep -q forged forge.out && break; sleep 0.1; done
      \(tombolo) status --json $p | python3 -c '
      import json, sys
      [s] = json.load(sys.stdin); [b] = s["sessions"]; print(s["refused"], b["connected"], len(b["boot"]), len(b["configuration_digest"]))
      print(*[x["name"] + " " + x["state"] for x in b["services"]], sep="\\n")'
      \(tombolo) status $p | grep -o "refused .*"; kill $p; wait $p; echo "status $?"; grep -c "only counted" forge.err
      """, timeout: 60)
    XCTAssertEqual(
      outcome.output,
      """
      18 True 32 96
      proxy ready
      program ready
      refused    18 streams that were not the enclave's
      status 143
      2

      """, outcome.errors)
  }

  /// Another user of the parent, at the daemon's sockets; and a daemon that was killed knows its enclave again, and a forger
  /// as little as before.
  func testAnotherUserOfTheParentAndARestart() {
    let outcome = bash(
      """
      cd \(World.directory); export XDG_RUNTIME_DIR=\(World.directory)/runtime; mkdir -p transport; chmod 755 transport
      printf '[network]\\ntransport = "unix:%s"\\n' $PWD/transport > child.toml
      start() { ip netns exec \(World.host) \(tombolo) host --transport unix:$PWD/transport --log-format raw >> host.out 2>> host.err & h=$!; }
      there() { for i in $(seq 100); do [ -S transport/host_7766 ] && break; sleep 0.05; done; }
      other="setpriv --reuid 65534 --regid 65534 --clear-groups"
      start; there
      unshare -n \(World.binaries)/tombolo-init --config child.toml -- sh -c '
        echo started; until [ -e \(World.directory)/again ]; do sleep 0.1; done; curl -sS http://10.9.0.2:8080/file; exit 6' & e=$!
      for i in $(seq 100); do grep -q started host.out && break; sleep 0.1; done
      $other /usr/bin/python3 forge.py $PWD/transport/host_7766 $PWD/transport/enclave_7766
      python3 forge.py $PWD/transport/host_7766 $PWD/transport/enclave_7766
      kill -9 $h; wait $h 2>/dev/null; rm -f transport/host_7766; start; there
      python3 forge.py $PWD/transport/host_7766 | grep -v "^session"
      touch again; wait $e; echo "status $?"
      for i in $(seq 50); do grep -q "status 6" host.err && break; sleep 0.1; done
      kill $h; wait $h; cat host.out; grep -o "ended with status 6" host.err
      """, timeout: 90)
    let other = Self.refused.replacingOccurrences(of: "denied", with: "PermissionError") + "ingress PermissionError\n"
    let after = Self.refused.split(separator: "\n").dropFirst().joined(separator: "\n") + "\n"
    XCTAssertEqual(
      outcome.output,
      other + Self.refused + "ingress denied\n" + after
        + "status 6\nstarted\ncontent-of-file\nended with status 6\n", outcome.errors)
  }

  /// The same at a hybrid socket, whose directory has the monitor's group: another user cannot open it, and one who can, with
  /// that group or as root, is refused while the enclave's own streams are served. The enclave here reaches the socket as a
  /// monitor would, by its path; its proxy has the directory's group.
  func testAnotherUserOfTheParentAtAHybridSocket() {
    let outcome = bash(
      """
      cd \(World.directory); export XDG_RUNTIME_DIR=\(World.directory)/runtime; mkdir -p monitor own; chmod 755 monitor own
      chgrp 61042 monitor; ln -sf $PWD/monitor/v.sock_7766 own/host_7766
      printf '[network]\\ntransport = "unix:%s"\\n' $PWD/own > hybrid.toml
      ip netns exec \(World.host) \(tombolo) host --hybrid $PWD/monitor/v.sock --log-format raw > hybrid.out 2> hybrid.err & h=$!
      for i in $(seq 100); do [ -S monitor/v.sock_7766 ] && break; sleep 0.05; done
      stat -c "%a %u %g" monitor/v.sock_7766
      unshare -n \(World.binaries)/tombolo-init --config hybrid.toml -- sh -c '
        echo started; until [ -e \(World.directory)/onward ]; do sleep 0.1; done; curl -sS http://10.9.0.2:8080/file; exit 6' & e=$!
      for i in $(seq 100); do grep -q started hybrid.out && break; sleep 0.1; done
      as() { setpriv --reuid 65534 --regid $1 --clear-groups /usr/bin/python3 forge.py $PWD/monitor/v.sock_7766; }
      as 65534; as 61042; python3 forge.py $PWD/monitor/v.sock_7766
      touch onward; wait $e; echo "status $?"
      for i in $(seq 50); do grep -q "status 6" hybrid.err && break; sleep 0.1; done
      kill $h; wait $h; cat hybrid.out; grep -o "ended with status 6" hybrid.err; grep -c "was refused" hybrid.err; cat hybrid.err >&2
      """, timeout: 90)
    let other = Self.refused.replacingOccurrences(of: "denied", with: "PermissionError")
    XCTAssertEqual(
      outcome.output,
      "660 0 61042\n" + other + Self.refused + Self.refused
        + "status 6\nstarted\ncontent-of-file\nended with status 6\n2\n", outcome.errors)
  }

  /// The secrets are on no command line, in no environment and no file that a program inside can read.
  func testTheSecretsAreNowhereToBeRead() {
    let outcome = bash(
      """
      \(World.run) -u nobody -- sh -c '
        for p in 1 2; do cat /proc/$p/environ; ls /proc/$p/fd; cat /proc/$p/maps; head -c 1 /proc/$p/mem; done 2>&1 | grep -c "Permission denied"
        tr "\\0" " " < /proc/2/cmdline; echo'
      """)
    XCTAssertEqual(outcome.output, "8\ntombolo-init proxy \n", outcome.errors)
  }
}
