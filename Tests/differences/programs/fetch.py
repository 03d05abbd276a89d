"""Fetches each URL by urllib, or connects to a HOST:PORT within 2.5 s, by asyncio's happy eyeballs; prints what came of it."""
import asyncio
import sys
import urllib.request


def fetched(url):
    with urllib.request.urlopen(url) as response:
        return f"{response.status} {response.read().decode().strip()}"


async def connected(place):
    host, _, port = place.rpartition(":")
    opening = asyncio.open_connection(host, int(port), happy_eyeballs_delay=0.25)
    _, writer = await asyncio.wait_for(opening, 2.5)
    writer.close()
    return "connected"


for argument in sys.argv[1:]:
    try:
        answer = fetched(argument) if argument.startswith("http") else asyncio.run(connected(argument))
    except Exception as error:
        answer = f"{type(error).__name__} {error}"
    print(f"python {argument} → {answer}".rstrip())
