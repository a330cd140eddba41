"""Chromium without a window, spoken to by the DevTools protocol."""

import itertools
import json
import os
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

import pytest
from websockets.sync.client import connect

from tests.clients.find_chromium import find_chromium

START_WITHIN = 60.0
WORK_WITHIN = 90.0
STOP_WITHIN = 10.0
OPTIONS = (
    "--headless",
    "--no-sandbox",  # it refuses to run as root with it, and sees nothing but our pages
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)


class Navigated(AssertionError):
    """The page was left while an expression was evaluated there."""


class Chromium:
    """A browser from entering to leaving, which keeps what it has to keep in `folder`."""

    def __init__(self, folder: Path) -> None:
        try:
            program = find_chromium(os.environ)
        except LookupError as error:
            pytest.fail(str(error))
        self._folder = folder
        self._command = [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        self._numbers = itertools.count(1)
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> Self:
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        with ExitStack() as stack:
            stack.callback(self._stop)
            self._connection = stack.enter_context(connect(self._address(), proxy=None, max_size=None))
            stack.callback(self._call, "Browser.close")
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit.close()

    def evaluate(self, url: str, expression: str) -> Any:
        """Open a page and return the value of a JavaScript expression there; that of the promise, if it is one.

        Fails with the page's error if it throws.
        """
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        page = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable", page)
        self._call("Page.navigate", page, url=url)
        self._hear(lambda message: message.get("method") == "Page.loadEventFired")
        answer = self._call("Runtime.evaluate", page, expression=expression, awaitPromise=True, returnByValue=True)
        self._call("Target.closeTarget", targetId=target)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    @contextmanager
    def open(self, url: str, screen: "Screen | None" = None) -> Iterator["Page"]:
        """A page, from opening to closing. It shares no storage with others, and notes its faults."""
        context = self._call("Target.createBrowserContext")["browserContextId"]
        target = self._call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(
            lambda method, **params: self._call(method, session, **params),
            lambda: self._hear(lambda message: message.get("sessionId") == session),
        )
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        if screen is not None:
            page.show_on(screen)
        try:
            page.load(url)
            yield page
        finally:
            self._call("Target.closeTarget", targetId=target)
            self._call("Target.disposeBrowserContext", browserContextId=context)
            del self._pages[session]

    def _call(self, method: str, page: str | None = None, **params: Any) -> Any:
        number = next(self._numbers)
        call = {"id": number, "method": method, "params": params}
        self._connection.send(json.dumps(call if page is None else {**call, "sessionId": page}))
        answer = self._hear(lambda message: message.get("id") == number)
        if "Inspected target navigated" in answer.get("error", {}).get("message", ""):
            raise Navigated(method, answer["error"])
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _hear(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message that is wanted; those before it are passed over."""
        while True:
            message: dict[str, Any] = json.loads(self._connection.recv(WORK_WITHIN))
            if "method" in message and (page := self._pages.get(message.get("sessionId", ""))) is not None:
                page.note(message)
            if wanted(message):
                return message

    def _stop(self) -> None:
        try:
            self._process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _address(self) -> str:
        """Where it listens, which it writes down when it does."""
        file = self._folder / "DevToolsActivePort"
        until = time.monotonic() + START_WITHIN
        while True:
            lines = file.read_text().splitlines() if file.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            if self._process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"{self._command[0]} did not start:\n{(self._folder / 'log').read_text()}")
            time.sleep(0.02)


class Screen(NamedTuple):
    """What a page is shown on."""

    width: int
    height: int
    dark: bool = False


class Page:
    """A page that stays open: a person uses it by keys, and a test looks at it. `faults` are what it complained of."""

    KEYS: ClassVar = {"Enter": ("\r", 13), "Tab": ("", 9), "Escape": ("", 27), " ": (" ", 32), "PageUp": ("", 33)}

    def __init__(self, call: Callable[..., Any], hear: Callable[[], object]) -> None:
        self.call = call
        self.faults: list[str] = []
        self._hear = hear
        self._loads = 0

    def load(self, url: str | None = None) -> None:
        """Go to a URL, or load the page again, and wait until it is loaded."""
        before = self._loads
        self.call("Page.reload") if url is None else self.call("Page.navigate", url=url)
        while self._loads == before:
            self._hear()

    def note(self, message: dict[str, Any]) -> None:
        """Note an error of a script, of the console or of a policy; answers that are errors are none."""
        params = message["params"]
        self._loads += message["method"] == "Page.loadEventFired"
        if message["method"] == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.faults.append(details.get("exception", details).get("description", details["text"]))
        elif message["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.faults.append(str([part.get("value", part.get("description")) for part in params["args"]]))
        elif message["method"] == "Log.entryAdded":
            entry = params["entry"]
            if entry["source"] != "network" and entry["level"] in ("error", "warning"):
                self.faults.append(entry["text"])

    def show_on(self, screen: Screen) -> None:
        """Use another screen, or other colours, from now on."""
        width, height, dark = screen
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[colours, still])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; that of the promise, if it is one. Fails with the page's error."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """The value of an expression as soon as that is neither false nor empty. Fails with what the page shows.

        A page that the browser leaves meanwhile, for example because it loads itself again, is asked again.
        """
        waiting = (
            "(async () => { const end = Date.now() + 60000; for (;;) { const found = " + expression + "; if (found) "
            "return found; if (Date.now() > end) throw new Error(" + json.dumps(f"never: {expression}") + " + '\\n' + "
            "document.body.innerText); await new Promise(done => setTimeout(done, 20)); } })()"
        )
        while True:
            with suppress(Navigated):
                return self.evaluate(waiting)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key and let it go."""
        text, code = self.KEYS[key]
        params = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **params)
        self.call("Input.dispatchKeyEvent", type="keyUp", **params)

    def write(self, text: str) -> None:
        """Write a text into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self) -> bytes:
        """What is on the screen, as PNG."""
        return b64decode(self.call("Page.captureScreenshot", format="png")["data"])
