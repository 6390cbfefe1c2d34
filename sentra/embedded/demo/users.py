"""The demo's users: requests at a constant rate, whatever becomes of them.

*Open loop*: the schedule never waits for an answer, as real users do not. A slow service gets no fewer
requests, so its slowness is measured in full. Nothing is retried: each failure is seen once, as a failure.
Requests run on keep-alive connections, each used by one request at a time; a missing one is opened.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit

from domain.clock import SystemClock
from sentra.embedded.demo.batched_file import BatchedFile
from sentra.embedded.demo.http1 import Message, take_message
from sentra.embedded.demo.request_log import RESET, TIMED_OUT, Request, line_of
from sentra.embedded.envoy_config import VERSION_HEADER

TIMEOUT_S = 5.0
DRAIN_S = 2.0
"""How long requests under way may take to end after SIGTERM."""

_SWEEP_S = 0.1
_FROM_PROXY = VERSION_HEADER.encode()
_FROM_SERVICE = b"x-version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Users of one kind."""

    rps: float
    header: str | None = None
    """``name: value`` that they send, which marks them as preview users."""
    poisson_seed: int | None = None
    """Draw the gaps from an exponential with this seed; without it all gaps are equal."""

    def offsets(self) -> Iterator[float]:
        """Seconds after the start at which a request is due."""
        if self.poisson_seed is None:
            return (count / self.rps for count in itertools.count())
        draws = Random(self.poisson_seed)
        return itertools.accumulate(draws.expovariate(self.rps) for _ in itertools.repeat(None))

    def request(self, host: str, path: str) -> bytes:
        """The bytes to send."""
        extra = f"{self.header}\r\n" if self.header else ""
        return f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{extra}\r\n".encode()


class Pending:
    """A request that has not ended yet."""

    __slots__ = ("connection", "due", "preview", "sent")

    def __init__(self, due: float, sent: float, preview: bool) -> None:
        self.due = due
        self.sent = sent
        self.preview = preview
        self.connection: Connection | None = None


class Connection(asyncio.Protocol):
    """One keep-alive connection; carries at most one request at a time."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._pending: Pending | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, pending: Pending) -> None:
        """Put ``pending`` on the wire."""
        assert self._transport is not None
        self._pending, pending.connection = pending, self
        self._transport.write(request)

    def abort(self) -> None:
        """Drop the connection, and with it the request under way, without a word."""
        self._pending = None
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            answer = take_message(self._buffer)
        except ValueError:
            answer = None
            self.connection_lost(None)
            self.abort()
        if answer is not None and self._pending is not None:
            pending, self._pending = self._pending, None
            self._users.answered(pending, answer, self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._users.ended(pending, RESET, "")


class Users:
    """Sends what the streams want, when they want it, and writes down what came back."""

    def __init__(self, url: str, log: BatchedFile, *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._path = parts.path or "/"
        self._log = log
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        # One reading of the wall clock: a clock that is set meanwhile must not bend the latencies.
        self._wall_offset = SystemClock().now() - self._loop.time()
        self._idle: list[Connection] = []
        self._under_way: dict[Pending, None] = {}  # in order of sending, so the oldest is first
        self._opening: set[asyncio.Task[None]] = set()

    async def run(self, streams: Sequence[Stream], stop: asyncio.Event) -> None:
        """Send until ``stop`` is set, then let what is under way end."""
        start = self._loop.time()
        senders = [asyncio.create_task(self._send_all(stream, start)) for stream in streams]
        sweeper = asyncio.create_task(self._sweep())
        await stop.wait()
        await _cancel(senders)
        await self._drain()
        await _cancel([sweeper, *self._opening])
        for connection in self._idle:
            connection.abort()

    def answered(self, pending: Pending, answer: Message, connection: Connection) -> None:
        """Called by a connection with the answer to its request."""
        version = answer.headers.get(_FROM_PROXY) or answer.headers.get(_FROM_SERVICE, b"")
        self.ended(pending, int(answer.start_line.split(b" ", 2)[1]), version.decode())
        if answer.keeps_alive:
            self._idle.append(connection)
        else:
            connection.abort()

    def ended(self, pending: Pending, status: int, version: str) -> None:
        """Write the request down, once."""
        if pending not in self._under_way:
            return
        del self._under_way[pending]
        wall, now = self._wall_offset, self._loop.time()
        row = Request(pending.due + wall, pending.sent + wall, now + wall, status, version, pending.preview)
        self._log.write(line_of(row))

    async def _send_all(self, stream: Stream, start: float) -> None:
        request = stream.request(f"{self._host}:{self._port}", self._path)
        for offset in stream.offsets():
            due = start + offset
            # Requests that are overdue go out at once: a late generator catches up, it does not skip.
            if (wait := due - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            self._send(request, Pending(due, self._loop.time(), preview=stream.header is not None))

    def _send(self, request: bytes, pending: Pending) -> None:
        self._under_way[pending] = None
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                connection.send(request, pending)
                return
        opening = self._loop.create_task(self._open_and_send(request, pending))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open_and_send(self, request: bytes, pending: Pending) -> None:
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(self), self._host, self._port
            )
        except OSError:
            self.ended(pending, RESET, "")
            return
        if pending in self._under_way:
            connection.send(request, pending)
        else:  # it timed out meanwhile
            self._idle.append(connection)

    async def _sweep(self) -> None:
        """End the requests that have had no answer in time; their connections are of no more use."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            limit = self._loop.time() - self._timeout_s
            for pending in [one for one in self._under_way if one.sent <= limit]:
                self._give_up(pending)

    async def _drain(self) -> None:
        deadline = self._loop.time() + DRAIN_S
        while self._under_way and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        for pending in list(self._under_way):
            self._give_up(pending)

    def _give_up(self, pending: Pending) -> None:
        if pending.connection is not None:
            pending.connection.abort()
        self.ended(pending, TIMED_OUT, "")


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
