#!/usr/bin/python3
"""Questions to the kernel's sockets, as a program asks them: results, errors, names, poll bits, time-outs.

Prints a line `question → answer` for each, in a fixed order, the same on every run. Tests/differences/run runs this file
outside an enclave and in one, in each mode, and compares. An answer names no address, port or time that another run need
not have; what differs between two places and is not listed in docs/differences.md is a fault.

The far end is servers.py. Only the standard library, and never an AF_VSOCK socket.
"""
import array
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import termios
import threading
import time

FAR = {4: "10.9.0.2", 6: "fd09::2"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
PARENT = "10.9.0.1"
CLOSED = 9  # nobody listens there
QUIET = {4: "10.66.0.9", 6: "fd66::9"}  # a black hole
UNREACHABLE = {4: "10.67.0.9", 6: "fd67::9"}
PROHIBITED = {4: "10.68.0.9", 6: "fd68::9"}
NO_ROUTE = {4: "10.69.0.9", 6: "fd69::9"}
RESERVED = {4: "198.51.100.9", 6: "2001:db8::9"}  # for documents; there is no route either
FOREIGN = {4: "192.0.2.77", 6: "2001:db8::77"}
PUBLISHED = {4: 9080, 6: 9081}
# The last one is below what a kernel gives to connections by itself, with the shared address from 1024 on: none has it.
PUBLISHED_SILENT, NOT_PUBLISHED = 9082, 910
PATIENCE = 15  # seconds, for poll; what blocks is ended by the alarm in main()
SHORT = 1.0  # seconds, for what must not come

QUESTIONS = []


def ask(name, *arguments):
    """Adds a question: a function that returns the answer."""
    def add(function):
        QUESTIONS.append((name, lambda: function(*arguments)))
        return function
    return add


def ask_both(name):
    """Adds a question for IPv4 and one for IPv6: a function of 4 or 6."""
    def add(function):
        for version in (4, 6):
            QUESTIONS.append((f"{name}, IPv{version}", lambda version=version: function(version)))
        return function
    return add


def name_of(error):
    if isinstance(error, socket.gaierror):
        names = {getattr(socket, name): name for name in dir(socket) if name.startswith("EAI_")}
        return names.get(error.errno, str(error.errno))
    if isinstance(error, socket.herror):
        return f"h_errno {error.errno}"
    if isinstance(error, TimeoutError) and error.errno is None:
        return "time-out"
    return errno.errorcode.get(error.errno, str(error))


def tried(function, *arguments):
    """`ok`, or the name of the error."""
    try:
        function(*arguments)
        return "ok"
    except OSError as error:
        return name_of(error)


def stream(version=4, timeout=None):
    made = socket.socket(FAMILY[version], socket.SOCK_STREAM)
    made.settimeout(timeout)
    return made


def datagram(version=4, timeout=None):
    made = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
    made.settimeout(timeout)
    return made


def told(command, version=4):
    """A connection whose far end does what `command` says."""
    made = stream(version)
    made.connect((FAR[version], 7000))
    made.sendall(command.encode() + b"\n")
    return made


def everything(connection):
    """What comes until the end, and how it ends."""
    data = b""
    try:
        while True:
            piece = connection.recv(1 << 16)
            if not piece:
                return data, "end"
            data += piece
    except OSError as error:
        return data, name_of(error)


def said(command, version=4):
    with told(command, version) as connection:
        return everything(connection)[0].decode()


def text(connection):
    data, end = everything(connection)
    return f"{data.decode()}, {end}"


BITS = [(getattr(select, name), name[4:]) for name in ("POLLIN", "POLLPRI", "POLLOUT", "POLLERR", "POLLHUP", "POLLRDHUP")]


def polled(connection, events=None, seconds=PATIENCE, until=None):
    """The names of what poll(2) shows, at once where it shows `until`."""
    asked = select.POLLIN | select.POLLPRI | select.POLLOUT | select.POLLRDHUP if events is None else events
    if until is not None:
        waiting = select.poll()
        waiting.register(connection, until)
        waiting.poll(seconds * 1000)
    now = select.poll()
    now.register(connection, asked)
    shown = now.poll(0 if until is not None else seconds * 1000)
    return "+".join(name for bit, name in BITS if shown and shown[0][1] & bit) or "nothing"


def error_of(connection):
    value = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode.get(value, str(value))


def pattern(length):
    return (b"0123456789abcdef" * (length // 16 + 1))[:length]


def digest(data):
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:12]}"


def elapsed(start, low, high):
    """A time coarsely: a slow machine may be late, but nothing may be early."""
    took = time.monotonic() - start
    return "in time" if low * 0.9 <= took <= high else f"after {took:.1f} s"


# MARK: connecting

def connects(s, address):
    """`ok`, or the error. A connection that was there, and was reset before we looked, is `ok`, too."""
    result = tried(s.connect, address)
    return "ok" if result == "ECONNRESET" else result


def connected_to(version, address, port, timeout=None):
    with stream(version, timeout) as s:
        result = connects(s, (address, port))
        if result != "ok":
            return result
        after = tried(s.recv, 1)
        # A reset that connect has already told of.
        return f"ok, then {'ECONNRESET' if after == 'ok' and s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 7 else after}"


@ask_both("connect to an open port")
def _(v):
    with stream(v) as s:
        return tried(s.connect, (FAR[v], 7000))


@ask_both("connect to a closed port")
def _(v):
    return connected_to(v, FAR[v], CLOSED)


@ask_both("connect to a black hole, 1 s")
def _(v):
    return connected_to(v, QUIET[v], 80, SHORT)


@ask_both("connect to an unreachable address")
def _(v):
    return connected_to(v, UNREACHABLE[v], 80)


@ask_both("connect to a prohibited address")
def _(v):
    return connected_to(v, PROHIBITED[v], 80)


@ask_both("connect where no route leads")
def _(v):
    return connected_to(v, NO_ROUTE[v], 80)


@ask_both("connect to an address that is reserved for documents, 1 s")
def _(v):
    return connected_to(v, RESERVED[v], 80, SHORT)


def in_progress(v, address, port):
    s = stream(v, 0)
    return s, errno.errorcode.get(s.connect_ex((address, port)), "ok")


@ask_both("connect without blocking, open port: poll and SO_ERROR")
def _(v):
    s, first = in_progress(v, FAR[v], 7000)
    with s:
        return f"{first}, {polled(s)}, {error_of(s)}"


@ask_both("connect without blocking, closed port: poll and SO_ERROR")
def _(v):
    s, first = in_progress(v, FAR[v], CLOSED)
    with s:
        return f"{first}, {polled(s, until=0)}, {error_of(s)}"


@ask("SO_ERROR is reported once")
def _():
    s, _ = in_progress(4, FAR[4], CLOSED)
    with s:
        polled(s, until=0)
        return f"{error_of(s)}, {error_of(s)}"


@ask("connect without blocking, black hole: poll for 1 s")
def _():
    s, first = in_progress(4, QUIET[4], 80)
    with s:
        return f"{first}, {polled(s, seconds=SHORT)}"


@ask("connect again while it goes on")
def _():
    s, first = in_progress(4, QUIET[4], 80)
    with s:
        return f"{first}, {errno.errorcode.get(s.connect_ex((QUIET[4], 80)), 'ok')}"


@ask("send and receive while it goes on")
def _():
    s, first = in_progress(4, QUIET[4], 80)
    with s:
        return f"{first}, send {tried(s.send, b'x')}, recv {tried(s.recv, 1)}"


@ask("connect twice")
def _():
    with stream() as s:
        s.connect((FAR[4], 7000))
        return tried(s.connect, (FAR[4], 7000))


@ask("connect again after a refusal")
def _():
    with stream() as s:
        first = connects(s, (FAR[4], CLOSED))
        return f"{first}, {tried(s.connect, (FAR[4], 7000))}"


@ask("connect with SO_SNDTIMEO of 1 s to a black hole")
def _():
    with stream() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        start = time.monotonic()
        return f"{tried(s.connect, (QUIET[4], 80))} {elapsed(start, 1, 10)}"


@ask("connect to port 0")
def _():
    return connected_to(4, FAR[4], 0)


@ask("connect to a broadcast and a multicast address")
def _():
    with stream() as one, stream() as two:
        return f"{tried(one.connect, ('255.255.255.255', 80))}, {tried(two.connect, ('224.0.0.1', 80))}"


@ask("connect to an unspecified address")
def _():
    with stream() as one, stream(6) as two:
        return f"{tried(one.connect, ('0.0.0.0', CLOSED))}, {tried(two.connect, ('::', CLOSED))}"


@ask("connect with the wrong family, and with a short address")
def _():
    libc = ctypes.CDLL(None, use_errno=True)
    with stream() as s:
        wrong = struct.pack("=HH", socket.AF_INET6, 80) + bytes(24)
        libc.connect(s.fileno(), wrong, len(wrong))
        first = errno.errorcode[ctypes.get_errno()]
        libc.connect(s.fileno(), struct.pack("=HH", socket.AF_INET, 80), 4)
        return f"{first}, {errno.errorcode[ctypes.get_errno()]}"


@ask("a connection is dissolved by AF_UNSPEC")
def _():
    libc = ctypes.CDLL(None, use_errno=True)
    with told("echo") as s:
        libc.connect(s.fileno(), bytes(16), 16)
        gone = tried(s.getpeername)
        s.connect((FAR[4], 7000))
        s.sendall(b"sum\nx")
        s.shutdown(socket.SHUT_WR)
        return f"{gone}, {everything(s)[0][:2].decode().strip()}"


@ask_both("getpeername")
def _(v):
    with told("echo", v) as s:
        return "the server" if s.getpeername()[:2] == (FAR[v], 7000) else str(s.getpeername())


@ask_both("getsockname is an address that others can reach")
def _(v):
    with told("echo", v) as s:
        own = s.getsockname()[0]
        if own in ("127.0.0.1", "::1") or own == "fd54:6f6d:626f::1":
            return "loopback"
        return "the enclave's alone" if own in ("192.0.0.2", "2002:c000:2::2", "fd54:6f6d:626f:1::2") else "yes"


@ask_both("the server sees the address of the machine")
def _(v):
    seen = said("peer", v).split()
    return "yes" if seen and seen[0] in (PARENT, "fd09::1") else str(seen)


@ask("the server sees the source port")
def _():
    with stream() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("0.0.0.0", 45678))
        s.connect((FAR[4], 7000))
        s.sendall(b"peer\n")
        return "yes" if everything(s)[0].split()[-1] == b"45678" else "another"


@ask("the source port is of ip_local_port_range")
def _():
    low, high = map(int, open("/proc/sys/net/ipv4/ip_local_port_range").read().split())
    with told("echo") as s:
        return "yes" if low <= s.getsockname()[1] <= high else "no"


@ask("an IPv6 socket connects to IPv4-mapped addresses: open, closed")
def _():
    with stream(6) as one, stream(6) as two:
        first = tried(one.connect, (f"::ffff:{FAR[4]}", 7000))
        seen = one.getpeername()[0]
        second = connects(two, (f"::ffff:{FAR[4]}", CLOSED))
        return f"{first} {seen}, {second}"


@ask("IPV6_V6ONLY refuses an IPv4-mapped address")
def _():
    with stream(6) as s:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return tried(s.connect, (f"::ffff:{FAR[4]}", 7000))


@ask("a link-local address without a scope")
def _():
    with stream(6) as s:
        return tried(s.connect, ("fe80::2", 7000, 0, 0))


@ask("the server's link-local address, on the link with the default route")
def _():
    with stream(6, SHORT) as s:
        return connects(s, ("fe80::2", 7000, 0, socket.if_nametoindex(outward())))


@ask("TCP Fast Open: sendto with MSG_FASTOPEN")
def _():
    with stream() as s:
        sent = s.sendto(b"sum\nfast", 0x20000000, (FAR[4], 7000))
        s.shutdown(socket.SHUT_WR)
        return f"{sent}, {everything(s)[0].split()[0].decode()}"


@ask("TCP_FASTOPEN_CONNECT")
def _():
    with stream() as s:
        s.setsockopt(socket.IPPROTO_TCP, 30, 1)
        s.connect((FAR[4], 7000))
        s.sendall(b"sum\nfast")
        s.shutdown(socket.SHUT_WR)
        return everything(s)[0].split()[0].decode()


@ask("200 connections at once")
def _():
    those = [told("echo") for _ in range(200)]
    for number, s in enumerate(those):
        s.sendall(str(number).encode())
    good = sum(s.recv(10).decode() == str(number) for number, s in enumerate(those))
    for s in those:
        s.close()
    return f"{good} answered"


@ask("300 connections one after the other")
def _():
    return str(sum(said("peer") != "" for _ in range(300)))


@ask("a service on the machine's own address")
def _():
    with stream(timeout=3) as s:
        if (result := tried(s.connect, (PARENT, 8090))) != "ok":
            return result
        return s.recv(100).decode().strip()


@ask("a service on the machine's own loopback")
def _():
    return connected_to(4, "127.0.0.1", 8091)


# MARK: names

def lookup(name, family=0, flags=0, service=7000):
    try:
        found = socket.getaddrinfo(name, service, family, socket.SOCK_STREAM, 0, flags)
        return " ".join(entry[4][0] for entry in found)
    except OSError as error:
        return name_of(error)


ask("getaddrinfo: a name with both families", "web.test")(lookup)
ask("getaddrinfo: AF_INET of both", "web.test", socket.AF_INET)(lookup)
ask("getaddrinfo: AI_ADDRCONFIG of both", "web.test", 0, socket.AI_ADDRCONFIG)(lookup)
ask("getaddrinfo: only IPv6", "six.test")(lookup)
ask("getaddrinfo: AF_INET of only IPv6", "six.test", socket.AF_INET)(lookup)
ask("getaddrinfo: AF_INET6 and AI_V4MAPPED of only IPv4", "four.test", socket.AF_INET6, socket.AI_V4MAPPED)(lookup)
ask("getaddrinfo: a name that does not exist", "missing.test")(lookup)
ask("getaddrinfo: a name that the server refuses", "name.refused")(lookup)
ask("getaddrinfo: an alias", "alias.test")(lookup)
ask("getaddrinfo: through the search list", "inner")(lookup)
ask("getaddrinfo: not through the search list, with a dot at the end", "inner.")(lookup)
ask("getaddrinfo: a search name with a dot in it", "deep.inner")(lookup)
ask("getaddrinfo: AI_NUMERICHOST of a name", "web.test", 0, socket.AI_NUMERICHOST)(lookup)
ask("getaddrinfo: a label of 64 letters", b"x" * 64 + b".test")(lookup)
ask("getaddrinfo: localhost", "localhost", socket.AF_INET)(lookup)
ask("getaddrinfo: sixteen addresses", "many.test")(lambda name: str(len(lookup(name).split())))


@ask("getaddrinfo: the canonical name of an alias")
def _():
    return socket.getaddrinfo("alias.test", 80, socket.AF_INET, socket.SOCK_STREAM, 0, socket.AI_CANONNAME)[0][3]


@ask("getaddrinfo: the service http, and one that does not exist")
def _():
    return f"{socket.getaddrinfo('10.9.0.2', 'http', 0, socket.SOCK_STREAM)[0][4][1]}, {lookup('10.9.0.2', 0, 0, 'no-such-service')}"


@ask("gethostbyaddr: IPv4, IPv6, an unknown address")
def _():
    def name(address):
        try:
            return socket.gethostbyaddr(address)[0]
        except OSError as error:
            return name_of(error)
    return f"{name(FAR[4])}, {name(FAR[6])}, {name('10.9.0.99')}"


@ask("the machine's own name resolves")
def _():
    return tried(socket.gethostbyname, socket.gethostname())


@ask("create_connection to a name whose first address refuses")
def _():
    with socket.create_connection(("half-dead.test", 7000), 5) as s:
        return s.getpeername()[0]


@ask("create_connection to a name whose first address is a black hole, 1 s")
def _():
    with socket.create_connection(("half-quiet.test", 7000), SHORT) as s:
        return s.getpeername()[0]


@ask("create_connection to a name without a live address")
def _():
    result = tried(socket.create_connection, ("dead.test", 7000), 3)
    return "ok" if result == "ECONNRESET" else result


def question(name, kind, size=None):
    """A DNS query with the id 4711; with EDNS where there is a size."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    extra = struct.pack(">BHHIH", 0, 41, size, 0, 0) if size else b""
    return struct.pack(">HHHHHH", 4711, 0x100, 1, 0, 0, 1 if size else 0) + labels + struct.pack(">HH", kind, 1) + extra


A, TXT, AAAA = 1, 16, 28


def answer_of(message):
    number, flags, _, answers = struct.unpack(">HHHH", message[:8])
    return f"id {number}, rcode {flags & 15}, {answers} answers" + (", truncated" if flags & 0x200 else "")


def asked(name, kind, size=None, server=FAR[4], timeout=None):
    with datagram(6 if ":" in server else 4, timeout) as s:
        s.sendto(question(name, kind, size), (server, 53))
        message, source = s.recvfrom(1 << 16)
        return message, "from the server" if source[:2] == (server, 53) else f"from {source}"


def by_tcp(name, kind, timeout=None):
    with stream(timeout=timeout) as s:
        s.connect((FAR[4], 53))
        query = question(name, kind)
        s.sendall(struct.pack(">H", len(query)) + query)
        length = struct.unpack(">H", s.recv(2, socket.MSG_WAITALL))[0]
        return s.recv(length, socket.MSG_WAITALL)


@ask("DNS over UDP")
def _():
    message, source = asked("web.test", A)
    return f"{answer_of(message)}, {source}"


@ask("DNS over UDP to the server's IPv6 address")
def _():
    message, source = asked("web.test", AAAA, server=FAR[6])
    return f"{answer_of(message)}, {source}"


@ask("DNS: a name that does not exist")
def _():
    return answer_of(asked("missing.test", A)[0])


@ask("DNS: the letters' case is kept")
def _():
    return "yes" if b"\x03wEb\x04TeSt" in asked("wEb.TeSt", A)[0] else "no"


@ask("DNS: a big answer without EDNS")
def _():
    return answer_of(asked("big.test", TXT)[0])


@ask("DNS: a big answer with EDNS of 4096")
def _():
    message = asked("big.test", TXT, 4096)[0]
    return f"{answer_of(message)}, {len(message) > 1500}"


@ask("DNS over TCP: a big answer")
def _():
    message = by_tcp("big.test", TXT)
    return f"{answer_of(message)}, {len(message) > 1500}"


@ask("DNS over TCP: two queries in one connection")
def _():
    query = question("web.test", A)
    with stream() as s:
        s.connect((FAR[4], 53))
        s.sendall((struct.pack(">H", len(query)) + query) * 2)
        got = []
        for _ in range(2):
            length = struct.unpack(">H", s.recv(2, socket.MSG_WAITALL))[0]
            got.append(answer_of(s.recv(length, socket.MSG_WAITALL)))
        return " / ".join(got)


@ask("DNS over UDP: two queries at once on one socket")
def _():
    with datagram() as s:
        s.sendto(question("web.test", A), (FAR[4], 53))
        s.sendto(question("six.test", AAAA), (FAR[4], 53))
        return " / ".join(sorted(answer_of(s.recv(1 << 16)) for _ in range(2)))


@ask("DNS to an address where no server is, 1 s")
def _():
    try:
        return answer_of(asked("web.test", A, server=QUIET[4], timeout=SHORT)[0])
    except OSError as error:
        return name_of(error)


# MARK: streams

@ask_both("an echo")
def _(v):
    with told("echo", v) as s:
        s.sendall(b"x")
        return s.recv(10).decode()


@ask_both("a server that speaks first")
def _(v):
    with stream(v) as s:
        s.connect((FAR[v], 7001))
        return s.recv(100).decode().strip()


@ask_both("8 MB up, half-closed, and the sum back")
def _(v):
    with told("sum", v) as s:
        s.sendall(pattern(8_000_000))
        s.shutdown(socket.SHUT_WR)
        return text(s)


@ask_both("8 MB down")
def _(v):
    with told("down 8000000", v) as s:
        data, end = everything(s)
        return f"{digest(data)}, {end}"


@ask("2 MB both ways at once")
def _():
    with told("echo") as s:
        data, got = pattern(2_000_000), []
        reader = threading.Thread(target=lambda: got.append(everything(s)))
        reader.start()
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        reader.join()
        return f"{got[0][0] == data}, {got[0][1]}"


@ask("the server ends first, and still gets what comes after")
def _():
    with told("end-first K1") as s:
        first = text(s)
        s.sendall(b"second")
        s.shutdown(socket.SHUT_WR)
        return f"{first}; {said('report K1')}"


@ask("after the end recv gives nothing, again and again")
def _():
    with told("end-first K2") as s:
        everything(s)
        return f"{s.recv(1)!r} {s.recv(1)!r}"


@ask("poll bits: idle, data, the server's end, both ends")
def _():
    with told("end-twice close") as s:
        idle = told("echo")
        shown = [polled(idle)]
        idle.sendall(b"x")
        shown.append(polled(idle, until=select.POLLIN))
        idle.close()
        shown.append(polled(s, until=select.POLLIN))
        s.sendall(b"x")
        s.shutdown(socket.SHUT_WR)
        shown.append(polled(s, until=0))
        return ", ".join(shown)


@ask("poll bits: a reset")
def _():
    with told("reset") as s:
        return f"{polled(s, until=0)}, {error_of(s)}, recv {tried(s.recv, 1)}, {polled(s)}"


@ask("poll bits: a reset after the server's end")
def _():
    with told("end-twice reset") as s:
        before = polled(s, until=select.POLLIN)
        s.sendall(b"x")
        return f"{before}, {polled(s, seconds=4, until=0)}, {error_of(s)}"


@ask("poll bits: a fresh socket, a listening one, one with a client")
def _():
    with stream() as fresh, socket.create_server(("127.0.0.1", 0)) as listener, stream() as client:
        shown = [polled(fresh), polled(listener, seconds=0)]
        client.connect(listener.getsockname())
        return ", ".join(shown + [polled(listener, until=select.POLLIN)])


@ask("data and then a reset: 20 times")
def _():
    ways = {}
    for _ in range(20):
        with told("data-reset") as s:
            polled(s, until=0)
            way = text(s)
            ways[way] = ways.get(way, 0) + 1
    return " / ".join(sorted(ways))


@ask("send after a reset, twice")
def _():
    with told("reset") as s:
        polled(s, until=0)
        return f"{tried(s.send, b'x')}, {tried(s.send, b'x')}"


@ask("the server resets in the middle")
def _():
    with told("reset-when-told") as s:
        s.sendall(b"x")
        return tried(s.recv, 1)


@ask("send after our own end")
def _():
    with told("echo") as s:
        s.shutdown(socket.SHUT_WR)
        return tried(s.send, b"x")


@ask("SIGPIPE without MSG_NOSIGNAL")
def _():
    with told("echo") as s:
        s.shutdown(socket.SHUT_WR)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            try:
                s.send(b"x")
            finally:
                os._exit(0)
        return f"signal {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


@ask("recv after shutdown for reading")
def _():
    with told("echo") as s:
        s.shutdown(socket.SHUT_RD)
        return repr(s.recv(1))


@ask("shutdown, send, recv, getpeername without a connection")
def _():
    with stream() as s:
        return ", ".join([tried(s.shutdown, socket.SHUT_WR), tried(s.send, b"x"), tried(s.recv, 1), tried(s.getpeername)])


@ask("shutdown of a connection that was reset")
def _():
    with told("reset") as s:
        polled(s, until=0)
        return tried(s.shutdown, socket.SHUT_RDWR)


def close_seen(key, end):
    s = told(f"watch {key}")
    s.recv(1)
    end(s)
    return said(f"report {key}")


def abort(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


@ask("the server sees a close")
def _():
    return close_seen("K3", lambda s: (s.sendall(b"abc"), s.close()))


@ask("the server sees SO_LINGER 0 as a reset")
def _():
    return close_seen("K4", abort)


@ask("the server gets what was sent just before a reset: 10 times")
def _():
    ways = {close_seen(f"K4.{number}", lambda s: (s.sendall(b"last words"), abort(s))) for number in range(10)}
    return " / ".join(sorted(ways))


@ask("the server sees a close with unread data as a reset")
def _():
    s = told("end-first K5")
    polled(s, until=select.POLLIN)
    s.close()
    return said("report K5")


@ask("close with SO_LINGER of 5 s delivers 1 MB")
def _():
    def end(s):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
        s.sendall(pattern(1_000_000))
        s.close()
    return close_seen("K6", end)


@ask("a program that is killed: the server sees an end")
def _():
    s = told("watch K7")
    s.recv(1)
    child = os.fork()
    if child == 0:
        s.sendall(b"last")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    s.close()
    return said("report K7")


@ask("a server that does not read: EAGAIN, then all of it arrives")
def _():
    with told("when-told K8") as s:
        s.setblocking(False)
        sent, full = hashlib.sha256(), 0
        block, quiet = pattern(1 << 16), 0
        while quiet < 3:
            try:
                count = s.send(block)
                sent.update(block[:count])
                full, quiet = full + count, 0
            except BlockingIOError:
                quiet += 1
                select.select([], [s], [], 0.3)
        blocked = polled(s, select.POLLOUT, 0)
        s.setblocking(True)
        said("tell K8")
        s.shutdown(socket.SHUT_WR)
        right = everything(s)[0].decode() == f"{full} {sent.hexdigest()[:12]} end"
        return f"{blocked}, {'all' if right else 'not all'}"


@ask("MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT, MSG_TRUNC")
def _():
    with told("echo") as s:
        s.sendall(b"abcd")
        got = [s.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL), s.recv(2), s.recv(2, socket.MSG_WAITALL)]
        got.append(tried(s.recv, 1, socket.MSG_DONTWAIT))
        s.sendall(b"efgh")
        polled(s, until=select.POLLIN)
        return f"{got}, {s.recv_into(bytearray(4), 4, socket.MSG_TRUNC | socket.MSG_WAITALL)}"


@ask("FIONREAD, SIOCOUTQ and SIOCATMARK")
def _():
    with told("echo") as s:
        s.sendall(b"abcd")
        s.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL)

        def number(request):
            value = array.array("i", [0])
            fcntl.ioctl(s, request, value)
            return value[0]
        return f"{number(termios.FIONREAD)}, {number(termios.TIOCOUTQ)}, {number(0x8905)}"


@ask("SO_RCVTIMEO of 0.5 s")
def _():
    with told("echo") as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 500_000))
        start = time.monotonic()
        return f"{tried(s.recv, 1)} {elapsed(start, 0.5, 10)}"


@ask("SO_RCVLOWAT holds poll back")
def _():
    with told("echo") as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4)
        s.sendall(b"ab")
        first = polled(s, select.POLLIN, 0.5)
        s.sendall(b"cd")
        return f"{first}, {polled(s, select.POLLIN)}"


@ask("an urgent byte from the server: POLLPRI, MSG_OOB")
def _():
    with told("urgent") as s:
        shown = polled(s, select.POLLPRI, 3)
        urgent = tried(s.recv, 1, socket.MSG_OOB)
        s.settimeout(3)
        data = s.recv(1, socket.MSG_WAITALL) + s.recv(1, socket.MSG_WAITALL)
        return f"{shown}, {urgent}, data {data.decode()}"


@ask("an urgent byte to the server")
def _():
    with told("take-urgent K9") as s:
        s.sendall(b"a")
        s.send(b"!", socket.MSG_OOB)
        s.sendall(b"b")
    return said("report K9")


@ask("MSG_OOB where there is none")
def _():
    with told("echo") as s:
        return tried(s.recv, 1, socket.MSG_OOB)


@ask("options keep what they are set to")
def _():
    wanted = [("TCP_NODELAY", socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), ("TCP_CORK", socket.IPPROTO_TCP, socket.TCP_CORK, 1),
              ("SO_KEEPALIVE", socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), ("TCP_KEEPIDLE", socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 7),
              ("TCP_KEEPINTVL", socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3), ("TCP_KEEPCNT", socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
              ("TCP_USER_TIMEOUT", socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 9000), ("TCP_LINGER2", socket.IPPROTO_TCP, socket.TCP_LINGER2, 5),
              ("SO_SNDBUF", socket.SOL_SOCKET, socket.SO_SNDBUF, 20000), ("SO_RCVBUF", socket.SOL_SOCKET, socket.SO_RCVBUF, 20000),
              ("IP_TOS", socket.IPPROTO_IP, socket.IP_TOS, 0x10), ("IP_TTL", socket.IPPROTO_IP, socket.IP_TTL, 33)]
    with told("echo") as s:
        for _, level, option, value in wanted:
            s.setsockopt(level, option, value)
        s.sendall(b"x")
        return " ".join(f"{name}={s.getsockopt(level, option)}" for name, level, option, value in wanted) + f", {s.recv(1).decode()}"


@ask("SO_MARK and IP_TRANSPARENT, which want CAP_NET_ADMIN")
def _():
    with stream() as s:
        return f"{tried(s.setsockopt, socket.SOL_SOCKET, 36, 1)}, {tried(s.setsockopt, socket.IPPROTO_IP, 19, 1)}"


def state_of(s):
    names = "- ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING".split()
    return names[s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]]


def state_becomes(s, state):
    end = time.monotonic() + PATIENCE
    while state_of(s) != state and time.monotonic() < end:
        time.sleep(0.02)
    return state_of(s)


@ask("TCP_INFO: the states of a connection")
def _():
    with told("when-told K10") as s, told("end-first K11") as t, socket.create_server(("127.0.0.1", 0)) as listener, stream() as fresh:
        states = [state_of(fresh), state_of(listener), state_of(s)]
        s.shutdown(socket.SHUT_WR)
        states.append(state_becomes(s, "FIN_WAIT2"))
        states.append(state_becomes(t, "CLOSE_WAIT"))
        said("tell K10")
        return " ".join(states)


@ask("TCP_INFO after a refusal, and while a connect goes on")
def _():
    with stream() as refused:
        tried(refused.connect, (FAR[4], CLOSED))
        refused.settimeout(5)
        tried(refused.recv, 1)
        s, _ = in_progress(4, QUIET[4], 80)
        with s:
            return f"{state_of(refused)} {state_of(s)}"


@ask("TCP_MAXSEG and IP_MTU of a connection")
def _():
    with told("echo") as s:
        return f"{s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)}, {s.getsockopt(socket.IPPROTO_IP, 14)}"


@ask("sendfile from a file of 3 MB")
def _():
    with tempfile.TemporaryFile() as file, told("sum") as s:
        file.write(pattern(3_000_000))
        file.seek(0)
        s.sendfile(file)
        s.shutdown(socket.SHUT_WR)
        return text(s)


@ask("splice from a connection into a pipe and back, 300 kB")
def _():
    with told("down 300000") as source, told("sum") as target:
        read, write = os.pipe()
        while count := os.splice(source.fileno(), write, 1 << 16):
            while count:
                count -= os.splice(read, target.fileno(), count)
        os.close(read)
        os.close(write)
        target.shutdown(socket.SHUT_WR)
        return text(target)


@ask("sendmsg of three pieces, recvmsg into three")
def _():
    with told("echo") as s:
        s.sendmsg([b"ab", b"cd", b"ef"])
        s.recv(6, socket.MSG_PEEK | socket.MSG_WAITALL)
        pieces = [bytearray(1), bytearray(2), bytearray(3)]
        count = s.recvmsg_into(pieces)[0]
        return f"{count} {b' '.join(map(bytes, pieces)).decode()}"


@ask("MSG_ZEROCOPY: data arrives, completion is reported")
def _():
    with told("sum") as s:
        s.setsockopt(socket.SOL_SOCKET, 60, 1)
        data = pattern(60000)  # Kept until the kernel has said that it needs it no more.
        s.send(data, 0x4000000)
        s.shutdown(socket.SHUT_WR)
        result = text(s)
        end = time.monotonic() + PATIENCE
        while "ERR" not in polled(s) and time.monotonic() < end:
            time.sleep(0.02)
        _, ancillary, _, _ = s.recvmsg(1, 512, socket.MSG_ERRQUEUE)
        del data
        return f"{result}, origin {ancillary[0][2][4]}"


@ask("memory that is sent from a mapping of a file")
def _():
    with tempfile.TemporaryFile() as file, told("sum") as s:
        file.write(pattern(500_000))
        file.flush()
        with mmap.mmap(file.fileno(), 500_000) as mapped:
            s.sendall(mapped)
        s.shutdown(socket.SHUT_WR)
        return text(s)


@ask("a connection passed by SCM_RIGHTS")
def _():
    one, two = socket.socketpair()
    with one, two, told("echo") as s:
        socket.send_fds(one, [b"x"], [s.fileno()])
        s.close()
        received = socket.recv_fds(two, 1, 1)[1][0]
        with socket.socket(fileno=received) as passed:
            passed.sendall(b"passed")
            return passed.recv(6, socket.MSG_WAITALL).decode()


@ask("a copy of a descriptor keeps the connection open")
def _():
    with told("echo") as s:
        copy = s.dup()
        s.close()
        with copy:
            copy.sendall(b"x")
            return copy.recv(1).decode()


@ask("SO_DOMAIN, SO_TYPE, SO_PROTOCOL, SO_ACCEPTCONN of a connection")
def _():
    with told("echo") as s:
        return " ".join(str(s.getsockopt(socket.SOL_SOCKET, option)) for option in (39, 3, 38, 30))


@ask("SIGIO on data")
def _():
    with told("echo") as s:
        came = []
        old = signal.signal(signal.SIGIO, lambda *_: came.append(1))
        fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(s, fcntl.F_SETFL, fcntl.fcntl(s, fcntl.F_GETFL) | os.O_ASYNC)
        s.sendall(b"x")
        polled(s, until=select.POLLIN)
        end = time.monotonic() + 5
        while not came and time.monotonic() < end:
            time.sleep(0.02)
        fcntl.fcntl(s, fcntl.F_SETFL, 0)
        signal.signal(signal.SIGIO, old)
        return "came" if came else "did not come"


# MARK: epoll

def shown_by(epoll, seconds=PATIENCE):
    bits = [(select.EPOLLIN, "IN"), (select.EPOLLOUT, "OUT"), (select.EPOLLERR, "ERR"), (select.EPOLLHUP, "HUP"), (select.EPOLLRDHUP, "RDHUP")]
    found = epoll.poll(seconds)
    return "+".join(name for bit, name in bits if found and found[0][1] & bit) or "nothing"


@ask("epoll, edge-triggered: once for each arrival")
def _():
    with told("echo") as s, select.epoll() as epoll:
        epoll.register(s, select.EPOLLIN | select.EPOLLET)
        s.sendall(b"a")
        seen = [shown_by(epoll), shown_by(epoll, 0.2)]
        s.sendall(b"b")
        return ", ".join(seen + [shown_by(epoll)])


@ask("epoll, EPOLLONESHOT: once until it is armed again")
def _():
    with told("echo") as s, select.epoll() as epoll:
        epoll.register(s, select.EPOLLIN | select.EPOLLONESHOT)
        s.sendall(b"a")
        seen = [shown_by(epoll), shown_by(epoll, 0.2)]
        epoll.modify(s, select.EPOLLIN | select.EPOLLONESHOT)
        return ", ".join(seen + [shown_by(epoll)])


@ask("epoll, EPOLLRDHUP at the server's end, edge-triggered")
def _():
    with told("end-first K12") as s, select.epoll() as epoll:
        s.recv(5, socket.MSG_WAITALL)
        epoll.register(s, select.EPOLLRDHUP | select.EPOLLET)
        return shown_by(epoll)


@ask("epoll, a connect that is refused, edge-triggered")
def _():
    with select.epoll() as epoll, stream(timeout=0) as s:
        epoll.register(s, select.EPOLLOUT | select.EPOLLET)
        fresh = shown_by(epoll)
        s.connect_ex((FAR[4], CLOSED))
        polled(s, until=0)
        return f"{fresh}, {shown_by(epoll)}"


@ask("epoll with an eventfd and a timerfd beside a connection")
def _():
    with told("echo") as s, select.epoll() as epoll:
        event = os.eventfd(0)
        timer = ctypes.CDLL(None).timerfd_create(1, 0)
        ctypes.CDLL(None).timerfd_settime(timer, 0, struct.pack("llll", 0, 0, 0, 50_000_000), None)
        names = {event: "eventfd", timer: "timerfd", s.fileno(): "socket"}
        for descriptor in names:
            epoll.register(descriptor, select.EPOLLIN)
        os.eventfd_write(event, 1)
        s.sendall(b"x")
        seen, end = set(), time.monotonic() + PATIENCE
        while len(seen) < 3 and time.monotonic() < end:
            seen |= {names[descriptor] for descriptor, _ in epoll.poll(1)}
        os.close(event)
        os.close(timer)
        return " ".join(sorted(seen))


# MARK: listening

@ask("bind to port 80")
def _():
    with stream() as s:
        return tried(s.bind, ("0.0.0.0", 80))


@ask("bind to port 80 as nobody")
def _():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.write(write, tried(socket.socket().bind, ("0.0.0.0", 80)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    result = os.read(read, 100).decode()
    os.close(read)
    return result


@ask_both("bind to a foreign address")
def _(v):
    with stream(v) as s:
        return tried(s.bind, (FOREIGN[v], 0))


@ask("bind to the machine's own address")
def _():
    with stream() as s:
        return tried(s.bind, (PARENT, 0))


@ask("bind to a foreign address with IP_FREEBIND")
def _():
    with stream() as s:
        s.setsockopt(socket.IPPROTO_IP, 15, 1)
        return tried(s.bind, (FOREIGN[4], 0))


@ask_both("bind to any address, port 0")
def _(v):
    with stream(v) as s:
        s.bind(("0.0.0.0" if v == 4 else "::", 0))
        return f"{s.getsockname()[0]} {s.getsockname()[1] > 0}"


@ask("bind twice: plain, SO_REUSEADDR, SO_REUSEPORT")
def _():
    results = []
    for option in (None, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        with stream() as one, stream() as two:
            for s in (one, two):
                if option:
                    s.setsockopt(socket.SOL_SOCKET, option, 1)
            one.bind(("127.0.0.1", 0))
            one.listen()
            results.append(tried(two.bind, one.getsockname()))
    return ", ".join(results)


@ask("an IPv6 listener and an IPv4 one on a port: with and without IPV6_V6ONLY")
def _():
    results = []
    for only in (1, 0):
        with stream(6) as one, stream() as two:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            one.bind(("::", 0))
            one.listen()
            results.append(tried(two.bind, ("0.0.0.0", one.getsockname()[1])))
    return ", ".join(results)


@ask("an IPv6 listener takes an IPv4 client as IPv4-mapped")
def _():
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener, stream() as client:
        client.connect(("127.0.0.1", listener.getsockname()[1]))
        accepted, peer = listener.accept()
        accepted.close()
        return peer[0]


@ask("a backlog of 1 takes two connections")
def _():
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        clients = [stream(timeout=0) for _ in range(4)]
        for client in clients:
            client.connect_ex(listener.getsockname())
        up = sum(polled(client, seconds=0.2) == "OUT" for client in clients)
        for client in clients:
            client.close()
        return str(up)


@ask_both("a service of the program's own on loopback: open, closed")
def _(v):
    address = "127.0.0.1" if v == 4 else "::1"
    with socket.create_server((address, 0), family=FAMILY[v]) as listener, stream(v) as client, stream(v) as other:
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"local")
            return f"{client.recv(5, socket.MSG_WAITALL).decode()}, {tried(other.connect, (address, CLOSED))}"


@ask("TCP self-connect and accept without a client")
def _():
    with stream() as s, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        s.bind(("127.0.0.1", 0))
        return f"{tried(s.connect, s.getsockname())}, {tried(listener.accept)}"


def published(behaviour, port, handle, version=4, backlog=16):
    """Listens on a published port; the server outside connects to it. What `handle` makes of the client, what that one saw."""
    with socket.create_server(("::" if version == 6 else "0.0.0.0", port), family=FAMILY[version], backlog=backlog) as listener:
        listener.settimeout(6)
        with told(f"call {port} {behaviour}", version) as asking:
            try:
                client, peer = listener.accept()
            except OSError as error:
                return f"accept {name_of(error)}; {everything(asking)[0].decode()}"
            with client:
                ours = handle(client, peer)
            return f"{ours}; {everything(asking)[0].decode()}"


@ask_both("a published port: data both ways, ends")
def _(v):
    def handle(client, peer):
        got = text(client)
        client.sendall(b"welcome")
        return got.replace("\n", "")
    return published("talk", PUBLISHED[v], handle, v)


@ask_both("a published port: the client's address as accept shows it")
def _(v):
    return published("listen", PUBLISHED[v], lambda client, peer: "the client's" if peer[0] == FAR[v] else "loopback", v)


@ask("a published port: the address that getsockname shows")
def _():
    return published("listen", PUBLISHED[4], lambda client, peer: "the machine's" if client.getsockname()[0] == PARENT else "another")


@ask("a published port: the client resets")
def _():
    def handle(client, peer):
        client.recv(1)
        client.sendall(b"y")
        polled(client, until=0)
        return tried(client.recv, 1)
    return published("reset", PUBLISHED[4], handle)


@ask("a published port: the program resets")
def _():
    def handle(client, peer):
        client.recv(1)
        abort(client)
        return "reset"
    return published("greet", PUBLISHED[4], handle)


@ask("a published port: the program answers and resets")
def _():
    def handle(client, peer):
        client.recv(1)
        client.sendall(b"some")
        abort(client)
        return "reset"
    return published("greet", PUBLISHED[4], handle)


@ask("a published port: 8 MB to the client")
def _():
    return published("bulk", PUBLISHED[4], lambda client, peer: client.sendall(pattern(8_000_000)) or "sent")


@ask("a published port where nobody listens")
def _():
    return said(f"call {PUBLISHED_SILENT} gone")


@ask("a published port whose program has ended its listening")
def _():
    published("listen", PUBLISHED[4], lambda client, peer: "")
    return said(f"call {PUBLISHED[4]} gone")


@ask("a port that is not published")
def _():
    with socket.create_server(("0.0.0.0", NOT_PUBLISHED)):
        return said(f"call {NOT_PUBLISHED} knock")


@ask("the program's own published port at the machine's address")
def _():
    with socket.create_server(("0.0.0.0", PUBLISHED[4])) as listener, stream(timeout=3) as client:
        listener.settimeout(3)
        said(f"call {PUBLISHED[4]} knock")
        listener.accept()[0].close()
        if (result := tried(client.connect, (PARENT, PUBLISHED[4]))) != "ok":
            return result
        try:
            accepted, _ = listener.accept()
        except OSError as error:
            return f"ok, accept {name_of(error)}"
        with accepted:
            accepted.sendall(b"hairpin")
            return f"ok, {client.recv(7, socket.MSG_WAITALL).decode()}"


# MARK: datagrams

def exchanged(s, data, to):
    try:
        s.sendto(data, to)
        return s.recv(1 << 17)
    except OSError as error:
        return name_of(error)


@ask_both("UDP: an echo")
def _(v):
    with datagram(v) as s:
        got = exchanged(s, b"hello", (FAR[v], 7000))
        return got.decode() if isinstance(got, bytes) else got


@ask("UDP: the source of an answer, and recvfrom of two answers")
def _():
    with datagram() as s:
        s.sendto(b"twice x", (FAR[4], 7000))
        return " ".join("the server" if s.recvfrom(10) == (b"x", (FAR[4], 7000)) else "another" for _ in range(2))


@ask_both("UDP: connected to a closed port")
def _(v):
    with datagram(v, SHORT) as s:
        s.connect((FAR[v], CLOSED))
        sent = tried(s.send, b"x")
        shown = polled(s, until=0, seconds=3 if sent == "ok" else 0)
        return f"{sent}, {shown}, {tried(s.recv, 1)}"


@ask("UDP: not connected, to a closed port, 1 s")
def _():
    with datagram(timeout=SHORT) as s:
        return f"{tried(s.sendto, b'x', (FAR[4], CLOSED))}, {tried(s.recv, 1)}"


@ask("UDP: IP_RECVERR of a closed port")
def _():
    with datagram() as s:
        s.setsockopt(socket.IPPROTO_IP, 11, 1)
        s.sendto(b"x", (FAR[4], CLOSED))
        polled(s, until=0, seconds=5)
        _, ancillary, flags, _ = s.recvmsg(100, 512, socket.MSG_ERRQUEUE)
        number, origin, kind, code = struct.unpack("=IBBB", ancillary[0][2][:7])
        return f"{errno.errorcode[number]} origin {origin} type {kind} code {code}"


@ask("UDP: connect to an unreachable and a prohibited address, send, receive")
def _():
    results = []
    for address in (UNREACHABLE[4], PROHIBITED[4], UNREACHABLE[6], PROHIBITED[6]):
        with datagram(6 if ":" in address else 4, SHORT) as s:
            s.connect((address, 7000))
            results.append(f"{tried(s.send, b'x')} {tried(s.recv, 1)}")
    return ", ".join(results)


@ask_both("UDP: 8000 bytes, in fragments")
def _(v):
    with datagram(v, 5) as s:
        got = exchanged(s, pattern(8000), (FAR[v], 7000))
        return digest(got) if isinstance(got, bytes) else got


@ask("UDP: 65508 bytes")
def _():
    with datagram() as s:
        return tried(s.sendto, bytes(65508), (FAR[4], 7000))


@ask("UDP: 2000 bytes where fragments are forbidden, and IP_MTU")
def _():
    with datagram() as s:
        s.setsockopt(socket.IPPROTO_IP, 10, 2)
        s.connect((FAR[4], 7000))
        return f"{tried(s.send, bytes(2000))}, {s.getsockopt(socket.IPPROTO_IP, 14)}"


@ask("UDP: GSO, three datagrams in one send")
def _():
    with datagram() as s:
        s.setsockopt(socket.SOL_UDP, 103, 500)
        s.connect((FAR[4], 7000))
        if (result := tried(s.send, bytes(1500))) != "ok":
            return result
        return " ".join(str(len(s.recv(2000))) for _ in range(3))


@ask("UDP: TTL, TOS and source address as the server sees them")
def _():
    with datagram() as s:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x48)
        got = exchanged(s, b"how", (FAR[4], 7000))
        return got.decode() if isinstance(got, bytes) else got


@ask("UDP: IP_PKTINFO shows where an answer came to")
def _():
    with datagram() as s:
        s.setsockopt(socket.IPPROTO_IP, 8, 1)
        if (result := tried(s.sendto, b"x", (FAR[4], 7000))) != "ok":
            return result
        _, ancillary, _, _ = s.recvmsg(100, 512)
        index = struct.unpack("i", ancillary[0][2][:4])[0]
        return "the link with the default route" if socket.if_indextoname(index) == outward() else socket.if_indextoname(index)


@ask("UDP: 100 datagrams, none lost, in order")
def _():
    with datagram() as s:
        s.connect((FAR[4], 7000))
        got = []
        for number in range(100):
            if (result := tried(s.send, str(number).encode())) != "ok":
                return result
            got.append(int(s.recv(10)))
        return str(got == list(range(100)))


@ask("UDP: to port 0, to broadcast without SO_BROADCAST")
def _():
    with datagram() as s:
        return f"{tried(s.sendto, b'x', (FAR[4], 0))}, {tried(s.sendto, b'x', ('255.255.255.255', 7000))}"


@ask("UDP: to broadcast with SO_BROADCAST")
def _():
    with datagram() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return tried(s.sendto, b"x", ("255.255.255.255", 7000))


@ask("UDP on loopback: echo, empty, truncated, peeked, refused")
def _():
    with datagram() as one, datagram() as two:
        one.bind(("127.0.0.1", 0))
        two.connect(one.getsockname())
        for data in (b"hello", b"", b"hello"):
            two.send(data)
        length = one.recv_into(bytearray(2), 2, socket.MSG_PEEK | socket.MSG_TRUNC)
        seen = [one.recv(10), one.recv(10), one.recv(2)]
        one.close()
        return f"{length} {seen}, {tried(two.send, b'x')}, {tried(two.send, b'x')}"


@ask("multicast: join on the default link, join on lo, leave one not joined")
def _():
    group = socket.inet_aton("239.1.2.3")
    with datagram() as s:
        return ", ".join([
            tried(s.setsockopt, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton("0.0.0.0")),
            tried(s.setsockopt, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton("127.0.0.1")),
            tried(s.setsockopt, socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, socket.inet_aton("239.9.9.9") + bytes(4))])


@ask("multicast: send to a group on the default link")
def _():
    with datagram() as s:
        return tried(s.sendto, b"x", ("239.1.2.3", 7000))


@ask("multicast: IPv6 join on lo")
def _():
    with datagram(6) as s:
        group = socket.inet_pton(socket.AF_INET6, "ff02::1234") + struct.pack("i", socket.if_nametoindex("lo"))
        return tried(s.setsockopt, socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)


# MARK: ping, raw and other sockets

def outward():
    """The link with the default route of IPv4, else the first that is not lo, else lo."""
    for line in open("/proc/net/route"):
        words = line.split()
        if words[1:3] and words[1] == "00000000" and words[7] == "00000000":
            return words[0]
    return next((name for _, name in socket.if_nameindex() if name != "lo"), "lo")


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(number):
    body = struct.pack(">BBHHH", 8, 0, 0, number, 1) + b"tombolo!"
    return body[:2] + struct.pack(">H", checksum(body)) + body[4:]


def pinged(address):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
        s.settimeout(2)
        number = os.getpid() & 0xFFFF
        s.sendto(echo_request(number), (address, 0))
        end = time.monotonic() + 3
        while time.monotonic() < end:
            packet = s.recv(2000)
            kind, _, _, seen = struct.unpack(">BBHH", packet[20:26])
            if kind == 0 and seen == number:
                return "answered"
        return "time-out"


@ask("ping by a raw socket: loopback")
def _():
    return pinged("127.0.0.1")


@ask("ping by a raw socket: the server")
def _():
    return pinged(FAR[4])


@ask("a ping socket")
def _():
    return tried(socket.socket, socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


@ask("sockets of other kinds: raw TCP, packet, SCTP, unknown family")
def _():
    kinds = [(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP), (socket.AF_PACKET, socket.SOCK_RAW, 0),
             (socket.AF_INET, socket.SOCK_SEQPACKET, 132), (77, socket.SOCK_STREAM, 0)]
    return ", ".join(tried(socket.socket, *kind) for kind in kinds)


@ask("SO_BINDTODEVICE: lo, a link that does not exist")
def _():
    with stream() as one, stream() as two:
        return f"{tried(one.setsockopt, socket.SOL_SOCKET, 25, b'lo')}, {tried(two.setsockopt, socket.SOL_SOCKET, 25, b'nolink0')}"


@ask("SO_BINDTODEVICE: connect through the link with the default route")
def _():
    with stream() as s:
        s.setsockopt(socket.SOL_SOCKET, 25, outward().encode())
        return tried(s.connect, (FAR[4], 7000))


@ask("the links by name")
def _():
    return " ".join(name for _, name in socket.if_nameindex())


def netlink(kind, body, flags=0x301):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as s:
        s.settimeout(5)
        s.bind((0, 0))
        s.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        messages = []
        while True:
            data = s.recv(1 << 16)
            while data:
                length, kind = struct.unpack("=IH", data[:6])
                if kind == 3:
                    return messages
                if kind == 2:
                    number = -struct.unpack("=i", data[16:20])[0]
                    return errno.errorcode.get(number, "ok")
                messages.append((kind, data[16:length]))
                data = data[(length + 3) & ~3:]


@ask("netlink: the addresses of lo")
def _():
    lo, found = socket.if_nametoindex("lo"), []
    for kind, body in netlink(22, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        family, length, _, _, index = struct.unpack("=BBBBI", body[:8])
        if index == lo:
            size, attribute = struct.unpack("=HH", body[8:12])
            found.append(socket.inet_ntop(family, body[12:8 + size]) + f"/{length}")
    return " ".join(sorted(found))


@ask("netlink: add an address to lo, which wants CAP_NET_ADMIN")
def _():
    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, socket.if_nametoindex("lo")) + struct.pack("=HH", 8, 2) + socket.inet_aton("127.9.9.9")
    return f"{netlink(20, body, 0x605)}, {netlink(21, body, 0x5)}"


@ask("ioctl SIOCGIFADDR and SIOCGIFMTU of lo")
def _():
    with datagram() as s:
        request = b"lo".ljust(16, b"\0") + bytes(24)
        address = socket.inet_ntoa(fcntl.ioctl(s, 0x8915, request)[20:24])
        return f"{address} {struct.unpack('i', fcntl.ioctl(s, 0x8921, request)[16:20])[0]}"


@ask("/proc/net/tcp shows a listening socket of ours")
def _():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(f"0100007F:{listener.getsockname()[1]:04X} 00000000:0000 0A" in open("/proc/net/tcp").read())


@ask("Unix sockets: stream, datagram, seqpacket, abstract, SO_PEERCRED")
def _():
    seen = []
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as listener, socket.socket(socket.AF_UNIX, kind) as client:
            listener.bind("\0questions-own")
            listener.listen()
            client.connect("\0questions-own")
            accepted, _ = listener.accept()
            with accepted:
                accepted.send(b"x")
                pid = struct.unpack("iii", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
                seen.append(f"{client.recv(1).decode()} {pid == os.getpid()}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        seen.append(tried(s.connect, "/nowhere"))
    return ", ".join(seen)


@ask("an abstract Unix socket of the machine")
def _():
    with socket.socket(socket.AF_UNIX) as s:
        return tried(s.connect, "\0tombolo-differences")


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def too_long(*_):
        raise OSError("no answer within 30 s")
    signal.signal(signal.SIGALRM, too_long)
    only = sys.argv[1:]
    for name, function in list(QUESTIONS):
        if only and not any(word in name for word in only):
            continue
        signal.alarm(30)
        try:
            answer = function()
        except OSError as error:
            answer = name_of(error)
        except Exception as error:  # A fault of the question; shown, and so compared.
            answer = f"{type(error).__name__}: {error}"
        signal.alarm(0)
        print(f"{name} → {answer}", flush=True)


if __name__ == "__main__":
    main()
