#!/usr/bin/env python3
"""Sends the corpus through a gateway to a service that records what reaches it: drive.py SEED SERVICE GATEWAY FOLDER WAY ...

SERVICE and GATEWAY are ports of the loopback interface; SERVICE is listened on here. A WAY is the host of a route to the service, and each
case takes all ways. The first is the one of a kite with an address, which is registered here with the kite key of $KITE_HOME; its name is the
kite's id. Writes FOLDER/streams.json (the bytes of each connection to the service, and how the service has read them) and FOLDER/answers.json
(what each visitor got), and prints one JSON object: what is wrong, and how many cases of which kind there were.
"""
import asyncio, base64, collections, json, os, re, sys

sys.dont_write_bytecode = True  # beside the sources

import websockets

from corpus import corpus

FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\t\x20-\x7e\x80-\xff]*)\Z")
FEW = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"PROPFIND"}
WAITING = 5.0  # seconds until a gateway counts as hanging
QUIET = 0.25  # seconds after which a visitor stops to wait and closes its sending side


class Broken(Exception):
    """What is no HTTP, with the reason."""


class Message:
    def __init__(self, start, fields, raw):
        self.start, self.fields, self.raw, self.body, self.complete = start, fields, raw, b"", False

    def all(self, name):
        return [value for other, value in self.fields if other.lower() == name]


def parse_head(data, at):
    """A head, as strictly as can be, and where it ends; None when there is more to come."""
    end = data.find(b"\r\n\r\n", at)
    if end == -1:
        return None
    raw = bytes(data[at : end + 4])
    lines = raw[:-4].split(b"\r\n")
    fields = []
    for line in lines[1:]:
        match = FIELD.match(line)
        if not match:
            raise Broken(f"field line {line!r}")
        fields.append((match[1], match[2]))
    if any(byte in lines[0] for byte in b"\r\n\x00"):
        raise Broken(f"start line {lines[0]!r}")
    message = Message(lines[0], fields, raw)
    lengths, encodings = message.all(b"content-length"), message.all(b"transfer-encoding")
    if len(lengths) > 1 or len(encodings) > 1 or (lengths and encodings):
        raise Broken(f"framing {lengths} {encodings}")
    if lengths and not re.fullmatch(rb"0|[1-9][0-9]{0,18}", lengths[0]):
        raise Broken(f"length {lengths[0]!r}")
    if encodings and encodings[0] != b"chunked":
        raise Broken(f"encoding {encodings[0]!r}")
    return message, end + 4


def parse_chunks(data, at):
    """The body, and where it ends; None when there is more to come."""
    body = bytearray()
    while True:
        match = re.compile(rb"([0-9a-fA-F]{1,8})\r\n").match(data, at)
        if not match:
            if data.find(b"\r\n", at) == -1 and len(data) - at < 10:
                return None
            raise Broken(f"chunk size {bytes(data[at : at + 20])!r}")
        size, at = int(match[1], 16), match.end()
        if size == 0:
            break
        if len(data) < at + size + 2:
            return None
        body += data[at : at + size]
        at += size
        if data[at : at + 2] != b"\r\n":
            raise Broken("the end of a chunk")
        at += 2
    while data[at : at + 2] != b"\r\n":
        end = data.find(b"\r\n", at)
        if end == -1:
            return None
        if not FIELD.match(bytes(data[at:end])):
            raise Broken(f"trailer {bytes(data[at:end])!r}")
        at = end + 2
    return bytes(body), at + 2


def parse_request(data, at):
    """A request and where it ends. Its body is not complete when there is more to come; None without a head."""
    found = parse_head(data, at)
    if found is None:
        return None
    message, at = found
    match = re.fullmatch(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) (\*|/[\x21\x22\x24-\x7e]*) HTTP/1\.1", message.start)
    if not match:
        raise Broken(f"request line {message.start!r}")
    message.method, message.target = match[1], match[2]
    if len(message.all(b"host")) != 1:
        raise Broken(f"hosts {message.all(b'host')}")
    for name in (b"http2-settings", b"proxy-connection", b"keep-alive", b"expect"):
        if message.all(name) and (name != b"http2-settings" or message.all(b"upgrade")):
            raise Broken(f"the field {name!r}")
    if any(b"h2" in value.lower() or b"http" in value.lower() for value in message.all(b"upgrade")):
        raise Broken("an upgrade to HTTP")
    if len(message.all(b"upgrade")) > 1 or bool(message.all(b"upgrade")) != any(b"upgrade" in value.lower() for value in message.all(b"connection")):
        raise Broken(f"upgrade {message.all(b'upgrade')} {message.all(b'connection')}")
    if message.all(b"transfer-encoding"):
        done = parse_chunks(data, at)
        if done:
            message.body, at = done
            message.complete = True
    else:
        length = int((message.all(b"content-length") or [b"0"])[0])
        if len(data) >= at + length:
            message.body, at = bytes(data[at : at + length]), at + length
            message.complete = True
    return message, at


def parse_answers(data, methods, ended):
    """The answers in turn, informational ones left out, as far as they are there; the rest of the bytes."""
    at, answers = 0, []
    while at < len(data):
        found = parse_head(data, at)
        if found is None:
            break
        message, at = found
        match = re.fullmatch(rb"HTTP/1\.1 ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)", message.start)
        if not match:
            raise Broken(f"status line {message.start!r}")
        message.status = int(match[1])
        if 100 <= message.status < 200 and message.status != 101:
            if message.all(b"content-length") or message.all(b"transfer-encoding"):
                raise Broken("an informational response with a length")
            continue
        answers.append(message)
        method = methods[len(answers) - 1] if len(answers) <= len(methods) else "GET"
        if message.status == 101:
            message.complete = True
            break
        lengths = message.all(b"content-length")
        if message.status == 204 and (lengths or message.all(b"transfer-encoding")):
            raise Broken("204 with a length")
        if method == "HEAD" or message.status in (204, 304):
            message.complete = True
        elif message.all(b"transfer-encoding"):
            done = parse_chunks(data, at)
            if done is None:
                break
            message.body, at = done
            message.complete = True
        elif lengths:
            if len(data) < at + int(lengths[0]):
                break
            message.body, at = bytes(data[at : at + int(lengths[0])]), at + int(lengths[0])
            message.complete = True
        else:
            raise Broken("an answer without a length")
    return answers, bytes(data[at:])


class Run:
    """One case on one way."""

    def __init__(self, case, letter, number, host):
        self.case, self.tag, self.host = case, f"{letter}{number}x", host
        self.path = f"/c/{self.tag}".encode()
        self.seen, self.received, self.ended, self.after, self.findings = [], bytearray(), None, b"", []
        self.name = f"{case.name} [{self.tag}]"

    def fill(self, text, asked=False):
        route, _, domain = self.host.partition(b".")
        path = b"/proxy/" + route + self.path if asked and self.case.by_path else self.path
        host = b"gateway." + domain + b".invalid" if asked and self.case.by_path else self.host
        return text.replace(b"TARGET", path).replace(b"HOST", host).replace(b"TAG", self.tag.encode())


class Service:
    """Answers each request as its case says, and keeps all bytes."""

    def __init__(self, runs):
        self.runs = {run.path: run for run in runs}
        self.tags = {run.tag: run for run in runs}
        self.streams, self.findings, self.tasks = [], [], set()

    def run_of(self, message):
        match = re.match(rb"/c/[a-z][0-9]+x", message.target)
        tag = message.all(b"x-tag")
        return self.runs.get(match[0]) if match else self.tags.get(tag[0].decode("latin-1")) if len(tag) == 1 else None

    async def accept(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        asyncio.current_task().add_done_callback(self.tasks.discard)
        stream = {"data": bytearray(), "messages": []}
        self.streams.append(stream)
        try:
            await self.serve(reader, writer, stream)
        except ConnectionError:
            pass
        except Broken as broken:
            self.findings.append(f"the service cannot read {bytes(stream['data'][-300:])!r}: {broken}")
        writer.close()

    async def serve(self, reader, writer, stream):
        data, at = stream["data"], 0
        while True:
            found = parse_request(data, at)
            message, end = found or (None, at)
            run = message and self.run_of(message)
            script = run.case.script if run and message.target == run.path else None
            is_early = bool(message and not message.complete and script and script.early)
            if is_early and not await self.answer(message, run, script, reader, writer):
                return self.keep(message, stream)
            while not (message and message.complete):
                more = await reader.read(1 << 16)
                if not more:
                    if message:
                        self.keep(message, stream)
                    return
                data += more
                found = parse_request(data, at)
                if found and not message:
                    break  # perhaps it is to be answered early
                message, end = found or (None, at)
            if not (message and message.complete):
                continue
            self.keep(message, stream)
            if not is_early and not await self.answer(message, run, script, reader, writer):
                return
            at = end

    def keep(self, message, stream):
        stream["messages"].append(message)
        run = self.run_of(message)
        if run:
            run.seen.append(message)

    async def answer(self, message, run, script, reader, writer):
        """- Returns: whether another request may come."""
        tag = run.tag.encode() if run else b"none"
        if script is None:
            stays = message.method in FEW and not message.all(b"upgrade")
            body = b"" if message.method == b"HEAD" else b"ok"
            writer.write(b"HTTP/1.1 200 OK\r\nX-Case: %s\r\n%sContent-Length: 2\r\n\r\n%s" % (tag, b"" if stays else b"Connection: close\r\n", body))
            await writer.drain()
            return stays
        if script.pause:
            # Nothing of what the visitor has sent after its request may come before the answer to it.
            try:
                early = await asyncio.wait_for(reader.read(1 << 16), script.pause)
            except asyncio.TimeoutError:
                early = None
            if early:
                run.findings.append(f"{len(early)} bytes reached the service before its answer")
        for piece in script.pieces:
            writer.write(piece.replace(b"TAG", tag))
        await writer.drain()
        if script.pieces and script.pieces[0].startswith(b"HTTP/1.1 101") and run.case.expect == "upgraded":
            while more := await reader.read(1 << 16):
                run.after += more
                if len(run.after) >= run.owed:
                    break
            return False
        if script.end:
            return False
        return True


async def register(port, identity, key, url):
    """Registers a kite with an address at the gateway, as kites do, and stays connected."""
    socket = await websockets.connect(f"ws://127.0.0.1:{port}/kite/000/ambiguity/websocket")
    await socket.recv()
    call = {"kite": identity, "authentication": {"type": "kiteKey", "key": key}, "withArgs": [url], "responseCallback": "[Function]"}
    await socket.send(json.dumps([json.dumps(
        {"method": "register", "arguments": [call], "callbacks": {"0": ["0", "responseCallback"]}})]))
    while not (frame := await socket.recv()).startswith("a"):
        pass
    answer = json.loads(json.loads(frame[1:])[0])["arguments"][0]
    if answer["error"]:
        raise Broken(f"the gateway does not register a kite: {answer['error']}")
    return socket


async def visit(run, port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    pieces = [run.fill(piece, asked=True) for piece in run.case.wire]
    text = b"".join(pieces)
    if size := run.case.piece:
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
    run.owed = len(text) - text.find(b"\r\n\r\n") - 4
    wanted = len(run.case.methods)
    try:
        async with asyncio.timeout(WAITING):
            reading = asyncio.create_task(reader.read(1 << 16))
            try:
                for number, piece in enumerate(pieces):
                    if number:
                        await asyncio.sleep(0.002 if len(pieces) > 9 else 0.02)
                    writer.write(piece)
                    await writer.drain()
            except ConnectionError:
                pass  # the answer counts
            is_open = True
            while True:
                done, _ = await asyncio.wait([reading], timeout=QUIET if is_open else None)
                if not done:
                    is_open = False
                    try:
                        writer.write_eof()
                    except OSError:
                        pass
                    continue
                more = reading.result()
                if not more:
                    run.ended = "closed"
                    return
                run.received += more
                reading = asyncio.create_task(reader.read(1 << 16))
                if is_open and run.case.expect != "upgraded":
                    answers, _ = parse_answers(run.received, run.case.methods, False)
                    if len(answers) >= wanted and all(answer.complete for answer in answers):
                        is_open = False
                        writer.write_eof()
    except (TimeoutError, asyncio.TimeoutError):
        run.ended = "hanging"
    except ConnectionError:
        run.ended = "reset"
    except OSError as error:
        run.ended = "reset"
    except Broken:
        run.ended = "broken"
    finally:
        writer.close()


def judge(run):
    """What is wrong with what came of a case."""
    case, wrong = run.case, run.findings
    try:
        answers, rest = parse_answers(run.received, case.methods, True)
    except Broken as broken:
        return wrong + [f"the answer is no sound HTTP: {broken}: {bytes(run.received[:300])!r}"]
    statuses = [answer.status for answer in answers]
    shown = f"{statuses}, {len(run.seen)} request(s) at the service"
    if run.ended == "hanging":
        wrong.append(f"hangs after {shown}")
    whole = [message for message in run.seen if message.complete]
    expected = [(method, run.fill(target), body) for method, target, body in case.seen]
    found = [(message.method, message.target, message.body) for message in whole]
    for answer in answers:
        if answer.all(b"x-case") not in ([], [run.tag.encode()]):
            wrong.append(f"got the answer of {answer.all(b'x-case')}")
    is_complete = all(answer.complete for answer in answers) and (not rest or 101 in statuses)
    by_script = case.script is not None
    refused = len(answers) == 1 and 400 <= statuses[0] < 600 and not answers[0].all(b"x-case") and is_complete
    served = (len(answers) == len(case.methods) and is_complete and all(200 <= status < 300 for status in statuses)
              and found == expected)
    # A service that breaks the connection is asked again where that does no harm.
    asked = set(found) <= set(expected) if by_script else not found
    case_is = case.expect
    if case_is == "refused":
        right = refused and asked
    elif case_is == "served":
        right = served
    elif case_is == "either":
        right = served or (refused and not found)
    elif case_is == "cut":
        right = not found and (not answers or refused)
    elif case_is == "then-refused":
        right = found == expected and len(answers) == 2 and statuses[0] == 200 and statuses[1] >= 400 and is_complete
    elif case_is == "shifted":
        right = found[: len(expected)] == expected and statuses[:1] == [200]
    elif case_is in ("answered", "answered-or-refused", "answered-without-case"):
        right = (len(answers) == len(case.methods) and is_complete and asked
                 and (case_is == "answered-without-case" or all(answer.all(b"x-case") for answer in answers)))
        right = right or (case_is == "answered-or-refused" and refused and asked)
    elif case_is == "aborted":
        right = asked and (refused or not answers or (len(answers) == 1 and not answers[0].complete))
    elif case_is == "early":
        right = len(answers) >= 1 and is_complete and (bool(answers[0].all(b"x-case")) or case.script.end and refused)
    elif case_is == "upgraded":
        right = statuses == [101] and len(run.after) == run.owed and found == expected
    else:
        right = case_is == "unambiguous"
    if case.status and not (set(statuses) <= set(case.status)):
        right = False
    if not right:
        wrong.append(f"{case_is}, but {shown}: {bytes(run.received[:200])!r}, {found[:2]!r}"[:700])
    if run.seen:
        lines = run.seen[0].raw.split(b"\r\n")
        for line in case.keeps:
            if run.fill(line) not in lines:
                wrong.append(f"{line!r} has not reached the service: {lines!r}")
        for line in case.drops:
            if run.fill(line).lower() in [other.lower() for other in lines]:
                wrong.append(f"{line!r} has reached the service")
    return wrong


def text(data):
    return base64.b64encode(bytes(data)).decode()


async def main(seed, service_port, gateway_port, folder, ways):
    cases = corpus(seed)
    runs = [Run(case, "abcdef"[way], number, host.encode()) for number, case in enumerate(cases) for way, host in enumerate(ways)]
    service = Service(runs)
    server = await asyncio.start_server(service.accept, "127.0.0.1", service_port, backlog=1024, limit=1 << 22)
    with open(os.environ["KITE_HOME"] + "/kite.key") as file:
        key = file.read().strip()
    identity = {"name": "ambiguous", "username": "any", "id": ways[0].split(".")[0], "environment": "development", "region": "local",
                "version": "1.0.0", "hostname": "localhost"}
    kite = await register(gateway_port, identity, key, f"http://127.0.0.1:{service_port}")
    queue = collections.deque(runs)

    async def work():
        while queue:
            await visit(queue.popleft(), gateway_port)

    await asyncio.gather(*[work() for _ in range(48)])
    server.close()
    findings = list(service.findings)
    for run in runs:
        findings += [f"{run.name}: {wrong}" for wrong in judge(run)]
    with open(folder + "/streams.json", "w") as file:
        json.dump([{
            "bytes": text(stream["data"]),
            "messages": [{"method": message.method.decode("latin-1"), "target": message.target.decode("latin-1"),
                          "host": message.all(b"host")[0].decode("latin-1"), "body": text(message.body)}
                         for message in stream["messages"] if message.complete],
        } for stream in service.streams], file)
    with open(folder + "/answers.json", "w") as file:
        json.dump([{"name": run.name, "methods": run.case.methods, "bytes": text(run.received)} for run in runs if run.received], file)
    kinds = collections.Counter(run.case.expect for run in runs)
    print(json.dumps({"seed": seed, "cases": len(cases), "exchanges": len(runs), "kinds": kinds, "findings": findings,
                      "requests": sum(len(stream["messages"]) for stream in service.streams)}), flush=True)
    await kite.close()
    for task in list(service.tasks):
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:]))
