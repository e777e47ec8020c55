#!/usr/bin/env python3
"""Private services that stand behind a tunnel in the end-to-end tests: targets.py KIND

KIND is `websocket` (echo), `events` (server-sent events that carry the time they were sent at), `blobs` (uploads are hashed,
downloads are of any size and hashed by the visitor), `polls` (long polls, answered all at once when /release is asked for), `small` (answers each request at once) or
`pages` (browser.html and session.js with Debian's sockjs-client, and kite.html; what a page posts to result is printed).
Prints the port it listens on.
"""
import asyncio, hashlib, os, sys, time

import websockets


async def head(reader):
    """Reads a request head; returns method, target and lower-cased fields, or None at the end of the connection."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = raw.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    fields = {}
    for line in lines[1:]:
        if line:
            name, value = line.split(":", 1)
            fields[name.lower()] = value.strip()
    return method, target, fields


def answer(writer, body, kind="text/plain", status="200 OK"):
    body = body if isinstance(body, bytes) else body.encode()
    writer.write(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


async def body_parts(reader, fields):
    if fields.get("transfer-encoding", "").lower() == "chunked":
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            left = size
            while left:
                part = await reader.read(min(left, 1 << 18))
                if not part:
                    raise EOFError
                left -= len(part)
                yield part
            await reader.readline()
            if not size:
                return
    left = int(fields.get("content-length", 0))
    while left:
        part = await reader.read(min(left, 1 << 18))
        if not part:
            raise EOFError
        left -= len(part)
        yield part


def block(number):
    """The bytes of a download: cheap to make, different in each block."""
    return hashlib.sha256(number.to_bytes(8, "big")).digest() * 2048


async def blobs(reader, writer):
    while request := await head(reader):
        method, target, fields = request
        if method == "POST":
            digest, count = hashlib.sha256(), 0
            async for part in body_parts(reader, fields):
                digest.update(part)
                count += len(part)
            answer(writer, f"{count} {digest.hexdigest()}")
        else:
            size = int(target.rsplit("/", 1)[-1])
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
            number = 0
            while size > 0:
                writer.write(block(number)[:size])
                size -= 65536
                number += 1
                await writer.drain()
        await writer.drain()
    writer.close()


async def events(reader, writer):
    if await head(reader):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n")
        try:
            for _ in range(40):
                writer.write(f"data: {time.time()}\n\n".encode())
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
    writer.close()


waiting, release = 0, asyncio.Event()


async def polls(reader, writer):
    global waiting
    while request := await head(reader):
        if request[1].endswith("/waiting"):
            answer(writer, str(waiting))
        elif request[1].endswith("/release"):
            release.set()
            answer(writer, "released")
        else:
            waiting += 1
            await release.wait()
            answer(writer, "event")
        await writer.drain()
    writer.close()


async def small(reader, writer):
    while await head(reader):
        answer(writer, "hello")
        await writer.drain()
    writer.close()


async def pages(reader, writer):
    folder = os.path.dirname(os.path.abspath(__file__))
    while request := await head(reader):
        method, target, fields = request
        path = target.split("?")[0]
        if method == "POST":
            print(b"".join([part async for part in body_parts(reader, fields)]).decode(), flush=True)
            answer(writer, "seen")
        elif path.endswith("/sockjs.js"):
            with open("/usr/share/nodejs/sockjs-client/dist/sockjs.js", "rb") as script:
                answer(writer, script.read(), "text/javascript")
        elif path.endswith("/session.js"):
            with open(f"{folder}/session.js", "rb") as script:
                answer(writer, script.read(), "text/javascript")
        elif path.endswith(("/browser.html", "/kite.html")):
            with open(folder + path[path.rindex("/") :], "rb") as page:
                answer(writer, page.read(), "text/html; charset=utf-8")
        else:
            answer(writer, "no such page", status="404 Not Found")
        await writer.drain()
    writer.close()


async def echo(socket, path=None):
    async for message in socket:
        await socket.send(message)


async def main(kind):
    if kind == "websocket":
        server = await websockets.serve(echo, "127.0.0.1", 0, max_size=32 << 20)
        port = list(server.sockets)[0].getsockname()[1]
    else:
        handler = {"events": events, "blobs": blobs, "polls": polls, "small": small, "pages": pages}[kind]
        server = await asyncio.start_server(handler, "127.0.0.1", 0, backlog=2048, limit=1 << 18)
        port = server.sockets[0].getsockname()[1]
    print(port, flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
