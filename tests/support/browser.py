"""A headless Chromium that tests talk to through two pipes, in the DevTools protocol; no package is needed for it."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_ROOT_NEEDS = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []


class Browser:
    """A page in the browser.

    Attributes:
        complaints: what the page wrote to the console, exceptions, and what could not be loaded.
        requests: addresses that the page asked for.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out = os.fdopen(to_browser, "wb", buffering=0)
        self._in = os.fdopen(from_browser, "rb", buffering=0)
        self._left, self._n = b"", 0
        self._session: str | None = None
        self._events: list[str] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.call(f"{domain}.enable")

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            more = self._in.read(65536)
            if not more:
                raise RuntimeError("the browser has gone")
            self._left += more
        text, _, self._left = self._left.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        name, about = event["method"], event["params"]
        self._events.append(name)
        if name == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(about["args"]))
        elif name == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif name == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(about["entry"]["text"])
        elif name == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Ask the browser and wait for its answer."""
        self._n += 1
        asked: dict[str, Any] = {"id": self._n, "method": method, "params": arguments}
        if self._session:
            asked["sessionId"] = self._session
        self._out.write(json.dumps(asked).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self._n:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            if "method" in message:
                self._note(message)

    def open(self, page: Path, width: int, height: int = 900) -> None:
        """Load a page in a window of this size, in pixels, and wait until it stands."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self._events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while "Page.loadEventFired" not in self._events:
            message = self._message()
            if "method" in message:
                self._note(message)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot as PNG, of the whole page or of the window."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def headless(profile: Path) -> Iterator[Browser]:
    """Start a browser with a fresh profile in the folder `profile`, and end it."""
    assert CHROMIUM is not None
    child_in, to_browser = os.pipe()
    from_browser, child_out = os.pipe()
    # The browser reads from descriptor 3 and writes to 4; ours must not be these two.
    ours = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (child_in, child_out)]
    os.close(child_in)
    os.close(child_out)
    command = [CHROMIUM, "--headless=new", "--disable-gpu", "--no-first-run", "--disable-extensions"]
    command += ["--disable-background-networking", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    command += [*_ROOT_NEEDS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{ours[0]} 4>&{ours[1]}', "bash", *command],
        pass_fds=ours,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in ours:
        os.close(end)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
