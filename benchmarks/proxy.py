"""A distance: ``python -m benchmarks.proxy MILLISECONDS PORT``.

It prints a port, and passes on what comes there to the given one, and back, each byte half of the given milliseconds
later: a round trip takes all of them. A connection costs a round trip as well, so it carries nothing
before that is over. Serves until its input ends.
"""

import asyncio
import contextlib
import json
import sys
from typing import List, Tuple


async def _later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ready: float, delay: float) -> None:
    """Pass on what comes, when its time has come."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[Tuple[float, bytes]] = asyncio.Queue()
    writing = asyncio.ensure_future(_written(waiting, writer))
    data = b"begin"
    while data:
        data = b""
        with contextlib.suppress(OSError):
            data = await reader.read(65536)
        waiting.put_nowait((max(loop.time(), ready) + delay, data))
    await writing


async def _written(waiting: "asyncio.Queue[Tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, data = await waiting.get()
        await asyncio.sleep(due - loop.time())
        if not data:
            break
        writer.write(data)
    writer.close()


async def main(round_trip: float, port: int) -> None:
    """Serve until the input ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ready = asyncio.get_running_loop().time() + round_trip
        back, there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_later(reader, there, ready, round_trip / 2), _later(back, writer, ready, round_trip / 2))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(json.dumps([sock.getsockname()[1] for sock in server.sockets]), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


def _arguments(given: List[str]) -> Tuple[float, int]:
    return float(given[0]) / 1000, int(given[1])


if __name__ == "__main__":
    asyncio.run(main(*_arguments(sys.argv[1:])))
