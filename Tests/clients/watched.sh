# Runs a command while everything is heard that reaches the servers of name-world.sh, and says what of it was marked.
#   watched.sh FOLDER HOST-NAMESPACE SERVER-NAMESPACE V4 COMMAND…
cd "$1" || exit 1
host=$2 server=$3 v4=$4; shift 4
cat >listen.py <<'X'
import selectors, socket
sockets = selectors.DefaultSelector()
for port in (22, 80, 8081, 9999, 124):
    for family in (socket.AF_INET, socket.AF_INET6):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            s = socket.socket(family, kind)
            if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("", port))
            if kind == socket.SOCK_STREAM: s.listen()
            sockets.register(s, selectors.EVENT_READ, kind)
print("listening", flush=True)
while True:
    for key, _ in sockets.select():
        if key.data == socket.SOCK_STREAM: key.fileobj.accept(); print("connected", flush=True)
        else: print(key.fileobj.recv(100), flush=True)
X
rm -f wire.pcap heard
ip netns exec $server tcpdump -i v1 -U -s 0 -w wire.pcap >/dev/null 2>tcpdump.err & capture=$!
ip netns exec $server python3 listen.py >heard 2>&1 & listener=$!
for _ in $(seq 100); do grep -qs listening heard && grep -qs 'listening on' tcpdump.err && break; sleep 0.1; done
"$@"
status=$?
ip netns exec $host curl -sS --noproxy '*' -o /dev/null http://$v4.2:8080/LAST
for _ in $(seq 50); do grep -aqs LAST wire.pcap && break; sleep 0.1; done
kill $capture $listener
echo "heard: $(grep -vc listening heard)"; echo "marks: $(grep -ac EXFILTRATED wire.pcap)"; echo "allowed: $(grep -ac 'GET /ALLOWED' wire.pcap)"
exit $status
