"""Many events in one packet, read by an event loop: all of them are handed out, also if a thread has read them."""

import asyncio
from typing import List

import pytest
from streams import client_of
from support import PATIENCE, nothing_left_open

from copilot_sync.aio import iterate_stream
from copilot_sync.aio.loop_watch import watches_sockets
from copilot_sync.emulator import Emulator, Reply
from copilot_sync.stream_steps import READ_AHEAD


class BlindLoop(asyncio.SelectorEventLoop):
    """A loop that can't watch the sockets of others, as that of Windows."""

    add_reader = asyncio.AbstractEventLoop.add_reader


@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, BlindLoop], ids=["the loop", "a thread"])
def test_a_packet_of_more_events_than_are_read_ahead_comes_whole(new_loop: "type[asyncio.SelectorEventLoop]") -> None:
    """Whoever waits is woken also if more has come than is kept at once."""
    sent = [f"{number} " for number in range(2 * READ_AHEAD + 50)]

    async def received(emulator: Emulator) -> List[str]:
        with client_of(emulator) as client:
            return [piece async for piece in iterate_stream(client.stream("Hello"))]

    with nothing_left_open(), Emulator(reply=Reply(sent, per_write=len(sent), first_delay=0.1)) as emulator:
        loop = new_loop()
        try:
            assert watches_sockets(loop) is (new_loop is not BlindLoop)
            assert loop.run_until_complete(asyncio.wait_for(received(emulator), PATIENCE)) == sent
        finally:
            loop.close()
