"""Accepts connections: several in each pass of the event loop, probes first, and within the limit of descriptors.

An event loop's own server has three problems. libuv, which uvloop uses, accepts one connection in each pass of the
loop; in a flood the passes are long, and new connections, including probes, wait in the kernel for seconds. When the
server closes, it resets connections that only the kernel has accepted. When descriptors run out, it logs nothing
useful.
"""

import asyncio
import ctypes
import errno
import logging
import socket
import ssl
import struct
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from itertools import chain

from jimsapi.server.descriptors import Descriptors
from jimsapi.server.eviction import Evictable, longest_waiting
from jimsapi.server.tls import open_tls

ACCEPTED_AT_ONCE = 1024
"""Connections that are accepted in one pass of the loop. Accepting is cheap, and the server finds the probes early."""
OPENED_AT_ONCE = 4
"""Connections that are opened in one pass of the loop, so that no pass is long. The others wait in order of arrival."""
HANDSHAKE_WITHIN = 10.0
"""Seconds within which a TLS handshake has to be complete."""
TLS_CLOSE_WITHIN = 5.0
"""Seconds within which a client has to answer TLS's `close_notify`, after the kernel has accepted all data."""
LATE_FOR = 0.1
"""Seconds for which the server still accepts connections whose TCP handshake had begun before it closed the port."""
FINISH_WITHIN = 1.0
"""Seconds for which the server, at shutdown, accepts the connections that the kernel has accepted. A drain reserves
three seconds for this and all later steps."""
PAUSE = 0.1
"""Seconds for which the server does not accept connections after `accept` failed."""
LOG_AGAIN_AFTER = 60.0
"""Seconds between two log lines about missing descriptors or failed calls of `accept`."""
SENDS_WITHIN = 0.1
"""Seconds for which a new connection may wait for its request before the server may close it to make room."""
PROBE_WITHIN = 0.05
"""Seconds for which the server waits for the first bytes of a connection when it has room only for probes."""
EVICTED_AT_ONCE = 16
"""Connections that are closed together to make room. To find the oldest, the server has to check all of them."""

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-type: application/json\r\n"
    b"content-length: 50\r\nconnection: close\r\n\r\n"
    b'{"detail":"Too many connections; try again later"}'
)
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_CLIENT_GONE = (
    errno.ECONNABORTED,
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
)
"""Errors of the new connection, not of the port. On Linux, `accept` also raises pending network errors."""

_RUN_OUT = (
    "descriptors run out while accepting connections: %s; idle connections are closed and others refused: "
    "raise the limit of open files (ulimit -n, LimitNOFILE=), now %d, or close connections at the proxy"
)
_CANNOT_ACCEPT = "the server cannot accept connections: %s; it tries again every %g seconds"

logger = logging.getLogger("jimsapi")


class _Opening:
    """A connection that is being opened; with TLS, until the handshake is complete."""

    def __init__(self, task: asyncio.Task[None], since: float) -> None:
        self._task = task
        self._since = since

    def waiting_since(self) -> float | None:
        """Return the loop's time when the opening began."""
        return self._since

    @property
    def has_arrived(self) -> bool:
        """False: part of a handshake does not count as received data."""
        return False

    def evict(self) -> None:
        """Cancel the opening. The event loop then closes the connection."""
        self._task.cancel()


class Acceptor:
    """Accepts the connections of a listening socket.

    Connections whose request begins with one of `first` overtake others that wait. With TLS this has no effect, because
    the request is encrypted. `evictable()` returns the connections that may be closed to make room, in groups. The
    server closes connections of a group only if the groups before it have none. Incomplete TLS handshakes are the first
    group. Each new connection uses `tls` as it then is. With `stays_open`, the service manager keeps the port open, so
    connections that come after the end wait for the next server.
    """

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        descriptors: Descriptors,
        evictable: Callable[[], Iterable[Collection[Evictable]]],
        first: tuple[bytes, ...] = (),
        *,
        stays_open: bool = False,
    ) -> None:
        self._listening = listening
        self._stays_open = stays_open
        self._first = first if tls is None else ()
        self._accepted: deque[socket.socket] = deque()
        self._make_protocol = make_protocol
        self._descriptors = descriptors
        self._evictable = evictable
        self.tls = tls
        self._loop = asyncio.get_running_loop()
        self._opening: dict[asyncio.Task[None], _Opening] = {}
        self._paused: asyncio.TimerHandle | None = None
        self._logged_at: float | None = None
        self._evict_at = 0.0
        self._accepting = False

    def start(self) -> None:
        """Begin to accept connections."""
        self._listening.setblocking(False)
        accept_new_connections(self._listening)
        self._accepting = True
        self._loop.add_reader(self._listening.fileno(), self._accept)

    async def finish(self, within: float) -> None:
        """Close the port without losing a connection, and wait up to `within` seconds for TLS handshakes.

        Connections whose TCP handshake has begun are still accepted. Later clients see a closed port, or wait if the
        port stays open, possibly after a second, because the kernel ignores their first packets.
        """
        if not self._accepting:
            return
        refuse_new_connections(self._listening)
        await asyncio.sleep(LATE_FOR)
        until = self._loop.time() + FINISH_WITHIN
        while self._accept():
            if self._loop.time() > until:
                break
            await asyncio.sleep(0)  # closed connections free their descriptors in this pass
        if self._stays_open:
            accept_new_connections(self._listening)
        self.close()
        while self._accepted:
            self._open_soon(self._accepted.popleft())
        if self._opening:
            await asyncio.wait(self._opening, timeout=within)
        for task in self._opening:
            task.cancel()

    def close(self) -> None:
        """Close the port at once."""
        if self._accepting:
            self._accepting = False
            if self._paused is not None:
                self._paused.cancel()
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()
            self._descriptors.close()

    def _accept(self) -> bool:
        """Accept the connections that wait. Returns whether there may be more that can be accepted now."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno in _CLIENT_GONE:
                    continue
                self._pause()
                return self._refuse_without_descriptor(error)
            connection.setblocking(False)
            if connection.fileno() >= self._descriptors.full:
                self._accept_without_room(connection)
                return True  # continue in the next pass, when the closed connections have freed their descriptors
            if self._accepted and self._comes_first(connection):
                self._open_soon(connection)
                continue
            if not self._accepted:
                self._loop.call_soon(self._open_some)
            self._accepted.append(connection)
        return True

    def _comes_first(self, connection: socket.socket) -> bool:
        if not self._first:
            return False
        try:
            return connection.recv(32, socket.MSG_PEEK).startswith(self._first)
        except OSError:
            return False

    def _open_some(self) -> None:
        """Open the connections that have waited longest."""
        for _ in range(min(OPENED_AT_ONCE, len(self._accepted))):
            self._open_soon(self._accepted.popleft())
        if self._accepted:
            self._loop.call_soon(self._open_some)

    def _open_soon(self, connection: socket.socket) -> None:
        task = self._loop.create_task(self._open(connection))
        self._opening[task] = _Opening(task, self._loop.time())
        task.add_done_callback(self._opening.pop)

    async def _open(self, connection: socket.socket) -> None:
        with suppress(OSError):  # the TLS handshake failed or timed out, or the client disconnected; the loop closes it
            if self.tls is None:
                await self._loop.connect_accepted_socket(self._make_protocol, connection)
            else:
                await open_tls(
                    connection,
                    self._make_protocol,
                    self.tls,
                    handshake_within=HANDSHAKE_WITHIN,
                    close_within=TLS_CLOSE_WITHIN,
                )

    def _accept_without_room(self, connection: socket.socket) -> None:
        """Close other connections to make room for this one. If there are none to close, open it only for a probe."""
        self._log(_RUN_OUT, f"{connection.fileno()} of {self._descriptors.limit} are open", self._descriptors.limit)
        limit = self._descriptors.last if self._evict() else self._descriptors.exhausted
        if connection.fileno() < limit or self._comes_first(connection):
            self._open_soon(connection)
        elif self._first and connection.fileno() < self._descriptors.last:
            self._loop.call_later(PROBE_WITHIN, self._open_probe, connection)
        else:
            refuse(connection, with_answer=self.tls is None)

    def _open_probe(self, connection: socket.socket) -> None:
        """Open the connection if its request is a probe."""
        if self._comes_first(connection):
            self._open_soon(connection)
        else:
            refuse(connection, with_answer=True)

    def _evict(self) -> bool:
        """Close the connections of the first group that have waited longest. Returns whether there were any.

        If there were none, the server does not search again for `SENDS_WITHIN` seconds: checking thousands of
        connections for each new one would take too long.
        """
        now = self._loop.time()
        if now < self._evict_at:
            return False
        handshakes = self._opening.values() if self.tls else ()
        for group in chain((handshakes,), self._evictable()):
            if waiting := longest_waiting(group, EVICTED_AT_ONCE, now - SENDS_WITHIN):
                for connection in waiting:
                    connection.evict()
                return True
        self._evict_at = now + SENDS_WITHIN
        return False

    def _refuse_without_descriptor(self, error: OSError) -> bool:
        """`accept` has failed. Reject a connection with the spare descriptor. Returns whether there was a connection.

        Without a free descriptor `accept` fails even if no connection waits, so only another `accept` shows that.
        """
        reason = error.strerror or str(error)
        if error.errno not in _NO_ROOM:
            self._log(_CANNOT_ACCEPT, reason, PAUSE)
            return False
        self._log(_RUN_OUT, reason, self._descriptors.limit)
        self._evict()
        if not self._descriptors.free_spare():
            return False
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return False
        else:
            refuse(connection, with_answer=not self.tls)
            return True
        finally:
            self._descriptors.reopen_spare()

    def _pause(self) -> None:
        """Do not accept for `PAUSE` seconds. Otherwise the loop would call `_accept` again at once."""
        if self._paused is None and self._accepting:
            self._loop.remove_reader(self._listening.fileno())
            self._paused = self._loop.call_later(PAUSE, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listening.fileno(), self._accept)
        self._accept()

    def _log(self, message: str, *details: object) -> None:
        now = self._loop.time()
        if self._logged_at is None or now - self._logged_at >= LOG_AGAIN_AFTER:
            self._logged_at = now
            logger.error(message, *details)


def refuse(connection: socket.socket, *, with_answer: bool) -> None:
    """Close a connection for which the server has no room. If `with_answer` is true, send a 503 first."""
    connection.setblocking(False)
    with suppress(OSError):
        if with_answer:
            connection.send(_REFUSAL)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65_536)  # closing with unread bytes would reset the connection and lose the answer
    connection.close()


class _Instruction(ctypes.Structure):
    """An instruction of a classic Berkeley packet filter (linux/filter.h)."""

    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_DROP_SYN = (_Instruction * 5)(
    _Instruction(0x30, 0, 0, 13),  # load the byte with TCP's flags (RFC 9293, 3.1)
    _Instruction(0x54, 0, 0, 0x12),  # keep SYN and ACK
    _Instruction(0x15, 0, 1, 0x02),  # if it is SYN alone, which begins a connection,
    _Instruction(0x06, 0, 0, 0),  # drop the packet,
    _Instruction(0x06, 0, 0, 0xFFFFFFFF),  # else pass all of it
)


def refuse_new_connections(listening: socket.socket) -> None:
    """Make the kernel ignore new connections. TCP handshakes that have begun can still be completed and accepted.

    Without this, a connection that the kernel accepts between the last `accept` and the closing of the port would be
    reset. On systems other than Linux, and for Unix sockets, the function does nothing, and this can happen within some
    microseconds.
    """
    if sys.platform == "linux" and listening.family != socket.AF_UNIX:
        program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(_DROP_SYN))
        with suppress(OSError):  # a sandbox may not support filters
            listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def accept_new_connections(listening: socket.socket) -> None:
    """Undo `refuse_new_connections`. The socket keeps its filter if another process, such as a reloader, shares it."""
    if sys.platform == "linux":
        with suppress(OSError):  # there is no filter
            listening.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
