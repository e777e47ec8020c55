#!/usr/bin/env python3
"""Visitors of all kinds at once, while the network behind the gateway breaks: mixed.py CONTROL BLOBS SOCKETS KITE SIZE ECHOES SESSIONS CUTS SEED

CONTROL is where faults.py is told what to break. A download and an upload of SIZE bytes from and to BLOBS, ECHOES WebSockets that have their
messages sent back by SOCKETS, SESSIONS SockJS sessions that call the kite at KITE over XHR polling, until the first two have ended and CUTS cuts are
done. Prints one JSON object: `failures` (how often what went wrong), and how much passed.

mixed.py hold URL ... keeps a WebSocket open to each, prints a line when each has had its first message back, and on SIGUSR1 a JSON
object: `failures` as above, and `pauses`, the longest time in seconds that each had to wait for a message to come back.
"""
import asyncio, collections, json, random, signal, sys, time
from urllib.parse import urlsplit

import websockets

import visitor
from targets import block


class Mixed:
    def __init__(self, blobs, sockets, kite, seed):
        self.blobs, self.sockets, self.kite = blobs, sockets, kite
        self.seed, self.began = seed, time.monotonic()
        # Sessions of an earlier run may live still.
        self.run = f"{time.time_ns():x}"
        self.failures, self.passed = collections.Counter(), collections.Counter()
        self.stopping = asyncio.Event()

    async def attempt(self, kind, work):
        try:
            await work
        except Exception as error:
            # When it was, to the second: what fails together has one cause.
            self.failures[f"{kind} after {time.monotonic() - self.began:.0f} s: {error!r}"[:200]] += 1

    async def download(self, size):
        seen = await visitor.download(self.blobs, size)
        assert seen["status"] == 200 and seen["hash"] == seen["expected"], f"status {seen['status']}, {seen['bytes']} bytes"
        self.passed["downloads"] += 1

    async def upload(self, size):
        seen = await visitor.upload(self.blobs, size)
        assert seen["answer"] == seen["expected"], f"status {seen['status']}: {seen['answer'][:80]}"
        self.passed["uploads"] += 1

    async def echo(self, number):
        """Several messages are under way at a time; each comes back once, in order."""
        chance = random.Random(f"{self.seed}-{number}")
        url = urlsplit(self.sockets)._replace(scheme="ws").geturl()
        # No pings of its own: the client's deadline is no part of what is looked at.
        async with websockets.connect(url, compression=None, ping_interval=None, max_size=1 << 24, open_timeout=30) as socket:
            count = 0
            while not self.stopping.is_set():
                sent = []
                for _ in range(chance.randint(1, 4)):
                    size = chance.choice((1, 100, 125, 126, 2000, 20000))
                    sent.append(f"{number} {count} ".encode() + block(count)[:size])
                    count += 1
                    await socket.send(sent[-1])
                for message in sent:
                    back = await asyncio.wait_for(socket.recv(), 40)
                    assert back == message, f"expected {message[:20]}, got {back[:20]}"
                    self.passed["echoes"] += 1
                await asyncio.sleep(chance.random() / 5)

    async def session(self, number):
        """SockJS over XHR polling with two connections that stay open."""
        chance = random.Random(f"{self.seed}+{number}")
        base = f"{urlsplit(self.kite).path.rstrip('/')}/{number % 1000:03d}/m{self.run}n{number}"
        streams = {}

        async def post(way, body, status):
            if way not in streams:
                streams[way] = await visitor.connect(self.kite)
            reader, writer, parts = streams[way]
            writer.write(visitor.request(parts, "POST", f"{base}/{way}", [f"Content-Length: {len(body)}"]) + body)
            answer = await asyncio.wait_for(visitor.response(reader), 40)
            text = await visitor.whole(reader, answer) if status != 204 else b""
            assert answer.status == status, f"{way}: {answer.status} {text[:80]}"
            assert answer.fields.get("connection", "").lower() != "close", f"{way}: closed"
            return text.decode()

        opened = await post("xhr", b"", 200)
        assert opened == "o\n", f"opened with {opened!r}"
        count = 0
        while not self.stopping.is_set():
            count += 1
            call = {
                "method": "square", "callbacks": {str(count): [0, "responseCallback"]}, "links": [],
                "arguments": [{
                    "kite": {
                        "name": "visitor", "username": "anonymous", "id": f"v{number}", "environment": "t", "region": "t", "version": "1.0.0",
                        "hostname": "h"}, "withArgs": [count], "responseCallback": "[Function]"}]}
            await post("xhr_send", json.dumps([json.dumps(call)]).encode(), 204)
            frame, began = "h", time.monotonic()
            while frame.startswith("h"):
                frame = await post("xhr", b"", 200)
            assert frame.startswith("a"), f"frame {frame[:80]!r} after {time.monotonic() - began:.1f} s"
            answers = [json.loads(text) for text in json.loads(frame[1:])]
            seen = [(int(answer["method"]), answer["arguments"][0].get("result")) for answer in answers]
            assert seen == [(count, count * count)], f"expected the answer to call {count}, got {seen}"
            self.passed["calls"] += 1
            await asyncio.sleep(chance.random() / 5)
        for _, writer, _ in streams.values():
            writer.close()


async def get(url, path):
    reader, writer, parts = await visitor.connect(url)
    writer.write(visitor.request(parts, path=path))
    answer = await visitor.response(reader)
    text = await visitor.whole(reader, answer)
    writer.close()
    assert answer.status == 200, f"{path}: {answer.status}"
    return text.decode()


async def main(control, blobs, sockets, kite, size, echoes, sessions, cuts, seed):
    size, cuts, chance = int(size), int(cuts), random.Random(int(seed))
    mixed = Mixed(blobs, sockets, kite, int(seed))

    async def cutting():
        for number in range(cuts):
            # A lane cut faster than it can catch up would be one that is lost: kites drop a SockJS session 10 s after its last poll.
            await asyncio.sleep(chance.random() / 3)
            after, kind = chance.randrange(size * 2 // max(cuts, 1)), chance.choice(("rst", "rst", "fin", "half"))
            await get(control, f"/cut?kind={kind}&after={after}&within=1&which={chance.choice(('one', 'all'))}")
            mixed.passed["cuts"] += 1

    began = time.monotonic()
    others = [asyncio.create_task(mixed.attempt("echo", mixed.echo(number))) for number in range(int(echoes))]
    others += [asyncio.create_task(mixed.attempt("session", mixed.session(number))) for number in range(int(sessions))]
    await asyncio.gather(
        mixed.attempt("cuts", cutting()), mixed.attempt("download", mixed.download(size)), mixed.attempt("upload", mixed.upload(size)))
    mixed.stopping.set()
    await asyncio.gather(*others)
    return {"failures": mixed.failures, "passed": mixed.passed, "seconds": time.monotonic() - began}


async def hold(*urls):
    failures, pauses, ended, started = collections.Counter(), [0.0] * len(urls), asyncio.Event(), asyncio.Semaphore(0)

    async def one(position, url):
        try:
            target = urlsplit(url)._replace(scheme="ws").geturl()
            async with websockets.connect(target, compression=None, ping_interval=None) as socket:
                count = 0
                while not ended.is_set():
                    began = time.monotonic()
                    await socket.send(f"{count}")
                    back = await asyncio.wait_for(socket.recv(), 60)
                    assert back == f"{count}", f"expected {count}, got {back}"
                    pauses[position] = max(pauses[position], time.monotonic() - began)
                    count += 1
                    started.release() if count == 1 else None
                    await asyncio.sleep(0.1)
        except Exception as error:
            failures[f"{url}: {error!r}"] += 1
            started.release()

    tasks = [asyncio.create_task(one(*each)) for each in enumerate(urls)]
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, ended.set)
    for _ in urls:
        await started.acquire()
    print("started", flush=True)
    await asyncio.gather(*tasks)
    return {"failures": failures, "pauses": pauses}


if __name__ == "__main__":
    work = hold(*sys.argv[2:]) if sys.argv[1] == "hold" else main(*sys.argv[1:])
    print(json.dumps(asyncio.run(work)))
