#!/usr/bin/env python3
"""A visitor over TLS while certificates are swapped: swap.py PORT DIRECTORY RATE SECONDS

Keeps WebSockets to /proxy/websocket/ open, and makes RATE requests a second for /-/kite.js over kept and new connections. After a third of
the time DIRECTORY/new.crt and new.key take the place of tls.crt and tls.key. Prints one JSON object: requests, messages echoed, failures,
and after how many seconds new connections were shown the new certificate for good.
"""
import asyncio, collections, json, os, ssl, sys, time

import websockets


def context():
    # Without the system's roots, whose reading costs more than a handshake.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


async def main(port, directory, rate, seconds):
    failures, kept = collections.Counter(), []
    counts = {"requests": 0, "messages": 0}
    with open(f"{directory}/new.crt") as file:
        fresh = ssl.PEM_cert_to_DER_cert(file.read())
    end = time.monotonic() + seconds
    swapped = None
    last_old = None

    async def connect():
        nonlocal last_old
        began = time.monotonic()
        # Resumed sessions show no certificate, so each connection has a context of its own.
        stream = await asyncio.open_connection("127.0.0.1", port, ssl=context(), server_hostname="localhost")
        shown = stream[1].get_extra_info("ssl_object").getpeercert(binary_form=True)
        if swapped is not None and shown != fresh and began > swapped:
            last_old = began - swapped
        return stream

    async def request(is_new):
        try:
            reader, writer = kept.pop() if kept and not is_new else await connect()
            writer.write(b"GET /-/kite.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            await reader.readexactly(int(length[0].split(b":")[1]))
            if b" 200 " not in head.split(b"\r\n")[0]:
                failures[head.split(b"\r\n")[0].decode()] += 1
            counts["requests"] += 1
            if len(kept) > 20:
                writer.close()
            else:
                kept.append((reader, writer))
        except Exception as error:
            failures["request: " + repr(error)] += 1

    async def socket():
        try:
            url = f"wss://127.0.0.1:{port}/proxy/websocket/"
            async with websockets.connect(url, ssl=context(), server_hostname="localhost") as connection:
                while time.monotonic() < end:
                    await connection.send("message")
                    if await asyncio.wait_for(connection.recv(), 20) != "message":
                        failures["message"] += 1
                    counts["messages"] += 1
                    await asyncio.sleep(0.1)
        except Exception as error:
            failures["websocket: " + repr(error)] += 1

    tasks = [asyncio.create_task(socket()) for _ in range(8)]
    began, due = time.monotonic(), 0
    while time.monotonic() < end:
        passed = time.monotonic() - began
        if swapped is None and passed > seconds / 3:
            for kind in ["crt", "key"]:
                os.replace(f"{directory}/new.{kind}", f"{directory}/tls.{kind}")
            swapped = time.monotonic()
        while due < passed * rate:
            due += 1
            tasks.append(asyncio.create_task(request(due % 10 == 0)))
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    _, writer = await connect()
    is_swapped = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) == fresh
    print(json.dumps({**counts, "failures": failures, "swapSeconds": last_old or 0, "isSwapped": is_swapped}))


asyncio.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
