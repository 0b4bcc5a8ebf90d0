"""Chromium without a screen, driven by chromedriver in the words of W3C WebDriver."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.ports import free_port

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER, TAB = "\ue007", "\ue004"


class Browser:
    """One window; `folder` holds its profile."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={self._port}", "--silent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._session = ""
        options = {"args": [*FLAGS, f"--user-data-dir={folder}"], "binary": "/usr/bin/chromium"}
        wanted = {"browserName": "chrome", "acceptInsecureCerts": True, "goog:chromeOptions": options}
        deadline = time.monotonic() + 30
        while True:
            try:
                made = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
                break
            except urllib.error.HTTPError as error:
                raise AssertionError(error.read().decode()) from error
            except OSError:
                assert time.monotonic() < deadline, "chromedriver does not answer"
                time.sleep(0.05)
        self._session = f"/{made['sessionId']}"

    def _ask(self, method: str, path: str, body: dict | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/session{self._session}{path}",
            json.dumps(body or {}).encode() if method == "POST" else None,
            {"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def close(self) -> None:
        try:
            self._ask("DELETE", "")
        except OSError:
            pass
        self._driver.kill()
        self._driver.wait(10)

    def go(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        return self._ask("GET", "/url")

    def run(self, script: str, *args: object) -> Any:
        """What a script returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(args)})

    def text(self, selector: str = "body") -> str:
        return self.run("const e = document.querySelector(arguments[0]); return e ? e.innerText : '';", selector)

    def _find(self, selector: str) -> str:
        return self._ask("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector: str) -> None:
        self._ask("POST", f"/element/{self._find(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        self._ask("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """To whatever has the focus."""
        actions = [act for key in keys for act in ({"type": "keyDown", "value": key}, {"type": "keyUp", "value": key})]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def focused(self) -> str:
        """What the focus is on: its id, or its words."""
        return self.run("const e = document.activeElement; return e.id || e.innerText;")

    def look(self, width: int, scheme: str, height: int = 900) -> None:
        """Be so wide, in light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._chromium("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._chromium("Emulation.setEmulatedMedia", {"features": [feature]})

    def _chromium(self, command: str, params: dict) -> Any:
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def console(self) -> list[str]:
        """What the page complained of since the last look."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]
