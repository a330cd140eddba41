"""Chromium without a window, spoken to by the DevTools protocol."""

import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from websockets.sync.client import connect

from tests.clients.find_chromium import find_chromium

START_WITHIN = 60.0
WORK_WITHIN = 40.0
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

    def _call(self, method: str, page: str | None = None, **params: Any) -> Any:
        number = next(self._numbers)
        call = {"id": number, "method": method, "params": params}
        self._connection.send(json.dumps(call if page is None else {**call, "sessionId": page}))
        answer = self._hear(lambda message: message.get("id") == number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _hear(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message that is wanted; those before it are passed over."""
        while True:
            message: dict[str, Any] = json.loads(self._connection.recv(WORK_WITHIN))
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
