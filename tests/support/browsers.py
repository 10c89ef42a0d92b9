"""Real browsers for tests of pages, driven over their own protocols: Chromium's (CDP) and WebDriver
BiDi, which Firefox speaks itself. Both are Debian's; of PyPI websocket-client, and axe.min.js from
axe-selenium-python. A browser is opened with a profile of its own, and asks no network.

Long because two protocols stand beside each other under the same names.
"""

from __future__ import annotations

import base64
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

PATIENCE = 60.0
KEYS = {"Tab": ("\ue004", 9), "Enter": ("\ue006", 13), "ArrowLeft": ("\ue012", 37),
        "ArrowUp": ("\ue013", 38), "ArrowRight": ("\ue014", 39), "ArrowDown": ("\ue015", 40),
        "Home": ("\ue011", 36), "End": ("\ue010", 35), "PageUp": ("\ue00e", 33),
        "PageDown": ("\ue00f", 34), "Space": (" ", 32)}  # fmt: skip


def axe_source() -> str:
    """axe-core's script, out of the package that brings it."""
    found = importlib.util.find_spec("axe_selenium_python")
    assert found and found.submodule_search_locations, "pip install axe-selenium-python"
    (path,) = Path(found.submodule_search_locations[0]).rglob("axe.min.js")
    return path.read_text(encoding="utf-8")


class Browser:
    """What both have in common; `with Chromium() as browser`."""

    program = ""

    def __init__(self) -> None:
        path = shutil.which(self.program)
        assert path, f"apt-get install {self.program}"
        self.profile = tempfile.mkdtemp()
        self.numbers = itertools.count(1)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.process = subprocess.Popen(
            [path, *self.arguments()], stdout=subprocess.DEVNULL, stderr=self.log_file()
        )

    def log_file(self) -> Any:
        self.log = Path(self.profile, "test.log")
        return open(self.log, "w")

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def __enter__(self) -> Any:
        import websocket

        address = self.address()
        self.socket = websocket.create_connection(address, timeout=PATIENCE, suppress_origin=True)
        self.begin()
        return self

    def __exit__(self, *what: object) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.profile, ignore_errors=True)

    def address(self) -> str:
        raise NotImplementedError

    def begin(self) -> None:
        raise NotImplementedError

    def waited(self, look: Any) -> Any:
        """What look() gives, once that is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            if found := look():
                return found
            time.sleep(0.05)
        raise AssertionError(f"{self.program} did not answer: {self.log.read_text()[-2000:]}")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                assert "result" in message, (method, message)
                return message["result"]
            if "method" in message:
                self.events.append((message["method"], message["params"]))

    def run(self, body: str) -> Any:
        """The body of a function, run in the page; what it returns, as JSON has it."""
        text = self.evaluate(
            f"(async () => JSON.stringify(await (async () => {{{body}}})() ?? null))()"
        )
        return json.loads(text)

    def evaluate(self, expression: str) -> str:
        raise NotImplementedError

    def until(self, condition: str) -> None:
        self.waited(lambda: self.run(f"return Boolean({condition})"))

    def settled(self) -> None:
        """The page has drawn what it was asked for."""
        self.run("for (let n = 0; n < 4; n++) await new Promise(r => requestAnimationFrame(r));"
                 "await new Promise(r => setTimeout(r, 30))")  # fmt: skip

    def walk(self) -> None:
        """Scroll through the whole page, so that every part is drawn."""
        self.run(
            "for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight / 2) {"
            "scrollTo(0, y); await new Promise(r => setTimeout(r, 40)); } scrollTo(0, 0)"
        )

    def axe(self) -> list[str]:
        """What axe finds, a line each."""
        self.evaluate(axe_source() + "; 'there'")
        found = self.run(
            "return (await axe.run(document, {resultTypes: ['violations']})).violations"
        )
        return [f"{v['id']}: {n['html'][:200]}" for v in found for n in v["nodes"]]


class Chromium(Browser):
    program = "chromium"

    def arguments(self) -> list[str]:
        return ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
                "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
                f"--user-data-dir={self.profile}", "about:blank"]  # fmt: skip

    def address(self) -> str:
        port_file = Path(self.profile, "DevToolsActivePort")
        port = self.waited(lambda: port_file.exists() and port_file.read_text().split())[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            pages = [p for p in json.load(answer) if p["type"] == "page"]
        return pages[0]["webSocketDebuggerUrl"]

    def begin(self) -> None:
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(1280, 900)

    def size(self, width: int, height: int, scheme: str = "light", media: str = "") -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media=media, features=[feature])

    def open(self, url: str) -> None:
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> str:
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value", "null")

    def press(self, *keys: str, shift: bool = False) -> None:
        for key in keys:
            code, number = ("Space", 32) if key == "Space" else (key, KEYS[key][1])
            text = {"Enter": "\r", "Space": " "}.get(key, "")
            about = {"key": " " if key == "Space" else key, "code": code,
                     "windowsVirtualKeyCode": number, "modifiers": 8 * shift}  # fmt: skip
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown",
                      text=text, **about)  # fmt: skip
            self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def requests(self) -> set[str]:
        return {p["request"]["url"] for name, p in self.events
                if name == "Network.requestWillBeSent"}  # fmt: skip

    def errors(self) -> list[str]:
        found = []
        for name, p in self.events:
            if name == "Runtime.exceptionThrown":
                found.append(json.dumps(p["exceptionDetails"])[:600])
            elif name == "Log.entryAdded" and p["entry"]["level"] in ("error", "warning"):
                found.append(p["entry"]["text"])
            elif name == "Runtime.consoleAPICalled" and p["type"] in ("error", "warning"):
                found.append(str(p["args"])[:600])
        return found

    def shot(self, path: os.PathLike[str] | str, whole: bool = False) -> None:
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(found["data"]))


class Firefox(Browser):
    program = "firefox-esr"

    def arguments(self) -> list[str]:
        quiet = {"browser.shell.checkDefaultBrowser": False, "app.update.enabled": False,
                 "datareporting.policy.dataSubmissionEnabled": False,
                 "network.captive-portal-service.enabled": False,
                 "network.connectivity-service.enabled": False}  # fmt: skip
        lines = [f'user_pref("{name}", {json.dumps(value)});' for name, value in quiet.items()]
        Path(self.profile, "user.js").write_text("\n".join(lines))
        return ["--headless", "--no-remote", "--remote-debugging-port=0", "--profile", self.profile]

    def address(self) -> str:
        said = r"WebDriver BiDi listening on (ws://\S+)"
        return self.waited(lambda: re.search(said, self.log.read_text()))[1] + "/session"

    def begin(self) -> None:
        self.call("session.new", capabilities={})
        # A tab of its own: the one that is there at the start never gets the keyboard's focus.
        self.page = self.call("browsingContext.create", type="tab", background=False)["context"]
        self.call("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        self.size(1280, 900)

    def size(self, width: int, height: int, scheme: str = "light", media: str = "") -> None:
        assert (scheme, media) == ("light", ""), "of Firefox the page's own switch is used"
        self.call("browsingContext.setViewport", context=self.page,
                  viewport={"width": width, "height": height})  # fmt: skip

    def open(self, url: str) -> None:
        self.events.clear()
        self.call("browsingContext.navigate", context=self.page, url=url, wait="complete")

    def evaluate(self, expression: str) -> str:
        found = self.call("script.evaluate", expression=expression, awaitPromise=True,
                          target={"context": self.page})  # fmt: skip
        assert found["type"] == "success", found
        return found["result"].get("value", "null")

    def press(self, *keys: str, shift: bool = False) -> None:
        strokes: list[dict[str, str]] = [{"type": "keyDown", "value": "\ue008"}] * shift
        for key in keys:
            strokes += [{"type": kind, "value": KEYS[key][0]} for kind in ("keyDown", "keyUp")]
        strokes += [{"type": "keyUp", "value": "\ue008"}] * shift
        self.call("input.performActions", context=self.page,
                  actions=[{"type": "key", "id": "keys", "actions": strokes}])  # fmt: skip

    def requests(self) -> set[str]:
        urls = {p["request"]["url"] for name, p in self.events
                if name == "network.beforeRequestSent"}  # fmt: skip
        return {url for url in urls if not url.startswith("data:")}  # its own font for images

    def errors(self) -> list[str]:
        return [str(p.get("text"))[:600] for name, p in self.events
                if name == "log.entryAdded" and p["level"] in ("error", "warn")]  # fmt: skip

    def shot(self, path: os.PathLike[str] | str, whole: bool = False) -> None:
        origin = "document" if whole else "viewport"
        found = self.call("browsingContext.captureScreenshot", context=self.page, origin=origin)
        Path(path).write_bytes(base64.b64decode(found["data"]))


BROWSERS = (Chromium, Firefox)
