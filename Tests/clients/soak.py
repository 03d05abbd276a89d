# The ends of Tests/soak: many connections that end in every way, and a byte that differs is an error.
#   soak.py server                                        echoes, resets, speaks first; TCP and UDP
#   soak.py inside|outside SECONDS SEED DIRECTORY MODE    clients; "inside" also echoes on port 80. Prints one line of JSON.
# DIRECTORY/chaos has a line "begin end" for each time in which a proxy or host side was away: only then may anything fail.
import errno, hashlib, json, os, random, selectors, signal, socket, struct, sys, threading, time

ECHO, RESET, FIRST, CLOSED = 7000, 7001, 7002, 7009
RESETS = {errno.ECONNRESET, errno.EPIPE}


def abort(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def stream_of(seed, size):
    return random.Random(seed).randbytes(size)


# MARK: servers

def echo(c):
    with c:
        c.settimeout(60)
        try:
            while data := c.recv(65536): c.sendall(data)
        except OSError: pass


def reset(c):
    try: c.settimeout(60); c.recv(1)
    except OSError: pass
    abort(c)


def first(c):
    """Says "hello", reads seed and length, says so many bytes, and ends its direction; waits for the other's end."""
    with c:
        c.settimeout(60)
        try:
            c.sendall(b"hello")
            order = b""
            while len(order) < 8 and (more := c.recv(8 - len(order))): order += more
            if len(order) < 8: return
            c.sendall(stream_of(*struct.unpack(">II", order))); c.shutdown(socket.SHUT_WR)
            while c.recv(65536): pass
        except OSError: pass


def listen(port, serve):
    l = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    def accept():
        while True: threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()


def datagrams(port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", port)); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    def serve():
        while True: s.sendto(*s.recvfrom(65536))
    threading.Thread(target=serve, daemon=True).start()


# MARK: clients

class Wrong(Exception): pass


class Clients:
    def __init__(self, mode, seed, addresses, port, end, only_echo):
        self.early, self.random, self.addresses, self.port, self.end = mode == "early", random.Random(seed), addresses, port, end
        self.kinds = [self.echo, self.slow, self.give_up] if only_echo else [
            self.echo, self.echo, self.slow, self.give_up, self.be_reset, self.closed, self.server_first, self.flow, self.flow]
        self.counts, self.failures, self.wrong, self.sent, self.lost, self.bytes = {}, [], [], 0, 0, 0

    def connect(self, port):
        return socket.create_connection((self.random.choice(self.addresses), port), timeout=30)

    def echo(self, slowly=0.0):
        size = self.random.choice([0, 1, 100, 5000, 70000, 300000])
        data = self.random.randbytes(size)
        with self.connect(self.port) as s:
            failed = []
            def write():
                try: s.sendall(data); s.shutdown(socket.SHUT_WR)
                except OSError as e: failed.append(e)
            writer = threading.Thread(target=write); writer.start()
            got = bytearray()
            try:
                while more := s.recv(4096 if slowly else 65536):
                    got += more
                    if data[len(got) - len(more):len(got)] != more: raise Wrong(f"echo of {size} differs before {len(got)}")
                    if slowly: time.sleep(slowly)
            finally: writer.join()
            if failed: raise failed[0]
            if len(got) != size: raise Wrong(f"echo of {size} ended in order after {len(got)}")
            self.bytes += size

    def slow(self): self.echo(0.002)

    def give_up(self):
        """Goes away in the middle: with a reset, or in order and early."""
        s = self.connect(self.port); s.sendall(self.random.randbytes(self.random.randrange(1, 50000)))
        if self.random.random() < 0.5: s.recv(1)
        abort(s) if self.random.random() < 0.7 else s.close()

    def be_reset(self):
        with self.connect(RESET) as s:
            s.sendall(b"x")
            try:
                if s.recv(1) == b"": raise Wrong("a reset came as an end in order")
                raise Wrong("a byte that nobody sent")
            except OSError as e:
                if e.errno not in RESETS: raise

    def closed(self):
        try:
            with self.connect(CLOSED) as s:
                if not self.early: raise Wrong("a connect to a closed port succeeded")
                if s.recv(1) == b"": raise Wrong("a closed port ended in order")
                raise Wrong("a closed port spoke")
        except OSError as e:
            if e.errno != errno.ECONNREFUSED and not (self.early and e.errno in RESETS): raise

    def server_first(self):
        seed, size = self.random.getrandbits(32), self.random.choice([0, 10, 40000, 200000])
        with self.connect(FIRST) as s:
            greeting = b""
            while len(greeting) < 5 and (more := s.recv(5 - len(greeting))): greeting += more
            if greeting != b"hello": raise Wrong(f"greeted with {greeting!r}")
            s.sendall(struct.pack(">II", seed, size))
            got = b"".join(iter(lambda: s.recv(65536), b""))
            if got != stream_of(seed, size): raise Wrong(f"{len(got)} of {size} bytes, or others, and an end in order")
            self.bytes += size

    def flow(self):
        """A flow of datagrams; one may be lost, none may be another's or another one."""
        address = self.random.choice(self.addresses)
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect((address, ECHO)); s.settimeout(2)
            name = self.random.randbytes(8)
            for number in range(self.random.randrange(1, 6)):
                data = name + bytes([number]) + hashlib.sha256(name + bytes([number])).digest() * self.random.randrange(1, 30)
                self.sent += 1
                try:
                    s.send(data)
                    while (got := s.recv(65536))[:8] == name and got[8] < number: pass
                    if got != data: raise Wrong("a datagram that nobody sent to this flow")
                except TimeoutError: self.lost += 1

    def run(self):
        while time.monotonic() < self.end:
            kind, begin = self.random.choice(self.kinds), time.monotonic()
            name = kind.__name__
            self.counts[name] = self.counts.get(name, 0) + 1
            lost = self.lost
            try: kind()
            except Wrong as e: self.wrong.append(f"{name}: {e}")
            except OSError as e:
                self.failures.append((begin, time.monotonic(), f"{name}: {type(e).__name__} {errno.errorcode.get(e.errno, e.errno)}"))
                time.sleep(0.05)
            if self.lost > lost: self.failures.append((begin, time.monotonic(), f"{name}: lost"))
            if self.random.random() < 0.2: time.sleep(self.random.random() * 0.2)


def windows(directory):
    found = []
    try:
        for line in open(f"{directory}/chaos"):
            begin, end = line.split()
            found.append((float(begin), float(end)))
    except FileNotFoundError: pass
    return found


def work(mode, seed, addresses, port, end, only_echo, directory):
    """Ten clients in this process."""
    clients = [Clients(mode, seed * 1000 + n, addresses, port, end, only_echo) for n in range(10)]
    threads = [threading.Thread(target=c.run) for c in clients]
    for t in threads: t.start()
    for t in threads: t.join()
    result = {"counts": {}, "wrong": [], "failures": [], "bytes": sum(c.bytes for c in clients), "sent": sum(c.sent for c in clients),
              "lost": sum(c.lost for c in clients)}
    for c in clients:
        for kind, count in c.counts.items(): result["counts"][kind] = result["counts"].get(kind, 0) + count
        result["wrong"] += c.wrong
        result["failures"] += c.failures
    return result


def clients(role, seconds, seed, directory, mode):
    if role == "inside":
        listen(80, echo)
        addresses, port = ["10.9.0.2", "fd09::2"], ECHO
    else: addresses, port = ["10.9.0.1"], 9000
    print("up", flush=True)
    while not os.path.exists(f"{directory}/go"): time.sleep(0.05)
    end, results = time.monotonic() + seconds, []
    for number in range(2):
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(reading)
            made = work(mode, seed + number, addresses, port, end, role == "outside", directory)
            with os.fdopen(writing, "w") as f: json.dump(made, f)
            os._exit(0)
        os.close(writing)
        results.append(reading)
    total = {"counts": {}, "wrong": [], "failures": [], "bytes": 0, "sent": 0, "lost": 0}
    for reading in results:
        with os.fdopen(reading) as f: made = json.load(f)
        for kind, count in made["counts"].items(): total["counts"][kind] = total["counts"].get(kind, 0) + count
        for key in ("wrong", "failures", "bytes", "sent", "lost"): total[key] += made[key]
    for _ in results: os.wait()
    with open(f"{directory}/{role}.part", "w") as f: json.dump(total, f)
    os.rename(f"{directory}/{role}.part", f"{directory}/{role}.json")
    # What was opened is looked for while this goes on.
    while not os.path.exists(f"{directory}/stop"): time.sleep(0.05)


if sys.argv[1] == "server":
    for port, serve in ((ECHO, echo), (RESET, reset), (FIRST, first)): listen(port, serve)
    datagrams(ECHO)
    print("up", flush=True)
    signal.pause()
else:
    clients(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
