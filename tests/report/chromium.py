"""A headless Chromium, driven over its debugging pipe: the tests' eyes and hands on a page.

No library: the DevTools protocol is JSON between zero bytes on file descriptors 3 and 4
(`--remote-debugging-pipe`), and the tests need a dozen of its methods.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
needed = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page in")

KEYS = {"Tab": 9, "Enter": 13, "Space": 32}
TEXTS = {"Enter": "\r", "Space": " "}
SECONDS = 30  # before a browser that says or does nothing is given up


class Browser:
    """One tab. `console` holds what it complained of: console messages, refusals, exceptions."""

    def __init__(self, to: int, answers: int) -> None:
        self.to, self.answers = to, answers
        self.read, self.number = b"", 0
        self.console: list[str] = []
        self.events: list[str] = []
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A method of the DevTools protocol; what it answers."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self.number:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def open(
        self, path: Path, *, width: int = 1280, dark: bool = False, printed: bool = False
    ) -> None:
        """Load a file in a window of that width in CSS pixels, and wait until it is there."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        media = "print" if printed else "screen"
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Emulation.setDeviceMetricsOverride",
                  width=width, height=900, deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        self.console, self.events = [], []
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self.events:
            self._message()

    def value(self, script: str) -> Any:
        """What an expression of JavaScript is in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str) -> bool:
        """Whether an expression comes true within SECONDS: what follows an event takes a while."""
        deadline = time.monotonic() + SECONDS
        while not (true := bool(self.value(script))) and time.monotonic() < deadline:
            time.sleep(0.02)
        return true

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element, scrolled into sight."""
        quoted = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{quoted}.scrollIntoView({{block: 'center', inline: 'center'}})")
        box = self.value(f"{quoted}.getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press and release a key, where the focus is."""
        named = {"key": key if key != "Space" else " ", "code": key}
        named |= {"windowsVirtualKeyCode": KEYS[key]}
        if key in TEXTS:
            self.call("Input.dispatchKeyEvent", type="keyDown", text=TEXTS[key], **named)
        else:
            self.call("Input.dispatchKeyEvent", type="keyDown", **named)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """A PNG of the window, or of the whole page."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self.read:
            ready, _, _ = select.select([self.answers], [], [], deadline - time.monotonic())
            chunk = os.read(self.answers, 1 << 20) if ready else b""
            assert chunk, "Chromium says nothing more"
            self.read += chunk
        line, _, self.read = self.read.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message["method"])
        if message.get("method") in (
            "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown",
        ):  # fmt: skip
            self.console.append(json.dumps(message["params"]))
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A Chromium with an empty profile in `profile`, ended at the end."""
    ours, theirs = os.pipe(), os.pipe()
    options = (
        "--headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run"
        " --disable-background-networking --remote-debugging-pipe"
    )
    command = f'exec "$0" {options} "--user-data-dir=$1" 3<&{ours[0]} 4>&{theirs[1]}'
    process = subprocess.Popen(
        ["bash", "-c", command, str(CHROMIUM), str(profile)],
        pass_fds=(ours[0], theirs[1]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(ours[0])
    os.close(theirs[1])
    try:
        tab = Browser(ours[1], theirs[0])
        yield tab
        tab.session = None
        tab.call("Browser.close")
        process.wait(SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(ours[1])
        os.close(theirs[0])
