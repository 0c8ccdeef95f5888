"""Chromium without a window, spoken to through a pipe: what a page asks for, what it complains of, what it looks like.

Each message is JSON and a zero byte; the browser reads file 3 and writes file 4 (its option ``--remote-debugging-pipe``).
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass, field

PATIENCE_S = 60
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --remote-debugging-pipe"
).split()


@dataclass
class Seen:
    """A page that was opened: addresses it asked for beside its own, what the console said, and what a script found in it."""

    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    found: object = None


class Browser:
    """Chromium with a profile in a folder; ``close`` ends it."""

    def __init__(self, folder):
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
        arguments = [shutil.which("chromium"), *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", command, *arguments],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._rest, self._number, self._waiting = b"", 0, []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", here=True)

    def open(self, path, *, width=1280, height=900, script="null", picture=None):
        """Open a file.

        Args:
            path: Of the page.
            width: Of the window.
            height: Of the window.
            script: What to work out in the page.
            picture: File for a picture of the whole page.
        """
        self._call("Emulation.setDeviceMetricsOverride", here=True, width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._waiting.clear()
        self._call("Page.navigate", here=True, url=path.as_uri())
        events = []
        while not events or events[-1]["method"] != "Page.loadEventFired":
            events.append(self._event())
        found = self._call("Runtime.evaluate", here=True, expression=script, returnByValue=True)["result"].get("value")
        if picture is not None:
            shot = self._call("Page.captureScreenshot", here=True, captureBeyondViewport=True)
            picture.write_bytes(base64.b64decode(shot["data"]))
        events += self._waiting
        return Seen(list(_requests(events, path.as_uri())), list(_complaints(events)), found)

    def close(self):
        """End the browser."""
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        self._process.wait(PATIENCE_S)

    def _call(self, method, *, here=False, **parameters):
        self._number += 1
        told = {"id": self._number, "method": method, "params": parameters, **({"sessionId": self._session} if here else {})}
        os.write(self._write, json.dumps(told).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            if "method" in message:
                self._waiting.append(message)

    def _event(self):
        while not self._waiting:
            self._waiting.append(self._message())
        return self._waiting.pop(0)

    def _message(self):
        end = time.monotonic() + PATIENCE_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            got = os.read(self._read, 1 << 20) if ready else b""
            if not got:
                raise RuntimeError(f"Chromium said nothing for {PATIENCE_S} s, or ended")
            self._rest += got
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


def _requests(events, own):
    for event in events:
        if event["method"] == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            if url != own and not url.startswith("data:"):
                yield url


def _complaints(events):
    for event in events:
        if event["method"] == "Log.entryAdded":
            yield event["params"]["entry"]["text"]
        if event["method"] == "Runtime.consoleAPICalled":
            yield str(event["params"]["args"])
        if event["method"] == "Runtime.exceptionThrown":
            yield str(event["params"]["exceptionDetails"])
