# A server and a client of QUIC, by aioquic. `server ADDRESS FOLDER` writes down each name that a client has asked for, and sends
# back what comes on a stream. `client HOST NAME [big|v2|short]` says what became of a connection to HOST as NAME ("-": without one); short: it soon gives up.
import asyncio, ipaddress, os, socket, ssl, sys, time
from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion

def configuration(is_client):
    return QuicConfiguration(is_client=is_client, alpn_protocols=["echo"], verify_mode=ssl.CERT_NONE, idle_timeout=20.0)

async def server(address, folder):
    settings = configuration(False)
    settings.load_cert_chain(folder + "/cert.pem", folder + "/key.pem")
    async def echo(reader, writer):
        writer.write(await reader.read()); writer.write_eof()
    from aioquic import tls
    original = tls.Context._server_handle_hello
    def seen(self, buffer, *rest):
        place = buffer.tell()
        hello = tls.pull_client_hello(buffer)
        buffer.seek(place)
        with open(folder + "/asked", "a") as names: names.write(f"{hello.server_name}\n")
        return original(self, buffer, *rest)
    tls.Context._server_handle_hello = seen
    await serve(address, 443, configuration=settings, stream_handler=lambda r, w: asyncio.ensure_future(echo(r, w)))
    await asyncio.Event().wait()

async def client(host, name, how):
    settings = configuration(True)
    settings.server_name = None if name == "-" else name
    if how == "v2": settings.original_version = QuicProtocolVersion.VERSION_2; settings.supported_versions = [QuicProtocolVersion.VERSION_2]
    # As large as post-quantum key shares make it: a hello of two datagrams.
    if how == "big": settings.alpn_protocols = ["echo"] + [f"x{number:03}" * 60 for number in range(8)]
    begun = time.monotonic()
    try:
        async with asyncio.timeout(1.5 if how == "short" else 20), connect(host, 443, configuration=settings) as connection:
            reader, writer = await connection.create_stream()
            data = os.urandom(60_000); writer.write(data); writer.write_eof()
            print(how, name, "echo" if await reader.read() == data else "other", flush=True)
    except (OSError, asyncio.TimeoutError, ConnectionError): print(how, name, "nothing", flush=True)

if sys.argv[1] == "server": asyncio.run(server(*sys.argv[2:]))
else: asyncio.run(client(sys.argv[2], sys.argv[3], (sys.argv[4:] + ["plain"])[0]))
