#!/usr/bin/env python3
"""An agent whose connections die without a word: halfopen.py HOST PORT KEYFILE PID [COUNT]. Opens a session with one lane, then COUNT (1000) times
leaves the lane's connection open, silent and unread, and resumes the lane over a new one. Prints one JSON object: the resident memory of process PID
in KiB after a fifth of the reconnects and at the end, how many connections the gateway still kept of those that were left, and its descriptors."""
import json, os, socket, struct, sys, time


def frame(kind, payload):
    return struct.pack(">BBHI", kind, 0, len(payload), 0) + payload


class Lane:
    """A connection of the lane, up to WELCOME."""

    def __init__(self, host, port, key, hello):
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.sendall(
            f"GET /-/tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: kite-tunnel/1\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        self.rest = b""
        while b"\r\n\r\n" not in self.rest:
            self.more()
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101"), head
        self.socket.sendall(frame(1, json.dumps(dict(hello, version=1, agent="half-open-agent", epoch=1, software="halfopen")).encode()))
        kind, payload = self.frame()
        assert kind == 2, kind
        self.welcome = json.loads(payload)
        assert "error" not in self.welcome, self.welcome

    def more(self):
        part = self.socket.recv(65536)
        assert part, "the gateway closed the connection"
        self.rest += part

    def frame(self):
        while len(self.rest) < 8 or len(self.rest) < 8 + struct.unpack(">H", self.rest[2:4])[0]:
            self.more()
        length = struct.unpack(">H", self.rest[2:4])[0]
        kind, payload = self.rest[0], self.rest[8 : 8 + length]
        self.rest = self.rest[8 + length :]
        return kind, payload

    def is_closed(self):
        """Whether the gateway has given the connection up."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(65536):
                pass
            return True
        except BlockingIOError:
            return False
        except OSError:
            return True


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def main(host, port, key_file, pid, count="1000"):
    key, count = open(key_file).read().strip(), int(count)
    lane = Lane(host, int(port), key, {"tunnels": [{"kind": "http", "name": "halfopen"}]})
    session, secret = lane.welcome["session"], lane.welcome["secret"]
    left, before = [lane], 0
    for number in range(count):
        # What the gateway has sent is not looked at, as by one who has lost it; so nothing of it was received.
        lane = Lane(host, int(port), key, {"resume": {"session": session, "secret": secret, "lane": 0, "received": 0}})
        left.append(lane)
        if number == count // 5:
            time.sleep(1)
            before = resident(pid)
        if len(left) > 100:
            left.pop(0).socket.close()
    time.sleep(1)
    after = resident(pid)
    print(json.dumps({
        "before": before, "after": after, "kept": sum(not each.is_closed() for each in left[:-1]),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")), "reconnects": count}))


if __name__ == "__main__":
    main(*sys.argv[1:])
