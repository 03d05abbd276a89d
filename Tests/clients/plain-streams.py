#!/usr/bin/env python3
"""Stands in for AWS's vsock-proxy and for vscproxy, byte by byte as they behave: no header, no half-close (the first end of
either side ends both), 8 KiB at a time. The one is `LISTEN` on vsock and `CONNECT` to TCP, the other the other way round.

usage: plain-streams.py LISTEN CONNECT     each unix:PATH, tcp:ADDR:PORT or vsock:CID:PORT
"""
import os
import socket
import sys
import threading


def made(text, listens):
    kind, rest = text.split(":", 1)
    if kind == "unix":
        s, address = socket.socket(socket.AF_UNIX), rest
    else:
        host, port = rest.rsplit(":", 1)
        if kind == "tcp":
            s, address = socket.socket(), (host, int(port))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            s, address = socket.socket(socket.AF_VSOCK), (int(host), int(port))
    if not listens:
        s.connect(address)
        return s
    s.bind(address)
    if kind == "unix":
        os.chmod(rest, 0o666)
    s.listen(64)
    return s


def copy(a, b):
    try:
        while data := a.recv(8192):
            b.sendall(data)
    except OSError:
        pass
    for s in a, b:
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(client, target):
    try:
        other = made(target, False)
    except OSError:
        client.close()
        return
    threads = [threading.Thread(target=copy, args=pair, daemon=True) for pair in ((client, other), (other, client))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    client.close()
    other.close()


listener = made(sys.argv[1], True)
print("listens", flush=True)
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client, sys.argv[2]), daemon=True).start()
