"""Runs a server's command in several processes, forked after the imports that they share, which take seconds.

    python forked.py '{"command": "module:function", "imports": ["module"], "servers": [["folder", "argument", …], …]}'

Each has its folder as the current one, and writes to `log` there. They end with standard input. It runs where neither
server need be installed, so it imports the standard library alone.
"""

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable


def main(command: str, imports: list[str], servers: list[list[str]]) -> None:
    """Run all, until nobody writes to standard input any more."""
    for name in imports:
        importlib.import_module(name)
    module, _, function = command.partition(":")
    serve = getattr(importlib.import_module(module), function)
    children = [_forked(serve, folder, arguments) for folder, *arguments in servers]
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _forked(serve: Callable[[], object], folder: str, arguments: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    os.chdir(folder)
    log = os.open("log", os.O_CREAT | os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    sys.path.insert(0, folder)
    sys.argv = ["server", *arguments]
    try:
        serve()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
