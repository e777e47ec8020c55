#!/usr/bin/env python3
"""Reads recorded requests and answers once more with Python's parsers: read.py FOLDER

Writes FOLDER/python.json and FOLDER/h11.json: for each stream of FOLDER/streams.json the requests in it that are complete (`method`, `target`,
`host`, `body`), and for each of FOLDER/answers.json the answers that are (`status`, `body`). The first is Python's own http.server and
http.client, the second the h11 of other Python servers.
"""
import base64, http.client, http.server, io, json, sys

import h11

http.client._MAXHEADERS = 1_000  # what the gateway allows; the default is 100


class Head(http.server.BaseHTTPRequestHandler):
    """The parser of http.server without a server."""

    def __init__(self, file):
        self.rfile, self.wfile = file, io.BytesIO()
        self.is_refused = False

    def send_error(self, code, message=None, explain=None):
        self.is_refused = True

    def handle_expect_100(self):
        return True


class Pipe:
    """A socket for http.client, which would close the file."""

    def __init__(self, data):
        self.data = data

    def makefile(self, mode):
        return self.data


class Open(io.BytesIO):
    def close(self):
        pass


def text(data):
    return base64.b64encode(data).decode()


def requests(data):
    """http.server for the head, and http.client for a body with its fields."""
    file, found = Open(data), []
    while file.tell() < len(data):
        head = Head(file)
        head.raw_requestline = file.readline(65_537)
        head.close_connection = True
        if not head.parse_request() or head.is_refused:
            break
        # The body is read as one of a response with the same fields, which without any length would go on to the end.
        framing = [(name, value) for name, value in head.headers.items() if name.lower() in ("content-length", "transfer-encoding")]
        if framing:
            lines = "".join(f"{name}: {value}\r\n" for name, value in framing)
            start = file.tell()
            prefix = f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode("latin-1")
            joined = Open(prefix + data[start:])
            response = http.client.HTTPResponse(Pipe(joined), method="POST")
            response.begin()
            try:
                body = response.read()
            except (http.client.IncompleteRead, ValueError):
                break
            file.seek(start + joined.tell() - len(prefix))
        else:
            body = b""
        method, target = head.requestline.split()[:2]
        found.append({"method": method, "target": target, "host": ",".join(head.headers.get_all("Host", [])), "body": text(body)})
    return found


def answers(data, methods):
    file, found = Open(data), []
    for method in methods:
        while file.tell() < len(data):
            response = http.client.HTTPResponse(Pipe(file), method=method)
            try:
                response.begin()
                found_here = {"status": response.status, "body": ""}
                # http.client skips 100 only.
                if 100 < response.status < 200:
                    if response.status == 101:
                        return found + [found_here]
                    continue
                found_here["body"] = text(response.read())
            except (http.client.HTTPException, ValueError, ConnectionError):
                return found
            found.append(found_here)
            break
    return found


LIMIT = 1 << 20


def requests_of_h11(data):
    connection, found = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT), []
    connection.receive_data(data)
    current, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                hosts = [value for name, value in event.headers if name == b"host"]
                current, body = {"method": event.method.decode(), "target": event.target.decode("latin-1"), "host": b",".join(hosts).decode()}, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append(current | {"body": text(body)})
                # It wants to have answered before it reads on.
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
                    connection.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return found


def answers_of_h11(data, methods):
    connection, found = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT), []
    is_fed = False
    try:
        for method in methods:
            headers = [("host", "h")] + ([("upgrade", "x"), ("connection", "upgrade")] if b"HTTP/1.1 101" in data[:13] else [])
            connection.send(h11.Request(method=method, target="/", headers=headers))
            connection.send(h11.EndOfMessage())
            if not is_fed:
                connection.receive_data(data)
                is_fed = True
            status, body = 0, b""
            while True:
                event = connection.next_event()
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    return found + [{"status": 101, "body": ""}]
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    found.append({"status": status, "body": text(body)})
                    break
                elif not isinstance(event, h11.InformationalResponse):
                    return found
            if connection.their_state is not h11.DONE or connection.our_state is not h11.DONE:
                return found
            connection.start_next_cycle()
    except h11.ProtocolError:
        pass
    return found


def main(folder):
    with open(folder + "/streams.json") as file:
        streams = [base64.b64decode(stream["bytes"]) for stream in json.load(file)]
    with open(folder + "/answers.json") as file:
        visitors = [(base64.b64decode(visitor["bytes"]), visitor["methods"]) for visitor in json.load(file)]
    for name, of_requests, of_answers in [("python", requests, answers), ("h11", requests_of_h11, answers_of_h11)]:
        with open(f"{folder}/{name}.json", "w") as file:
            json.dump({"requests": [of_requests(data) for data in streams], "answers": [of_answers(*visitor) for visitor in visitors]}, file)


if __name__ == "__main__":
    main(sys.argv[1])
