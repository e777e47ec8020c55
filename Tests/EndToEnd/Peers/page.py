#!/usr/bin/env python3
"""Looks into a page: page.py PROFILE URL EXPRESSION. Takes the Chromium that runs with this profile directory to URL and prints, as JSON, what
the JavaScript EXPRESSION gives there once that is neither null nor false."""
import asyncio, itertools, json, sys, urllib.request

import websockets


async def main(profile, url, expression):
    while True:
        try:
            with open(f"{profile}/DevToolsActivePort") as file:
                port = int(file.readline())
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                page = next(target for target in json.load(answer) if target["type"] == "page")
            break
        except (OSError, StopIteration, ValueError):
            await asyncio.sleep(0.05)
    numbers = itertools.count(1)
    async with websockets.connect(page["webSocketDebuggerUrl"], max_size=None) as tools:

        async def command(method, **parameters):
            number = next(numbers)
            await tools.send(json.dumps({"id": number, "method": method, "params": parameters}))
            while (message := json.loads(await tools.recv())).get("id") != number:
                pass
            return message.get("result", {})

        await command("Page.navigate", url=url)
        while True:
            value = await command("Runtime.evaluate", expression=expression, returnByValue=True)
            if value := value.get("result", {}).get("value"):
                return print(json.dumps(value), flush=True)
            await asyncio.sleep(0.05)


asyncio.run(main(*sys.argv[1:]))
