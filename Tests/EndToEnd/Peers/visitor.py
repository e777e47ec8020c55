#!/usr/bin/env python3
"""A visitor of the end-to-end tests: visitor.py ACTION URL [ARGUMENT ...]. Prints one JSON object with what it saw.

requests URL COUNT CONCURRENCY      GET over keep-alive connections: answers by status, errors
steady URL RATE SECONDS             RATE requests a second over kept and new connections, a line on standard error when the first was
                                    answered: how many there were, and what else than 200 came
download URL SIZE                   GET URL/SIZE: bytes and SHA-256, with the one expected
upload URL SIZE                     POST, chunked: bytes and SHA-256, with what the target answered
events URL                          delay of each server-sent event in milliseconds
websocket URL SIZE ...              echo of a message of each size
polls URL COUNT                     COUNT long polls at once, released when all wait
slow URL SIZE FAST                  one reader that stops reading while FAST others download SIZE: their bytes
calls SECONDS ADDRESS URL ...       calls `square` of the kite at each URL until all have answered: URLs that did not within SECONDS, with
                                    the last error. ADDRESS is the host:port to connect to, whatever the URL's host
"""
import asyncio, collections, hashlib, json, sys, time
from urllib.parse import urlsplit

import websockets

from targets import block, head


class Response:
    def __init__(self, status, fields):
        self.status, self.fields = status, fields


async def connect(url):
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=1 << 20)
    return reader, writer, parts


def request(parts, method="GET", path=None, fields=()):
    lines = [f"{method} {path or parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def response(reader):
    raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = {}
    for line in raw[1:]:
        if line:
            name, value = line.split(":", 1)
            fields[name.lower()] = value.strip()
    return Response(int(raw[0].split(" ")[1]), fields)


async def body(reader, answer):
    if answer.fields.get("transfer-encoding", "").lower() == "chunked":
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            if size:
                yield await reader.readexactly(size)
            await reader.readline()
            if not size:
                return
    elif "content-length" in answer.fields:
        left = int(answer.fields["content-length"])
        while left:
            part = await reader.read(min(left, 1 << 18))
            if not part:
                raise EOFError("the body ended early")
            left -= len(part)
            yield part
    else:
        while part := await reader.read(1 << 18):
            yield part


async def whole(reader, answer):
    return b"".join([part async for part in body(reader, answer)])


async def requests(url, count, concurrency):
    statuses, errors, left = collections.Counter(), [], int(count)

    async def worker():
        nonlocal left
        stream = None
        while left > 0:
            left -= 1
            try:
                if stream is None:
                    stream = await connect(url)
                reader, writer, parts = stream
                writer.write(request(parts))
                answer = await response(reader)
                await whole(reader, answer)
                statuses[answer.status] += 1
                if answer.fields.get("connection", "").lower() == "close":
                    writer.close()
                    stream = None
            except Exception as error:
                errors.append(repr(error))
                stream = None

    began = time.time()
    await asyncio.gather(*(worker() for _ in range(int(concurrency))))
    return {"statuses": {str(k): v for k, v in statuses.items()}, "errors": errors[:5], "failed": len(errors), "seconds": time.time() - began}


async def steady(url, rate, seconds):
    """Open loop: requests begin when they are due, whatever became of the earlier ones."""
    failures, kept, count = collections.Counter(), [], 0
    parts = urlsplit(url)

    async def one():
        stream, is_new = None, True
        try:
            while kept and stream is None:
                stream, is_new = kept.pop(), False
                if stream[0].at_eof():
                    stream, is_new = None, True
            reader, writer, _ = stream or await connect(url)
            writer.write(request(parts))
            answer = await asyncio.wait_for(response(reader), 20)
            await whole(reader, answer)
            if answer.status != 200:
                failures[str(answer.status)] += 1
            if answer.fields.get("connection", "").lower() == "close" or len(kept) > 30:
                writer.close()
            else:
                kept.append((reader, writer, parts))
        except Exception as error:
            failures[("new" if is_new else "kept") + " connection: " + repr(error)] += 1

    await one()
    print("answered", file=sys.stderr, flush=True)
    began, tasks = time.monotonic(), []
    while (passed := time.monotonic() - began) < float(seconds):
        while count < passed * float(rate):
            count += 1
            tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    return {"count": count, "failures": failures}


async def download(url, size):
    reader, writer, parts = await connect(url)
    writer.write(request(parts, path=f"{parts.path.rstrip('/')}/{size}"))
    answer = await response(reader)
    digest, count = hashlib.sha256(), 0
    async for part in body(reader, answer):
        digest.update(part)
        count += len(part)
    expected, left, number = hashlib.sha256(), int(size), 0
    while left > 0:
        expected.update(block(number)[:left])
        left -= 65536
        number += 1
    writer.close()
    return {"status": answer.status, "bytes": count, "hash": digest.hexdigest(), "expected": expected.hexdigest()}


async def upload(url, size):
    reader, writer, parts = await connect(url)
    writer.write(request(parts, "POST", fields=["Transfer-Encoding: chunked"]))
    digest, left, number = hashlib.sha256(), int(size), 0
    while left > 0:
        part = block(number)[:left]
        digest.update(part)
        writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        await writer.drain()
        left -= len(part)
        number += 1
    writer.write(b"0\r\n\r\n")
    answer = await response(reader)
    text = (await whole(reader, answer)).decode()
    writer.close()
    return {"status": answer.status, "answer": text, "expected": f"{size} {digest.hexdigest()}"}


async def events(url):
    reader, writer, parts = await connect(url)
    writer.write(request(parts, fields=["Accept: text/event-stream"]))
    answer = await response(reader)
    delays, rest = [], b""
    async for part in body(reader, answer):
        seen, rest = time.time(), rest + part
        while b"\n\n" in rest:
            event, rest = rest.split(b"\n\n", 1)
            delays.append((seen - float(event.removeprefix(b"data: "))) * 1000)
    writer.close()
    return {"status": answer.status, "count": len(delays), "delays": delays}


async def websocket(url, *sizes):
    parts = urlsplit(url)
    equal = {}
    async with websockets.connect(parts._replace(scheme="ws").geturl(), max_size=32 << 20, compression=None) as socket:
        for size in map(int, sizes):
            for message in ((block(size) * (size // 65536 + 1))[:size], "\u00e9" * (size // 2) or "x"):
                await socket.send(message)
                equal[f"{size} {type(message).__name__}"] = await socket.recv() == message
    return {"equal": equal}


async def polls(url, count):
    count, base = int(count), url.rstrip("/")

    async def get(path):
        reader, writer, parts = await connect(base + path)
        writer.write(request(parts))
        answer = await response(reader)
        text = (await whole(reader, answer)).decode()
        writer.close()
        return answer.status, text

    pending = [asyncio.create_task(get(f"/poll{number}")) for number in range(count)]
    waiting, seen = asyncio.create_task(asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)), "0"
    while not waiting.done() and int(seen) < count:
        _, seen = await get("/waiting")
    await get("/release")
    results = collections.Counter(await asyncio.gather(*pending))
    return {"waiting": int(seen), "answers": {f"{status} {text}": n for (status, text), n in results.items()}}


async def slow(url, size, fast):
    reader, writer, parts = await connect(url)
    writer.transport.pause_reading()
    writer.write(request(parts, path=f"{parts.path.rstrip('/')}/{1 << 30}"))
    await writer.drain()
    began = time.time()
    results = await asyncio.gather(*(download(url, size) for _ in range(int(fast))))
    writer.transport.abort()
    return {"equal": all(r["hash"] == r["expected"] for r in results), "seconds": time.time() - began}


async def calls(seconds, address, *urls):
    host, port = address.rsplit(":", 1)
    message = json.dumps({
        "method": "square", "callbacks": {"0": ["0", "responseCallback"]}, "links": [],
        "arguments": [{
            "kite": {"name": "visitor", "username": "anonymous", "id": "v", "environment": "t", "region": "t", "version": "1.0.0", "hostname": "h"},
            "withArgs": [4], "responseCallback": "[Function]"}]})
    left = {}

    async def call(url):
        target = urlsplit(url)._replace(scheme="ws").geturl().rstrip("/") + "/websocket"
        async with websockets.connect(target, host=host, port=int(port), close_timeout=0.1) as socket:
            await socket.send(message)
            while True:
                answer = json.loads(await socket.recv())
                if answer["method"] in (0, "0"):
                    return answer["arguments"][0]

    async def until_answered(url):
        while True:
            try:
                answer = await asyncio.wait_for(call(url), 1)
                if answer.get("error") is None and answer.get("result") == 16:
                    return left.pop(url, None)
                left[url] = json.dumps(answer)
            except Exception as error:
                left[url] = repr(error)
            await asyncio.sleep(0.05)

    left.update((url, "") for url in urls)
    await asyncio.wait([asyncio.create_task(until_answered(url)) for url in urls], timeout=float(seconds))
    return {"left": left}


if __name__ == "__main__":
    action = {f.__name__: f for f in (requests, steady, download, upload, events, websocket, polls, slow, calls)}[sys.argv[1]]
    print(json.dumps(asyncio.run(action(*sys.argv[2:]))))
