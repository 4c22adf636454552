"""A headless Chromium that says what a page does: errors, requests, pixels, its tree for readers.

Speaks the DevTools protocol over a pipe: messages of JSON that end with a NUL byte.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip


class Page:
    """One open page. `events` are all that the browser told of it so far."""

    def __init__(self, sink: int, source: int) -> None:
        self._sink, self._source = sink, source
        self._rest = b""
        self._count = 0
        self._session = ""
        self.events: list[Mapping[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Mapping[str, Any]:
        """Send a command and return what it gives; events that come meanwhile are kept."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._sink, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: Mapping[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, url: str) -> None:
        """Load a page to the end."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def look(self, width: int = 1280, *, dark: bool = False) -> None:
        """Set how wide the window is, and which colours the reader prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                  deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def value(self, expression: str) -> Any:
        """Return what an expression gives; the page's policy does not hold for the debugger."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def picture(self, path: Path, top: int = 0, height: int = 12_000) -> None:
        """Write a part of the page as PNG: `height` pixels, and no more than it has."""
        width, whole = self.value("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": top, "width": width, "height": min(height, whole - top), "scale": 1}
        told = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(told["data"]))

    def paper(self, path: Path) -> None:
        """Write the page as PDF, A4."""
        told = self.call(
            "Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69
        )
        path.write_bytes(base64.b64decode(told["data"]))

    def complaints(self) -> list[str]:
        """Return errors and warnings: of the console, of the policy, of scripts."""
        wrong = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded",
                 "Audits.issueAdded")  # fmt: skip
        return [
            json.dumps(event["params"]) for event in self.events if event.get("method") in wrong
        ]

    def requests(self) -> list[str]:
        """Return every address that the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def _next(self) -> Mapping[str, Any]:
        while b"\0" not in self._rest:
            read = os.read(self._source, 1 << 20)
            if not read:
                raise RuntimeError("the browser has gone")
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        told: Mapping[str, Any] = json.loads(message)
        return told


@contextmanager
def browser() -> Iterator[Page]:
    """Start a browser with an empty profile and yield its one page."""
    assert BROWSER
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()

    def place() -> None:
        os.dup2(os.dup(to_read), 3)
        os.dup2(os.dup(from_write), 4)

    profile = tempfile.mkdtemp()
    command = [BROWSER, *_FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        close_fds=False, preexec_fn=place, start_new_session=True,
    )  # fmt: skip
    try:
        os.close(to_read)
        os.close(from_write)
        yield Page(to_write, from_read)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its children, which write to the profile
        process.wait()
        os.close(to_write)
        os.close(from_read)
        shutil.rmtree(profile, ignore_errors=True)
