#!/usr/bin/env python3
"""A forward proxy of the end-to-end tests: proxies.py connect|socks5. Demands user `u` and password `p`, takes every name for
127.0.0.1, prints its port and then each `host:port` it was asked for.

Or a network that can be cut: proxies.py cut PORT. Prints its port; what connects there reaches PORT. On SIGUSR1 every connection breaks, and for
2 s so does every new one; then `back` is printed."""
import asyncio, base64, signal, socket, struct, sys


async def copy(reader, writer):
    try:
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
        writer.write_eof()
    except (ConnectionError, OSError):
        writer.close()


async def join(reader, writer, host, port, granted):
    print(f"{host}:{port}", flush=True)
    there = await asyncio.open_connection("127.0.0.1", port)
    writer.write(granted)
    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))


async def connect(reader, writer):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    method, target, _ = head.split("\r\n")[0].split(" ")
    if method != "CONNECT" or base64.b64encode(b"u:p").decode() not in head:
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        return writer.close()
    host, port = target.rsplit(":", 1)
    await join(reader, writer, host, int(port), b"HTTP/1.1 200 Connection established\r\n\r\n")


async def socks5(reader, writer):
    methods = (await reader.readexactly(2))[1]
    assert 2 in await reader.readexactly(methods)
    writer.write(b"\x05\x02")
    await reader.readexactly(1)
    user = await reader.readexactly((await reader.readexactly(1))[0])
    password = await reader.readexactly((await reader.readexactly(1))[0])
    writer.write(b"\x01\x00" if (user, password) == (b"u", b"p") else b"\x01\x01")
    _, _, _, kind = await reader.readexactly(4)
    assert kind == 3
    host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
    port = int.from_bytes(await reader.readexactly(2), "big")
    await join(reader, writer, host, port, b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")


async def cut(port):
    writers, isCut = set(), False

    def break_off(writer):
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def serve(*here):
        if isCut:
            return break_off(here[1])
        there = await asyncio.open_connection("127.0.0.1", port)
        ends = {here[1], there[1]}
        writers.update(ends)
        await asyncio.gather(copy(here[0], there[1]), copy(there[0], here[1]))
        writers.difference_update(ends)

    async def cut_now():
        nonlocal isCut
        isCut = True
        for writer in list(writers):
            break_off(writer)
        await asyncio.sleep(2)
        isCut = False
        print("back", flush=True)

    loop = asyncio.get_running_loop()
    tasks = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: tasks.append(loop.create_task(cut_now())))
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.create_future()


async def main(kind, *more):
    if kind == "cut":
        return await cut(int(more[0]))
    server = await asyncio.start_server({"connect": connect, "socks5": socks5}[kind], "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().create_future()


asyncio.run(main(*sys.argv[1:]))
