# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, by its debugging protocol over a pipe: JSON, each message ended by a NUL.

B1. Every request for anything, and every error and message of the console, is noted: `requests`,
    `problems`. The browser has a profile of its own, which is removed.
B2. Leaving ends the browser and all its processes, by the group that it leads.
Knows nothing of what is shown."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT_S = 30
END_S = 5  # for its children: nobody may be there to ask for their exit codes
ARGUMENTS = [
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
    "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--disable-features=MediaRouter,OptimizationHints,Translate", "--force-color-profile=srgb",
    "--disable-default-apps", "--password-store=basic", "--mute-audio"]
KEY_CODES = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36,
             "End": 35, "PageUp": 33, "PageDown": 34, "Enter": 13, "Escape": 27, "Tab": 9}


class Browser:
    """One browser with one page."""

    def __init__(self) -> None:
        assert PROGRAM is not None, "chromium is missing: make test-setup installs it"
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._profile = tempfile.mkdtemp(prefix="browser-")
        self._next = 0
        self._data = b""
        self._session = ""
        theirs, self._to = os.pipe()
        self._from, back = os.pipe()
        pipes = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (theirs, back)]
        os.close(theirs)
        os.close(back)

        def place_pipes() -> None:
            os.dup2(pipes[0], 3)
            os.dup2(pipes[1], 4)
        self._process = subprocess.Popen(
            [PROGRAM, *ARGUMENTS, f"--user-data-dir={self._profile}", "about:blank"],
            preexec_fn=place_pipes, pass_fds=(3, 4), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "TZ": "UTC", "HOME": self._profile})
        for fd in pipes:
            os.close(fd)
        try:
            self._attach()
        except (AssertionError, OSError):
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it, and wait until nothing of it is left."""
        os.close(self._to)
        end = time.monotonic() + END_S
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < end:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.poll()
                time.sleep(0.01)
        self._process.wait(TIMEOUT_S)
        os.close(self._from)
        shutil.rmtree(self._profile, ignore_errors=True)

    # -- what one does with it

    def open(self, path: Path, fragment: str = "") -> None:
        """Show the file, and wait until it says that it is ready."""
        self.requests.clear()
        self.problems.clear()
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)
        self.wait_for("document.body?.dataset.ready === 'true'")

    def wait_for(self, expression: str) -> None:
        """Until the expression is true."""
        end = time.monotonic() + TIMEOUT_S
        while not self.value(expression):
            assert time.monotonic() < end, f"never true: {expression}; {self.problems}"
            time.sleep(0.01)

    def value(self, expression: str) -> Any:
        """What the expression is in the page, which may be a promise of it."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def frame(self) -> None:
        """Wait until what was asked for is drawn."""
        self.value("new Promise((done) => requestAnimationFrame(() => "
                   "requestAnimationFrame(() => done(0))))")

    def press(self, *keys: str) -> None:
        """Type keys: names as in KEY_CODES, or characters."""
        for key in keys:
            code = KEY_CODES.get(key, ord(key[0].upper()))
            said = {"key": key, "windowsVirtualKeyCode": code, "code": key}
            if len(key) == 1:
                said["text"] = key
            self.call("Input.dispatchKeyEvent", type="keyDown", **said)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.frame()

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """An event of the mouse: mousePressed, mouseMoved, mouseReleased, mouseWheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y,
                  **{"button": "left", "buttons": 1, "clickCount": 1, **more})

    def resize(self, width: int, height: int) -> None:
        """The size of the page's window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)
        self.frame()

    def prefer(self, **features: str) -> None:
        """What the reader prefers: color_scheme="dark", reduced_motion="reduce"."""
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-" + name.replace("_", "-"), "value": value}
            for name, value in features.items()])
        self.frame()

    def picture(self) -> bytes:
        """What it looks like, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    # -- the protocol

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask, and wait for the answer."""
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data):]
        return self._wait(lambda one: one.get("id") == self._next, method)

    def _attach(self) -> None:
        target = next(one for one in self.call("Target.getTargets")["targetInfos"]
                      if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"],
                                  flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _wait(self, is_it: Callable[[dict[str, Any]], bool], method: str) -> dict[str, Any]:
        end = time.monotonic() + TIMEOUT_S
        while True:
            while b"\0" in self._data:
                line, _, self._data = self._data.partition(b"\0")
                message = json.loads(line)
                if is_it(message):
                    assert "error" not in message, (method, message["error"])
                    result: dict[str, Any] = message["result"]
                    return result
                self._note(message)
            left = end - time.monotonic()
            assert left > 0 and select.select([self._from], [], [], left)[0], f"{method}: no answer"
            more = os.read(self._from, 1 << 20)
            assert more, f"{method}: the browser has ended"
            self._data += more

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded":
            self.problems.append(params["entry"]["text"])
