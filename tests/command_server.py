"""Runs the command for tests in processes forked from one that has imported it, which spares each the imports.

A request is one packet: what the process gets, as JSON, with its standard streams. Two packets answer it: the number of
the process, and its exit status.
"""

import json
import os
import runpy
import socket
import sys
import time

# What most commands import. Nothing of the tests and no plugin is here, for those differ from command to command.
import jimsapi.cli
import jimsapi.cli.subcommands
import jimsapi.stores.sqlite  # noqa: F401


def serve(requests: socket.socket) -> None:
    """Run one command after another until the tests end. It returns in each child, which is then the command."""
    while True:
        packet, streams, *_ = socket.recv_fds(requests, 1 << 20, 3)
        if not packet:
            os._exit(0)
        child = os.fork()
        if child == 0:
            requests.close()
            return become(streams, **json.loads(packet))
        for stream in streams:
            os.close(stream)
        requests.send(str(child).encode())
        requests.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def become(streams: list[int], arguments: list[str], folder: str, env: dict[str, str]) -> None:
    """Give this process what a new one has from its start."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    sys.argv = ["jimsapi", *arguments]
    sys.path[:0] = [folder, *env["PYTHONPATH"].split(os.pathsep)]
    sys.modules.pop("__main__", None)


if __name__ == "__main__":
    sys.path = [path for path in sys.path if path not in ("", os.getcwd())]
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("jimsapi", run_name="__main__", alter_sys=True)
