"""A browser of one's own, driven over the Chrome DevTools Protocol (chromedevtools.github.io/devtools-protocol).

The protocol is JSON over a WebSocket, and `websockets` comes with uvicorn: nothing has to be installed but Chromium.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.programs import program
from tests.running import process, wait_for

DEADLINE_SECONDS = 60.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers, where Chromium refuses to start with one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--force-prefers-reduced-motion",
    "--host-resolver-rules=MAP *.example 127.0.0.1",  # a foreign name that points here
    "--remote-debugging-port=0",
)
Scheme = Literal["light", "dark"]


class PageError(AssertionError):
    """What the page ran into: an exception of its scripts, or of what was evaluated in it."""


class Page:
    """One tab. `complaints`: errors that its console got, among them files that could not be loaded."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.complaints: list[str] = []
        self.trouble = ""
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=DEADLINE_SECONDS))
            if message.get("id") == self._number:
                if "error" in message:
                    raise PageError(f"{method}: {message['error']}")
                return message["result"]
            self._heard(message)

    def _heard(self, message: Mapping[str, Any]) -> None:
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = message["params"]["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if message["params"]["type"] in {"error", "warning", "assert"}:
                self.complaints.append(" ".join(str(one.get("value", one)) for one in message["params"]["args"]))
            case "Log.entryAdded" if message["params"]["entry"]["level"] == "error":
                entry = message["params"]["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, as JSON; a promise is waited for."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise PageError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, script: str, what: str = "") -> Any:
        """Wait until the expression is true, and give its value. Between two pages it may have nothing to look at."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                value = self.evaluate(script)
            except PageError as error:
                value, self.trouble = None, str(error)
            if value:
                return value
            if time.monotonic() > deadline:
                text = self.evaluate("document.body.innerText")
                raise PageError(f"never came: {what or script}\n{self.trouble}\n{self.complaints}\n{text}")
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def open(self, url: str) -> None:
        """Go there; it is shown once it has loaded."""
        self.send("Page.navigate", url=url)
        self.until(f"location.href === {json.dumps(url)} && document.readyState === 'complete'", f"open {url}")

    def look(self, *, width: int = 1280, height: int = 900, scheme: Scheme = "light") -> None:
        """How large the window is, and whether the user prefers it dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def click(self, selector: str) -> None:
        """With the mouse, in its middle: what lies over it gets the click."""
        place = self.until(
            f"""(() => {{
                const node = document.querySelector({json.dumps(selector)});
                if (!node) return null;
                node.scrollIntoView({{ block: "center" }});
                const box = node.getBoundingClientRect();
                return box.width ? [box.x + box.width / 2, box.y + box.height / 2] : null;
            }})()""",
            f"something to click at {selector}",
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Into whatever has the focus."""
        self.send("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """A key by its name and its number."""
        for kind in ("rawKeyDown", *(["char"] if key == "Enter" else []), "keyUp"):
            text = {"text": "\r"} if kind == "char" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def choose(self, selector: str, value: str) -> None:
        """An option of a select, as a user would: the page hears of the change."""
        self.evaluate(
            f"""(() => {{
                const node = document.querySelector({json.dumps(selector)});
                node.value = {json.dumps(value)};
                node.dispatchEvent(new Event("change", {{ bubbles: true }}));
            }})()"""
        )

    def drop_files(self, selector: str, paths: Sequence[Path]) -> None:
        """Files and folders, dragged from the desk over its middle and dropped there."""
        place = self.evaluate(
            f"""(() => {{
                const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=place[0], y=place[1], data=data)

    def accessible(self) -> list[dict[str, Any]]:
        """What a screen reader is told of: role, name and properties of each node that is not ignored."""
        return [
            {
                "role": node["role"]["value"],
                "name": node.get("name", {}).get("value", ""),
                **{one["name"]: one["value"].get("value") for one in node.get("properties", [])},
            }
            for node in self.send("Accessibility.getFullAXTree")["nodes"]
            if not node["ignored"]
        ]

    def violations(self, axe: str) -> list[str]:
        """What axe-core, by its source, finds wrong with the page as it is now: each rule with the first element."""
        self.evaluate(f"{axe}; true")
        return [str(one) for one in self.evaluate(VIOLATIONS)]


VIOLATIONS = "axe.run().then((all) => all.violations.map((one) => `${one.id}: ${one.help}: ${one.nodes[0].html}`))"


def axe_source(*, required: bool = True) -> str | None:
    """axe-core, which `make test-clients` installs by npm. Skips the test, or gives None, where it is not there."""
    file = Path(os.environ.get("AZIMUTH_NODE_MODULES", "node_modules")) / "axe-core" / "axe.min.js"
    if not file.exists() and required:
        pytest.skip("axe-core is not installed: `make test-clients` does that, where there is npm")
    return file.read_text(encoding="utf-8") if file.exists() else None


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A fresh Chromium that keeps what it keeps in `folder`. Skips the test where there is none."""
    profile, log = folder / "profile", folder / "chromium.log"
    with process([program("chromium"), *FLAGS, f"--user-data-dir={profile}", "about:blank"], log) as chromium:

        def port() -> str:
            assert chromium.poll() is None, log.read_text(errors="replace")
            file = profile / "DevToolsActivePort"
            return file.read_text().partition("\n")[0] if file.exists() else ""

        number = wait_for(port, lambda: log.read_text(errors="replace"), DEADLINE_SECONDS)
        tabs = httpx.get(f"http://127.0.0.1:{number}/json/list", trust_env=False).json()
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        with connect(address, max_size=None, proxy=None, ping_interval=None) as connection:
            yield Page(connection)
