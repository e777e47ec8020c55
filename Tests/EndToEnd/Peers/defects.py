#!/usr/bin/env python3
"""Does to a gateway what was too much for Go's: defects.py ACTION PORT ...

impostor PORT ID   anonymous calls of kites that say they have that id, then the end of their connections
sessions PORT N    that many sessions with the gateway's kite, with one call each, sixteen at a time, closed or broken off
"""
import asyncio, json, sys

import websockets


async def session(port, identity, clean):
    """Opens a session, pings and leaves."""
    socket = await websockets.connect(f"ws://127.0.0.1:{port}/kite/000/defects/websocket")
    await socket.recv()
    for method in ["kite.ping", "register", "nosuch"] if identity else ["kite.ping"]:
        call = {"kite": identity or {}, "withArgs": [""], "responseCallback": "[Function]"}
        if method == "kite.ping":
            call["withArgs"] = []
        await socket.send(json.dumps([json.dumps(
            {"method": method, "arguments": [call], "callbacks": {"0": [0, "responseCallback"]}})]))
        while not (frame := await socket.recv()).startswith("a"):
            pass
        error = json.loads(json.loads(frame[1:])[0])["arguments"][0]["error"]
        assert bool(error) == (method != "kite.ping"), frame
    if clean:
        await socket.close()
    else:
        socket.transport.abort()


async def main(action, port, argument):
    if action == "impostor":
        identity = {"name": "lab", "username": "kontrol", "id": argument, "environment": "development", "region": "local", "version": "1.0.0",
                    "hostname": "h"}
        for clean in [True, False]:
            await session(port, identity, clean)
    else:
        left = iter(range(int(argument)))

        async def some():
            for number in left:
                await session(port, None, number % 2)

        await asyncio.gather(*[some() for _ in range(16)])


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3]))
