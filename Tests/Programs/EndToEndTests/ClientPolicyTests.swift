import Foundation
import XCTest

/// Every usual way to resolve a name and connect: each client reaches a name that a rule has, and is refused another name and
/// another port at once, not after a time-out of its resolver.
final class ClientPolicyTests: XCTestCase {
  private static let directory = World.directory
  /// The modes that have rules by name.
  private static let modes = ["tcp", "raw", "raw --capture nfqueue"]

  override class func setUp() {
    World.setUp(bigFile: false)
    let made = bash(
      """
      set -e; cd \(directory); mkdir clients; cd clients
      ip -n \(World.server) addr add 10.9.0.3/24 dev v1
      ip netns exec \(World.server) dnsmasq --no-resolv --no-hosts --listen-address=10.9.0.3 --bind-interfaces \
        --host-record=ok.test,10.9.0.2,fd09::2 --host-record=other.test,10.9.0.2,fd09::2 --pid-file=\(directory)/names.pid --user=root
      # Each fetches URLs one after the other, and says what came, and that something took a second longer than the first.
      cat > clients.py <<'X'
      import sys, time, urllib.request
      times = []
      for url in sys.argv[1:]:
          start = time.monotonic()
          try: said = urllib.request.urlopen(url, timeout=30).read().decode().strip()
          except OSError: said = "refused"
          times.append(time.monotonic() - start)
          print("python", said, "late" if times[-1] > times[0] + 1 else "in time", flush=True)
      X
      cat > clients.js <<'X'
      const http = require("http");
      const fetched = (url) => new Promise((done) => {
        http.get(url, (answer) => { let text = ""; answer.on("data", (piece) => (text += piece)); answer.on("end", () => done(text.trim())); })
          .on("error", () => done("refused"));
      });
      (async () => {
        const times = [];
        for (const url of process.argv.slice(2)) {
          const start = process.hrtime.bigint(), said = await fetched(url);
          times.push(Number(process.hrtime.bigint() - start) / 1e9);
          console.log("node", said, times[times.length - 1] > times[0] + 1 ? "late" : "in time");
        }
      })();
      X
      cat > clients.go <<'X'
      package main

      import ("fmt"; "io"; "net"; "os"; "strings"; "time")

      // Not net/http, which takes a minute to be compiled.
      func fetch(url string) string {
      	place, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
      	connection, err := net.Dial("tcp", place)
      	if err != nil { return "refused" }
      	defer connection.Close()
      	fmt.Fprintf(connection, "GET /%s HTTP/1.0\\r\\nHost: %s\\r\\n\\r\\n", path, place)
      	answer, err := io.ReadAll(connection)
      	_, body, found := strings.Cut(string(answer), "\\r\\n\\r\\n")
      	if err != nil || !found { return "refused" }
      	return strings.TrimSpace(body)
      }

      func main() {
      	var first time.Duration
      	for index, url := range os.Args[1:] {
      		start := time.Now()
      		said, late := fetch(url), "in time"
      		took := time.Since(start)
      		if index == 0 { first = took }
      		if took > first+time.Second { late = "late" }
      		fmt.Println("go", said, late)
      	}
      }
      X
      cat > Clients.java <<'X'
      import java.net.URL;
      public class Clients {
        public static void main(String[] urls) {
          long first = 0;
          for (int index = 0; index < urls.length; index++) {
            long start = System.nanoTime();
            String said;
            try { said = new String(new URL(urls[index]).openStream().readAllBytes()).trim(); } catch (java.io.IOException error) { said = "refused"; }
            long took = System.nanoTime() - start;
            if (index == 0) first = took;
            System.out.println("java " + said + (took > first + 1_000_000_000L ? " late" : " in time"));
          }
        }
      }
      X
      go=$(command -v go || ls -d /usr/lib/go-*/bin/go | tail -1)
      HOME=$PWD/home GOCACHE=$PWD/home/cache GO111MODULE=off CGO_ENABLED=0 "$go" build -o clients clients.go & made=$!
      javac -d . Clients.java & compiled=$!
      wait $made; wait $compiled; rm -rf home; chmod -R a+rX .
      """, timeout: 120)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() {
    bash("kill $(cat \(directory)/names.pid)")
    World.tearDown()
  }

  func testEveryClientReachesANameAndIsRefusedAnother() {
    for mode in Self.modes {
      let outcome = bash(
        """
        cd \(Self.directory)/clients
        cat > policy.toml <<'X'
        [egress]
        default = "deny"
        allow = ["ok.test:8080"]
        X
        cat > all.sh <<'X'
        unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
        all="http://ok.test:8080/file http://other.test:8080/file http://ok.test:8081/file"
        first=
        for url in $all; do
          said=$(curl -s -m 30 -w ' %{time_total}' $url) || said="refused ${said##* }"
          took=${said##* }; first=${first:-$took}
          echo curl ${said% *} $(awk "BEGIN { print ($took > $first + 1) ? \\"late\\" : \\"in time\\" }")
        done
        python3 clients.py $all; node clients.js $all; ./clients $all; java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp . Clients $all
        X
        \(World.run) --dns 10.9.0.3 --mode \(mode) --config policy.toml -- bash all.sh
        """, timeout: 120)
      let lines = ["curl", "python", "node", "go", "java"].map {
        "\($0) content-of-file in time\n\($0) refused in time\n\($0) refused in time\n"
      }
      XCTAssertEqual(outcome.output, lines.joined(), "\(mode): \(outcome.errors)")
    }
  }
}
