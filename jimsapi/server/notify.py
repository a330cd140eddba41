"""Messages to the service manager that has started the process (systemd's sd_notify(3))."""

import logging
import os
import socket

logger = logging.getLogger("jimsapi")

READY, STOPPING = "READY=1", "STOPPING=1"


def notify(state: str) -> None:
    """Send a state to the manager. Does nothing if no manager waits for one: it sets `NOTIFY_SOCKET`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name in Linux's abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("the service manager did not get %s on NOTIFY_SOCKET: %s", state, error)
