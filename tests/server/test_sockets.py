"""What is asked of a connection whose socket is gone, as under TLS between the end of one layer and of the other."""

import asyncio
import socket

from jimsapi.server.sockets import has_unread, reset


class _Transport(asyncio.Transport):
    """A transport as it is at that moment, or one whose socket is closed."""

    def __init__(self, connection: socket.socket | None) -> None:
        super().__init__({"socket": connection})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_a_connection_without_a_socket_has_nothing_unread_and_can_be_reset() -> None:
    closed = socket.socket()
    closed.close()
    for connection in (None, closed):
        transport = _Transport(connection)
        assert has_unread(transport) is False
        reset(transport)
        assert transport.aborted


def test_bytes_that_wait_in_the_kernel_are_seen() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert has_unread(_Transport(ours)) is False
        theirs.send(b"x")
        assert has_unread(_Transport(ours)) is True
