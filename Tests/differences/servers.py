#!/usr/bin/python3
"""The other ends of questions.py.

  servers.py far      the server's namespace: TCP and UDP port 7000 on 10.9.0.2 and fd09::2, TCP port 7001 that speaks first
  servers.py parent   the parent's namespace: services of the machine itself

A TCP connection to port 7000 begins with a line that says what the server shall do. What it saw of a connection with a key
can be asked for with `report KEY`. Prints one line when it listens.
"""
import errno
import hashlib
import select
import socket
import struct
import subprocess
import sys
import threading
import time

V4, V6 = "10.9.0.2", "fd09::2"
PORT, FIRST = 7000, 7001
PATIENCE = 5  # seconds; every wait here ends


class Board:
    """What was seen, by key; and signs that are given, by key."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()

    def put(self, key, value):
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()

    def take(self, key):
        with self.changed:
            self.changed.wait_for(lambda: key in self.values, PATIENCE)
            return self.values.get(key, "nothing was seen")


board = Board()


def name_of(error):
    if isinstance(error, socket.timeout) and error.errno is None:
        return "time-out"
    return errno.errorcode.get(error.errno, str(error))


def line_of(connection):
    line = b""
    while not line.endswith(b"\n") and len(line) < 200:
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
    return line.decode().split()


def abort(connection):
    """A reset: what close(2) does with SO_LINGER and no time."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def rest_of(connection):
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


def pattern(length):
    return (b"0123456789abcdef" * (length // 16 + 1))[:length]


def call(address, port, behaviour):
    """Connects to the program's published port, as a client from outside.

    What is published may open and close a moment after the program's own socket: a refused client tries again for a while,
    and so does one that expects a refusal (`gone`).
    """
    end = time.monotonic() + 3
    while True:
        result = called(address, port, "listen" if behaviour == "gone" else behaviour)
        if (result == "ECONNREFUSED") == (behaviour == "gone") or time.monotonic() > end:
            return result
        time.sleep(0.1)


def called(address, port, behaviour):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    client = socket.socket(family)
    client.settimeout(5)
    try:
        client.connect((address, port))
    except OSError as error:
        return name_of(error)
    try:
        if behaviour == "knock":
            return "connected"
        if behaviour == "talk":
            client.sendall(b"hello\n")
            client.shutdown(socket.SHUT_WR)
            data, end = rest_of(client)
            return f"{data.decode()}, {end}"
        if behaviour == "greet":
            client.sendall(b"x")
        if behaviour in ("greet", "listen"):
            data, end = rest_of(client)
            return f"{data.decode()}, {end}"
        if behaviour == "reset":
            client.sendall(b"x")
            client.recv(1)
            abort(client)
            return "reset sent"
        if behaviour == "bulk":
            digest, size = hashlib.sha256(), 0
            while True:
                piece = client.recv(1 << 16)
                if not piece:
                    return f"{size} bytes {digest.hexdigest()[:12]}"
                digest.update(piece)
                size += len(piece)
    except OSError as error:
        return f"connected, {name_of(error)}"
    finally:
        client.close()


def serve(connection, peer):
    connection.settimeout(PATIENCE)
    words = line_of(connection)
    if not words:
        return
    command, *rest = words
    if command == "echo":
        while True:
            data = connection.recv(1 << 16)
            if not data:
                break
            connection.sendall(data)
    elif command == "sum":
        data, end = rest_of(connection)
        connection.sendall(f"{len(data)} {hashlib.sha256(data).hexdigest()[:12]} {end}".encode())
    elif command == "down":
        connection.sendall(pattern(int(rest[0])))
    elif command == "end-first":
        try:
            connection.sendall(b"first")
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The client has reset it already; receiving tells.
        data, end = rest_of(connection)
        board.put(rest[0], f"{data.decode()}, {end}")
    elif command == "end-twice":
        # Its end, and then nothing more until the client says that it has seen it.
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        if rest[0] == "reset":
            abort(connection)
        elif rest[0] == "close":
            rest_of(connection)
    elif command == "reset":
        abort(connection)
    elif command == "data-reset":
        connection.sendall(b"some")
        abort(connection)
    elif command == "reset-when-told":
        connection.recv(1)
        abort(connection)
    elif command == "urgent":
        connection.sendall(b"a")
        connection.send(b"!", socket.MSG_OOB)
        connection.sendall(b"b")
        connection.recv(1)
    elif command == "take-urgent":
        data = connection.recv(1)
        mark = select.poll()
        mark.register(connection, select.POLLPRI)
        urgent = connection.recv(1, socket.MSG_OOB).decode() if mark.poll(3000) else "none"
        data += rest_of(connection)[0]
        board.put(rest[0], f"data {data.decode()}, urgent {urgent}")
    elif command == "oob-in-between":
        # Three bytes after each other, the middle one urgent, in one reading of the other side.
        connection.sendall(b"a" * 1000)
        connection.send(b"!", socket.MSG_OOB)
        connection.sendall(b"b" * 1000)
        rest_of(connection)
    elif command == "vanish":
        # Nothing of this machine reaches the parent any more over IPv4, for so many seconds.
        connection.sendall(b"v")
        time.sleep(0.2)
        subprocess.run(["ip", "route", "add", "blackhole", "10.9.0.1/32"], check=True)
        try:
            time.sleep(float(rest[0]))
        finally:
            subprocess.run(["ip", "route", "del", "blackhole", "10.9.0.1/32"], check=True)
    elif command == "watch":
        connection.sendall(b"w")
        data, end = rest_of(connection)
        board.put(rest[0], f"{len(data)} bytes, {end}")
    elif command == "when-told":
        board.take(rest[0])
        data, end = rest_of(connection)
        connection.sendall(f"{len(data)} {hashlib.sha256(data).hexdigest()[:12]} {end}".encode())
    elif command == "tell":
        board.put(rest[0], True)
        connection.sendall(b"told")
    elif command == "report":
        connection.sendall(str(board.take(rest[0])).encode())
    elif command == "peer":
        connection.sendall(f"{peer[0]} {peer[1]}".encode())
    elif command == "call":
        connection.sendall(str(call(peer[0], int(rest[0]), rest[1])).encode())


def answer(connection, peer):
    with connection:
        try:
            serve(connection, peer)
        except OSError:
            pass


def speak_first(connection, peer):
    with connection:
        try:
            connection.sendall(b"220 hello\n")
            rest_of(connection)
        except OSError:
            pass


def accept_all(listener, handle):
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=handle, args=(connection, peer), daemon=True).start()


def answer_datagrams(server):
    """Gives every datagram back; to `how` it says how the datagram came."""
    while True:
        data, ancillary, _, peer = server.recvmsg(1 << 16, 256)
        if data == b"how":
            seen = {}
            for level, kind, value in ancillary:
                if (level, kind) in ((socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)):
                    seen["TTL"] = struct.unpack("i", value[:4])[0]
                if (level, kind) in ((socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)):
                    seen["TOS"] = value[0]
            data = f"TTL {seen.get('TTL')} TOS {seen.get('TOS')} from {peer[0]}".encode()
        elif data.startswith(b"twice "):
            server.sendto(data[6:], peer)
            data = data[6:]
        server.sendto(data, peer)


def far():
    for family, address in ((socket.AF_INET, V4), (socket.AF_INET6, V6)):
        for port, handle in ((PORT, answer), (FIRST, speak_first)):
            listener = socket.create_server((address, port), family=family, backlog=512)
            threading.Thread(target=accept_all, args=(listener, handle), daemon=True).start()
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        datagrams.bind((address, PORT))
        if family == socket.AF_INET:
            datagrams.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            datagrams.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
        else:
            datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        threading.Thread(target=answer_datagrams, args=(datagrams,), daemon=True).start()


def parent():
    for address, port in (("10.9.0.1", 8090), ("127.0.0.1", 8091)):
        listener = socket.create_server((address, port), backlog=16)
        threading.Thread(target=accept_all, args=(listener, speak_first), daemon=True).start()
    local = socket.socket(socket.AF_UNIX)
    local.bind("\0tombolo-differences")
    local.listen(16)
    threading.Thread(target=accept_all, args=(local, speak_first), daemon=True).start()


{"far": far, "parent": parent}[sys.argv[1]]()
print("listening", flush=True)
threading.Event().wait()
