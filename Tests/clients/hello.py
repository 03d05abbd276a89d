# Sends a ClientHello cut in some way; prints what comes back first: a handshake record, or nothing.
import socket, ssl, sys, time
way, name, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
client = context.wrap_bio(incoming, outgoing, server_hostname=None if name == "-" else name)
try: client.do_handshake()
except ssl.SSLWantReadError: pass
record = outgoing.read(); body = record[5:]
if way == "pq":  # An unknown extension of 1900 bytes behind the others, as large as post-quantum key shares.
    length = int.from_bytes(body[1:4], "big") + 1904; at = 4 + 2 + 32; at += 1 + body[at]
    at += 2 + int.from_bytes(body[at:at+2], "big"); at += 1 + body[at]
    extensions = body[at+2:] + (0x6a6a).to_bytes(2, "big") + (1900).to_bytes(2, "big") + bytes(1900)
    body = body[:1] + length.to_bytes(3, "big") + body[4:at] + len(extensions).to_bytes(2, "big") + extensions
def frame(part): return b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part
cut = len(body) // 3
bytes_ = frame(body[:cut]) + frame(body[cut:2*cut]) + frame(body[2*cut:]) if way == "records" else frame(body)
s = socket.create_connection(("ok.test", port), 5); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
try:
    if way == "bytes":
        for byte in bytes_: s.sendall(bytes([byte]))
    else: s.sendall(bytes_)
    got = s.recv(5)
    print(way, name, "handshake" if got[:1] == b"\x16" else "alert" if got[:1] == b"\x15" else "ended" if not got else "other", flush=True)
except OSError as error: print(way, name, "reset", flush=True)
