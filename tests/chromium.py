"""A headless Chromium for tests of pages, driven by its DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

#: Debian's package, or another build of the same name.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "Chromium is not installed: apt-get install chromium"
_WAIT = 60.0  # seconds


@dataclass
class Tab:
    """A page that is open, and what it told.

    Attributes:
        socket: to the page.
        told: messages of its console, errors and dialogs.
        requests: addresses that it asked for.
    """

    socket: ClientConnection
    told: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _sent: int = 0
    _loaded: bool = False

    def send(self, method: str, **given: Any) -> dict[str, Any]:
        """Call a method of the protocol, and hear what comes meanwhile."""
        self._sent += 1
        self.socket.send(json.dumps({"id": self._sent, "method": method, "params": given}))
        while True:
            message = json.loads(self.socket.recv(_WAIT))
            if message.get("id") == self._sent:
                assert "error" not in message, message
                return dict(message["result"])
            self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        method, given = message.get("method", ""), message.get("params", {})
        if method == "Runtime.consoleAPICalled":
            self.told.append(f"{given['type']}: {[one.get('value') for one in given['args']]}")
        elif method == "Runtime.exceptionThrown":
            self.told.append(f"exception: {given['exceptionDetails']}")
        elif method == "Log.entryAdded":
            self.told.append(f"{given['entry']['level']}: {given['entry']['text']}")
        elif method == "Page.javascriptDialogOpening":
            self.told.append(f"dialog: {given['message']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    def open(self, path: Path) -> float:
        """Open a file; returns the seconds until all its scripts have run and it is drawn."""
        self._loaded = False
        began = time.perf_counter()
        self.send("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._hear(json.loads(self.socket.recv(_WAIT)))
        self.value("new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))")
        return time.perf_counter() - began

    def value(self, script: str) -> Any:
        """What an expression gives."""
        found = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys, such as ``Tab`` or ``Enter``, one after the other."""
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            code = {"Enter": 13, "Tab": 9, "Escape": 27}.get(key, 0)
            given = {"key": key, "windowsVirtualKeyCode": code}
            self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **given)
            self.send("Input.dispatchKeyEvent", type="keyUp", **given)

    def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Set the size of the window, in CSS pixels."""
        scale = 2 if mobile else 1
        given = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self.send("Emulation.setDeviceMetricsOverride", **given)

    def scheme(self, name: str) -> None:
        """Prefer ``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a picture of the whole page, or of the window, as PNG."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        found = self.send("Page.printToPDF", printBackground=True)
        return base64.b64decode(found["data"])


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A tab of a Chromium of its own, in a profile of its own.

    Args:
        folder: for the profile.
    """
    assert CHROMIUM is not None
    port = folder / "DevToolsActivePort"
    port.unlink(missing_ok=True)
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    words += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "--hide-scrollbars"]
    words += ["--disable-background-networking", "--disable-dev-shm-usage", "about:blank"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen([CHROMIUM, *words], **quiet)  # type: ignore[call-overload]
    try:
        with connect(_address(port, running), max_size=None, open_timeout=_WAIT) as whole:
            made = Tab(whole).send("Target.createTarget", url="about:blank")
            address = f"{_address(port, running).split('/devtools')[0]}/devtools/page"
            with connect(f"{address}/{made['targetId']}", max_size=None) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    tab.send(f"{domain}.enable")
                yield tab
    finally:
        running.terminate()
        running.wait(_WAIT)


def _address(port: Path, running: subprocess.Popen[bytes]) -> str:
    """Where the browser listens; it writes that when it does."""
    until = time.monotonic() + _WAIT
    while time.monotonic() < until:
        assert running.poll() is None, "Chromium ended"
        lines = port.read_text().splitlines() if port.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise TimeoutError("Chromium does not listen")
