#!/usr/bin/python3
"""A WebSocket client that is not ours (Debian's python3-websockets) against the test server: messages of all sizes, fragments and
compression in its variants. Prints "ok" when each came back as it was sent. Usage: websocket_peer.py PORT"""
import asyncio
import random
import sys

import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

URL = f"ws://127.0.0.1:{sys.argv[1]}"
ALPHABET = "abc é☃😀"


async def echoes(offer, agreed):
    extensions = [] if offer is None else [ClientPerMessageDeflateFactory(**offer)]
    async with websockets.connect(
        URL + "/websocket_echo", compression=None, extensions=extensions, max_size=None
    ) as socket:
        assert bool(socket.extensions) == agreed, (offer, socket.extensions)
        for extension in socket.extensions:
            assert extension.remote_no_context_takeover and extension.local_no_context_takeover
            assert extension.remote_max_window_bits == offer.get("server_max_window_bits", 15)
        generator = random.Random(1)
        for size in [0, 1, 125, 126, 1024, 65535, 65536]:
            for alphabet in [ALPHABET[:1], ALPHABET]:
                text = "".join(generator.choices(alphabet, k=size))
                await socket.send(text)
                assert await socket.recv() == text
            binary = generator.randbytes(size)
            await socket.send(binary)
            assert await socket.recv() == binary
        pieces = ["x" * 5000, "é" * 3000, "", "end"]
        await socket.send(pieces)
        await socket.ping()
        assert await socket.recv() == "".join(pieces)
        await socket.close(code=3001, reason="done")
        assert socket.close_code == 3001


async def bomb():
    async with websockets.connect(URL + "/websocket_echo") as socket:
        assert socket.extensions
        await socket.send("x" * ((16 << 20) + 1))
        try:
            await socket.recv()
            raise AssertionError("a message over the limit came back")
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 1009, closed


async def sockjs():
    async with websockets.connect(URL + "/echo/000/peer/websocket") as socket:
        assert socket.extensions
        assert await socket.recv() == "o"
        message = "kite " * 10000
        await socket.send(f'["{message}"]')
        assert await socket.recv() == f'a["{message}"]'


async def main():
    await echoes(None, False)
    await echoes({}, True)
    await echoes({"client_max_window_bits": True}, True)
    await echoes({"client_max_window_bits": 9, "server_max_window_bits": 9}, True)
    await echoes({"server_no_context_takeover": True, "client_no_context_takeover": True}, True)
    await echoes({"server_max_window_bits": 8}, False)
    await bomb()
    await sockjs()
    print("ok")


asyncio.run(asyncio.wait_for(main(), 50))
