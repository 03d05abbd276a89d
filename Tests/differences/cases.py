#!/usr/bin/python3
"""The cases of TCP that the table in docs/tcp-semantics.md shows, as questions.py asks its own: what a program sees of them.

Prints a line `case → answer` for each. The number of short connections is in SHORT_CONNECTIONS.
"""
import errno
import os
import select
import socket
import struct
import termios
import time

import questions
from questions import (CLOSED, FAR, NO_ROUTE, PROHIBITED, QUIET, SHORT, UNREACHABLE, abort, ask, ask_both, close_seen, connected_to,
                       digest, elapsed, error_of, everything, in_progress, name_of, pattern, polled, said, stream, text, told, tried)

questions.QUESTIONS.clear()


@ask_both("refused")
def _(v):
    return connected_to(v, FAR[v], CLOSED)


@ask_both("host unreachable")
def _(v):
    return connected_to(v, UNREACHABLE[v], 80)


@ask_both("no route")
def _(v):
    return connected_to(v, NO_ROUTE[v], 80)


@ask_both("prohibited by a router")
def _(v):
    return connected_to(v, PROHIBITED[v], 80)


@ask_both("black hole, 1 s")
def _(v):
    return connected_to(v, QUIET[v], 80, SHORT)


@ask_both("reset by the server before data: poll, SO_ERROR, recv")
def _(v):
    with told("reset", v) as s:
        return f"{polled(s, until=0)}, {error_of(s)}, {tried(s.recv, 1)}"


@ask_both("reset by the server after data")
def _(v):
    with told("data-reset", v) as s:
        polled(s, until=0)
        return text(s)


@ask_both("half-close by the program: what it has sent, and the answer")
def _(v):
    with told("sum", v) as s:
        s.sendall(pattern(100_000))
        s.shutdown(socket.SHUT_WR)
        return text(s)


@ask_both("half-close by the server: what comes, and what it gets afterwards")
def _(v):
    with told(f"end-first H{v}", v) as s:
        first = text(s)
        s.sendall(b"second")
        s.shutdown(socket.SHUT_WR)
        return f"{first}; {said(f'report H{v}')}"


@ask_both("the server speaks first")
def _(v):
    with stream(v) as s:
        s.connect((FAR[v], 7001))
        return s.recv(100).decode().strip()


@ask_both("one byte there and back, 1000 times")
def _(v):
    with told("echo", v) as s:
        for number in range(1000):
            byte = bytes([number & 0xff])
            s.sendall(byte)
            if s.recv(1) != byte:
                return f"another byte at {number}"
        return "all"


@ask_both("a slow reader gets 4 MB")
def _(v):
    with told("down 4000000", v) as s:
        data = b""
        for _ in range(40):
            time.sleep(0.02)
            data += s.recv(10_000)
        rest, end = everything(s)
        return f"{digest(data + rest)}, {end}"


@ask_both("a server that never reads: send, poll, SO_SNDTIMEO of 0.5 s, close")
def _(v):
    s = told(f"when-told N{v}", v)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 500_000))
    start, sent = time.monotonic(), 0
    try:
        while True:
            start = time.monotonic()
            sent += s.send(pattern(1 << 16))
    except BlockingIOError as error:
        shown = f"{name_of(error)} {elapsed(start, 0.5, 10)}, {polled(s, select.POLLOUT, 0)}"
    s.shutdown(socket.SHUT_WR)
    said(f"tell N{v}")
    data, _ = everything(s)
    s.close()
    return f"{shown}, {'all arrived' if data.startswith(str(sent).encode() + b' ') else 'not all arrived'}"


@ask_both("closed with unread data: the server sees")
def _(v):
    s = told(f"end-first U{v}", v)
    polled(s, until=select.POLLIN)
    s.close()
    return said(f"report U{v}")


@ask_both("closed with SO_LINGER of 0 s: the server sees")
def _(v):
    s = told(f"watch L{v}", v)
    s.recv(1)
    s.sendall(b"last words")
    abort(s)
    return said(f"report L{v}")


@ask_both("connect without blocking, then poll: open")
def _(v):
    s, first = in_progress(v, FAR[v], 7000)
    with s:
        return f"{first}, {polled(s)}, {error_of(s)}"


@ask_both("connect without blocking, then poll: refused")
def _(v):
    s, first = in_progress(v, FAR[v], CLOSED)
    with s:
        return f"{first}, {polled(s, until=0)}, {error_of(s)}"


@ask_both("connect without blocking, then poll for 1 s: black hole")
def _(v):
    s, first = in_progress(v, QUIET[v], 80)
    with s:
        return f"{first}, {polled(s, seconds=SHORT)}"


@ask_both("connect given up early, and its port used again for another")
def _(v):
    own = 45600 + v
    s = stream(v, 0)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", own))
    first = errno.errorcode.get(s.connect_ex((QUIET[v], 80)), "ok")
    time.sleep(0.2)
    s.close()
    with stream(v) as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("", own))
        again.connect((FAR[v], 7000))
        again.sendall(b"echo\nx")
        return f"{first}, {again.recv(1).decode()}"


@ask("short connections one after the other, which the server ends")
def _():
    count = int(os.environ.get("SHORT_CONNECTIONS", "1000"))
    start, good = time.monotonic(), 0
    for _ in range(count):
        # Each question has 30 s, but this one as long as it takes.
        questions.signal.alarm(30)
        with told("down 10") as s:
            good += everything(s) == (pattern(10), "end")
    questions.sys.stderr.write(f"{count} short connections in {time.monotonic() - start:.1f} s\n")
    return "all" if good == count else f"{good} of {count}"


@ask_both("bind before connect: the own port, the server's view of it")
def _(v):
    own = 45610 + v
    with stream(v) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", own))
        s.connect((FAR[v], 7000))
        kept = s.getsockname()[1] == own
        s.sendall(b"peer\n")
        seen = everything(s)[0].split()[-1] == str(own).encode()
        return f"{'kept' if kept else 'another'}, {'the same' if seen else 'another'}"


@ask_both("TCP_FASTOPEN: sendto with MSG_FASTOPEN, TCP_FASTOPEN_CONNECT")
def _(v):
    with stream(v) as s, stream(v) as t:
        sent = s.sendto(b"sum\nfast", 0x20000000, (FAR[v], 7000))
        s.shutdown(socket.SHUT_WR)
        t.setsockopt(socket.IPPROTO_TCP, 30, 1)
        t.connect((FAR[v], 7000))
        t.sendall(b"sum\nfaster")
        t.shutdown(socket.SHUT_WR)
        return f"{sent}, {everything(s)[0].split()[0].decode()}, {everything(t)[0].split()[0].decode()}"


@ask_both("TCP_FASTOPEN to a closed port: sendto, recv")
def _(v):
    with stream(v) as s:
        first = tried(s.sendto, b"x", 0x20000000, (FAR[v], CLOSED))
        return first if first != "ok" else f"ok, {tried(s.recv, 1)}"


def at_mark(s):
    value = questions.array.array("i", [0])
    questions.fcntl.ioctl(s, 0x8905, value)
    return value[0]


@ask_both("an out-of-band byte from the server: poll, what is before it, SIOCATMARK, MSG_OOB, the rest")
def _(v):
    with told("oob-in-between", v) as s:
        s.settimeout(5)
        shown = polled(s, select.POLLPRI, 5)
        before = b""
        while len(before) < 1000:
            before += s.recv(5000)
        mark = at_mark(s)
        urgent = s.recv(1, socket.MSG_OOB)
        after = b""
        while len(after) < 1000:
            after += s.recv(5000)
        return f"{shown}, {len(before)}, {mark}, {urgent.decode()}, {len(after)}, {at_mark(s)}"


@ask_both("an out-of-band byte from the server with SO_OOBINLINE: where the mark is")
def _(v):
    with told("oob-in-between", v) as s:
        s.settimeout(5)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        polled(s, select.POLLPRI, 5)
        data = b""
        while not at_mark(s):
            data += s.recv(1)
        return f"{len(data)}, {s.recv(1).decode()}"


@ask_both("an out-of-band byte to the server: what it sees")
def _(v):
    with told(f"take-urgent O{v}", v) as s:
        s.sendall(b"a")
        s.send(b"!", socket.MSG_OOB)
        s.sendall(b"b")
    return said(f"report O{v}")


@ask("keepalive of 1 s, twice: an idle connection, 4 s")
def _():
    with told("echo") as s:
        keep_alive(s)
        time.sleep(4)
        s.sendall(b"x")
        return s.recv(1).decode()


@ask("keepalive of 1 s, twice: a server that has vanished, 6 s")
def _():
    with told("vanish 6") as s:
        keep_alive(s)
        s.settimeout(6)
        s.recv(1)
        return tried(s.recv, 1)


def keep_alive(s):
    for level, option, value in ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
                                 (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)):
        s.setsockopt(level, option, value)


questions.main()
