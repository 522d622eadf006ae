"""A headless Chromium driven over the WebDriver protocol, with the standard library alone."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.server_process import free_port

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which the protocol gives an element's id."""


def missing() -> str:
    """What is not installed, in words; empty where a browser can be started."""
    absent = [names[0] for names in (("chromium", "google-chrome"), ("chromedriver",)) if not _program(names)]
    return f"{' and '.join(absent)} not found" if absent else ""


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile in the folder `profile`; it ends with the block."""
    port = free_port()
    command = [str(_program(("chromedriver",))), f"--port={port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        try:
            yield Browser(f"http://127.0.0.1:{port}", profile)
        finally:
            with contextlib.suppress(OSError):
                _call("GET", f"http://127.0.0.1:{port}/shutdown")
            driver.terminate()


class Browser:
    """One session; every method is a command of the protocol."""

    def __init__(self, driver: str, profile: Path) -> None:
        _wait_for(driver)
        options = {
            "binary": str(_program(("chromium", "google-chrome"))),
            "args": [*FLAGS, f"--user-data-dir={profile}"],
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = _call("POST", f"{driver}/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"{driver}/session/{answer['sessionId']}"

    def open(self, page: Path) -> None:
        _call("POST", f"{self.session}/url", {"url": page.as_uri()})

    def run(self, script: str) -> Any:
        """What the page's JavaScript `script` returns."""
        return _call("POST", f"{self.session}/execute/sync", {"script": script, "args": []})

    def click(self, selector: str) -> None:
        _call("POST", f"{self._element(selector)}/click", {})

    def press(self, selector: str, key: str) -> None:
        """Focus an element and press a key in it."""
        _call("POST", f"{self._element(selector)}/value", {"text": key})

    def devtools(self, command: str, **params: Any) -> Any:
        return _call("POST", f"{self.session}/goog/cdp/execute", {"cmd": command, "params": params})

    def complaints(self) -> list[str]:
        """What the page wrote to the console: errors, and what its security policy refused."""
        return [entry["message"] for entry in _call("POST", f"{self.session}/se/log", {"type": "browser"})]

    def _element(self, selector: str) -> str:
        found = _call("POST", f"{self.session}/element", {"using": "css selector", "value": selector})
        return f"{self.session}/element/{found[ELEMENT]}"


def _program(names: tuple[str, ...]) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


def _wait_for(driver: str) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError):
            if _call("GET", f"{driver}/status")["ready"]:
                return
        time.sleep(0.1)
    raise RuntimeError("chromedriver did not start")


def _call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=60) as answer:
            return json.load(answer).get("value")
    except urllib.error.HTTPError as error:
        with error:
            raise RuntimeError(error.read().decode()) from None
