"""A headless Chromium that tests drive through its DevTools pipe (JSON ended by a zero byte), standard
library alone."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE = 120
"""Seconds that a busy machine gets for one answer; the first one includes the browser's start."""

# Chromium reads commands from descriptor 3 and answers on 4. A program of its own puts them there, as code
# between fork and exec is not safe in a process with threads.
LAUNCHER = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"


class Browser:
    """One page in one browser, as a context manager. `console` and `requests` hold what the page said and
    asked for."""

    def __init__(self, profile: Path) -> None:
        self.console: list[str] = []
        self.requests: list[str] = []
        self._loaded, self._session, self._number, self._buffer = False, None, 0, b""
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                LAUNCHER,
                str(commands),
                str(answers),
                CHROMIUM,
                *FLAGS,
                f"--user-data-dir={profile}",
            ],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)

    def __enter__(self) -> Browser:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)  # the end of the pipe ends the browser
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)

    def call(self, method: str, **parameters: object) -> dict:
        """Sends a DevTools command. Returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        answers: list[dict] = []
        self._read_until(lambda found: found.get("id") == self._number and not answers.append(found), method)
        assert "error" not in answers[0], f"{method}: {answers[0]['error']}"
        return answers[0]["result"]

    def open(
        self,
        page: Path | str,
        width: int,
        height: int = 1000,
        scheme: str = "light",
        media: str = "screen",
        scale: float = 1,
    ) -> None:
        """Loads a page anew: `scheme` is light or dark, `media` screen or print, `scale` device pixels for
        one of CSS."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 720,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.console.clear()
        self.requests.clear()
        self._loaded = False
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        if not self._loaded:
            self._read_until(lambda _: self._loaded, "Page.loadEventFired")

    def evaluate(self, expression: str) -> object:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> Path:
        """Writes the whole page, however long, as a PNG file."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, optimizeForSpeed=True)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def pdf(self, path: Path) -> Path:
        """Prints the page on A4, with the margins that it asks for."""
        self.call("Emulation.setEmulatedMedia", media="print")
        answer = self.call(
            "Page.printToPDF",
            paperWidth=8.27,
            paperHeight=11.69,
            printBackground=True,
            preferCSSPageSize=True,
        )
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def _read_until(self, wanted: Callable[[dict], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            while b"\0" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\0")
                found = json.loads(line)
                self._note(found.get("method"), found.get("params", {}))
                if wanted(found):
                    return
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._from, 1 << 16) if ready else b""
            if not data:
                raise RuntimeError(f"chromium {'ended' if ready else 'is silent'}: {what}")
            self._buffer += data

    def _note(self, method: str | None, found: dict) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])
        elif method == "Log.entryAdded":
            self.console.append(found["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.console.append(str(found["args"]))
        elif method == "Runtime.exceptionThrown":
            self.console.append(found["exceptionDetails"]["text"])
