#!/usr/bin/env python3
"""A bad network between an agent and its gateway: faults.py HOST PORT [SEED] passes TCP connections on to HOST:PORT. Prints `seed N`, then
the port that it listens on, then the port on which it is told by HTTP what to break:

/cut?kind=KIND&after=BYTES&within=SECONDS  ends one of the connections (a random one) once so many more bytes have passed, at the latest after
                    SECONDS with a connection; answers then. KIND is rst, fin or half (no more is passed on in one direction, whose end is
                    told, the other goes on). `which=all`: ends all of them
/close?at=BYTE:DIRECTION:KIND,...          the next connections end at these positions of one direction (up is to the gateway), one each
/hold?direction=DIRECTION                  swallows everything in silence in one direction (both without one), new connections included
/release?keep=YES                          passes on what was held; with keep=no connections of before are reset instead, as by a NAT that forgot
/shape?delay=SECONDS&rate=BYTES&split=N    each part is late, a connection passes so many bytes a second in each direction, writes have 1 to N bytes
/duplicate                                 opens another connection to the gateway with the first bytes of a running one, as one that copies it
                    would; answers with the first line that came back
/count                                     connections so far, cuts so far
"""
import asyncio, collections, random, socket, struct, sys, time
from urllib.parse import parse_qsl, urlsplit

DIRECTIONS = ("up", "down")


def reset(writer):
    """Ends a connection with RST."""
    if handle := writer.get_extra_info("socket"):
        try:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
    writer.transport.abort()


class Link:
    """One connection of an agent and what leads on from it."""

    def __init__(self, agent, gateway, position):
        self.writers = {"up": gateway, "down": agent}
        self.position = position
        self.passed = {"up": 0, "down": 0}
        self.first = b""
        self.silent = set()
        self.ended = asyncio.Event()

    def end(self, kind, direction="up"):
        if kind == "half":
            self.silent.add(direction)
            try:
                self.writers[direction].write_eof()
            except (OSError, RuntimeError):
                pass
            return
        for writer in self.writers.values():
            reset(writer) if kind == "rst" else writer.close()
        self.ended.set()


class Faults:
    def __init__(self, host, port, seed):
        self.target, self.random = (host, port), random.Random(seed)
        self.links, self.positions = set(), collections.deque()
        self.open = {direction: asyncio.Event() for direction in DIRECTIONS}
        for gate in self.open.values():
            gate.set()
        self.delay, self.rate, self.split = 0.0, 0, 0
        self.cut_kind, self.cut_after, self.cuts_all, self.was_cut = None, 0, False, asyncio.Event()
        self.connections = self.cuts = 0

    async def start(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    # What passes.

    async def accept(self, reader, writer):
        self.connections += 1
        for gate in self.open.values():
            await gate.wait()
        try:
            from_gateway, to_gateway = await asyncio.open_connection(*self.target)
        except OSError:
            return reset(writer)
        for end in (writer, to_gateway):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.transport.set_write_buffer_limits(1 << 16)
        link = Link(writer, to_gateway, self.positions.popleft() if self.positions else None)
        self.links.add(link)
        pumps = [asyncio.create_task(self.pump(link, "up", reader)), asyncio.create_task(self.pump(link, "down", from_gateway))]
        for pump in pumps:
            pump.add_done_callback(lambda _: link.ended.set() if all(each.done() for each in pumps) else None)
        await link.ended.wait()
        self.links.discard(link)
        for pump in pumps:
            pump.cancel()
        for end in (writer, to_gateway):
            end.close()

    async def pump(self, link, direction, reader):
        writer, gate = link.writers[direction], self.open[direction]
        try:
            if link.position and link.position[:2] == (0, direction):
                return link.end(link.position[2], direction)
            while True:
                part = await reader.read(1 << 16)
                await gate.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                    await gate.wait()
                if not part:
                    break
                if direction not in link.silent:
                    await self.write(link, direction, writer, part)
                if self.rate:
                    await asyncio.sleep(len(part) / self.rate)
            if direction not in link.silent:
                writer.write_eof()
        except (OSError, RuntimeError):
            await gate.wait()
            link.end("rst")

    async def write(self, link, direction, writer, part):
        if direction == "up" and len(link.first) < 4096:
            link.first += part[:4096]
        link_cut = cut = None
        if link.position and link.position[1] == direction:
            room = link.position[0] - link.passed[direction]
            if len(part) >= room:
                part, link_cut = part[:room], link.position[2]
        if self.cut_kind:
            if len(part) >= self.cut_after:
                part, cut = part[: self.cut_after], self.cut_kind
                self.cut_kind = None
            else:
                self.cut_after -= len(part)
        link.passed[direction] += len(part)
        while part:
            size = self.random.randint(1, self.split) if self.split else len(part)
            writer.write(part[:size])
            part = part[size:]
            # Written at once, or it would be joined with what follows.
            await writer.drain()
            if self.split:
                await asyncio.sleep(0)
        if link_cut:
            link.end(link_cut, direction)
        if cut:
            self.end_some(cut, link, direction)

    def end_some(self, kind, link=None, direction=None):
        links = sorted(self.links, key=id)
        if self.cuts_all:
            for each in links:
                each.end(kind, direction or self.random.choice(DIRECTIONS))
        elif links:
            (link or self.random.choice(links)).end(kind, direction or self.random.choice(DIRECTIONS))
        self.cuts += 1
        self.cut_kind = None
        self.was_cut.set()

    # What breaks it.

    async def cut(self, kind="rst", after=0, within=1.0, which="one"):
        self.cuts_all, self.was_cut = which == "all", asyncio.Event()
        self.cut_after, self.cut_kind = int(after), kind
        left = float(within)
        while not self.was_cut.is_set():
            try:
                await asyncio.wait_for(self.was_cut.wait(), 0.02)
            except asyncio.TimeoutError:
                left -= 0.02 if self.links else 0
                if left <= 0 and not self.was_cut.is_set() and self.links:
                    self.end_some(kind)

    async def close(self, at):
        for position in at.split(","):
            byte, direction, kind = position.split(":")
            self.positions.append((int(byte), direction, kind))

    async def hold(self, direction=None):
        for each in (direction,) if direction else DIRECTIONS:
            self.open[each].clear()

    async def release(self, keep="yes"):
        if keep == "no":
            for link in list(self.links):
                link.end("rst")
        for gate in self.open.values():
            gate.set()

    async def shape(self, delay=0, rate=0, split=0):
        self.delay, self.rate, self.split = float(delay), int(rate), int(split)

    async def duplicate(self):
        while not (links := sorted((link for link in self.links if link.first), key=id)):
            await asyncio.sleep(0.02)
        link = self.random.choice(links)
        reader, writer = await asyncio.open_connection(*self.target)
        writer.write(link.first)
        try:
            line = await asyncio.wait_for(reader.readline(), 5)
        except (OSError, asyncio.TimeoutError) as error:
            line = repr(error).encode()
        writer.close()
        return line.decode("latin-1").strip()

    async def count(self):
        return f"{self.connections} {self.cuts} {len(self.positions)}"

    async def control(self, reader, writer):
        try:
            parts = urlsplit((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode())
            action = {"/" + f.__name__: f for f in (self.cut, self.close, self.hold, self.release, self.shape, self.duplicate, self.count)}
            text = (await action[parts.path](**dict(parse_qsl(parts.query))) or "done").encode() + b"\n"
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
            await writer.drain()
        finally:
            writer.close()


async def main(host, port, seed=None):
    seed = int(seed) if seed else time.time_ns() & 0xFFFF_FFFF
    faults = await Faults(host, int(port), seed).start()
    control = await asyncio.start_server(faults.control, "127.0.0.1", 0)
    print(f"seed {seed}\n{faults.port}\n{control.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
