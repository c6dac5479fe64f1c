"""Headless Chromium through chromedriver, over its own protocol (W3C WebDriver: JSON over HTTP); no package needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Any

__all__ = ["ELEMENT", "Browser", "browser", "missing"]

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_DRIVER = "chromedriver"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def missing() -> str | None:
    """Why no page can be opened here, or None if one can."""
    if not any(map(shutil.which, _NAMES)):
        return f"no browser: none of {', '.join(_NAMES)} is installed (Debian: apt-get install chromium)"
    return None if shutil.which(_DRIVER) else "no chromedriver (Debian: apt-get install chromium-driver)"


class Browser:
    """One window."""

    def __init__(self, session: str):
        self._session = session

    def _post(self, path: str, **body: Any) -> Any:
        return _request(f"{self._session}/{path}", body)

    def open(self, page: Path) -> None:
        self._post("url", url=page.resolve().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """The script's `return`; a promise is waited for."""
        return self._post("execute/sync", script=script, args=list(arguments))

    def find(self, selector: str) -> dict[str, str]:
        return self._post("element", using="css selector", value=selector)

    def keys(self, selector: str, text: str) -> None:
        self._post(f"element/{self.find(selector)[ELEMENT]}/value", text=text)
        self.settle()

    def drag(self, selector: str, start: tuple[int, int], *ends: tuple[int, int]) -> None:
        """Press at `start`, move on, release; pixels from the middle of the element."""
        origin = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", origin)
        moves = [{"type": "pointerMove", "origin": origin, "x": x, "y": y, "duration": 30} for x, y in (start, *ends)]
        actions = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        self._post("actions", actions=[{"type": "pointer", "id": "mouse", "actions": actions}])
        self.settle()

    def settle(self) -> None:
        """Return once what was asked for is drawn."""
        self.run("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def value(self, selector: str) -> list[float]:
        """The numbers of a <data> element, all digits."""
        return [float(v) for v in self.run("return document.querySelector(arguments[0]).value", selector).split()]

    def complaints(self) -> list[str]:
        """Errors and warnings on the console since the last call."""
        return [entry["message"] for entry in self._post("se/log", type="browser")]

    def screenshot(self, path: Path) -> None:
        """The whole page, also what must be scrolled to."""
        parameters = {"captureBeyondViewport": True}
        data = self._post("goog/cdp/execute", cmd="Page.captureScreenshot", params=parameters)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browser(width: int = 1200, height: int = 900, *, phone: bool = False, dark: bool = False) -> Iterator[Browser]:
    """A browser of its own, ended at the end.

    Raises:
        OSError: it does not start.
    """
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options: dict[str, Any] = {
        "binary": next(path for path in map(shutil.which, _NAMES) if path),
        "args": [*arguments, f"--window-size={width},{height}"] + (["--force-dark-mode"] if dark else []),
    }
    if phone:
        options["mobileEmulation"] = {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 2.0}}
    wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    driver = subprocess.Popen(
        [shutil.which(_DRIVER) or _DRIVER, f"--port={port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"no_proxy": "127.0.0.1"},
    )
    try:
        root = f"http://127.0.0.1:{port}/session"
        session = _request(root, {"capabilities": {"alwaysMatch": wanted}}, patience=30)["sessionId"]
        try:
            yield Browser(f"{root}/{session}")
        finally:
            _request(f"{root}/{session}", None)
    finally:
        driver.terminate()
        driver.wait(10)


def _request(url: str, body: dict[str, Any] | None, patience: float = 0) -> Any:
    """POST, or DELETE without a body; tried again for so many seconds while nobody listens."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json"}, method="POST" if data else "DELETE"
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + patience
    while True:
        try:
            with direct.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise OSError(json.load(error)["value"]["message"]) from error
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
