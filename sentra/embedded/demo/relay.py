"""A wire that can be cut: a TCP relay on 127.0.0.1 whose bytes stop flowing when told.

Cut (*black-holed*), it behaves as a lost network does, which is unlike a dead server: connections are
accepted and stay open, and nothing ever comes back. Healed, it delivers what was on its way.
"""

from __future__ import annotations

import asyncio

from sentra.embedded.ports import HOST

_CHUNK = 64 * 1024


class TcpRelay:
    """Relays ``port`` to ``target_port``; use :meth:`start` and :meth:`close`, or ``async with``."""

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self.target_port = target_port
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[None]] = set()

    @property
    def is_black_hole(self) -> bool:
        """Whether bytes are being held back."""
        return not self._flows.is_set()

    def black_hole(self) -> None:
        """Accept, and forward nothing, on old and new connections alike."""
        self._flows.clear()

    def heal(self) -> None:
        """Forward again, beginning with what was held back."""
        self._flows.set()

    async def start(self) -> None:
        """Listen.

        Raises
        ------
        OSError
            The port is taken.
        """
        self._server = await asyncio.start_server(self._converse, HOST, self.port)

    async def close(self) -> None:
        """Stop listening and drop all connections. Safe to repeat."""
        if self._server is not None:
            self._server.close()
        for conversation in list(self._conversations):
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def __aenter__(self) -> TcpRelay:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        try:
            await self._flows.wait()
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            # Either end went away, or `close` ends it. The stream machinery would print a cancellation.
            pass
        finally:
            self._conversations.discard(task)
            writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection(HOST, self.target_port)
        try:
            async with asyncio.TaskGroup() as both_ways:
                both_ways.create_task(self._pump(reader, target_writer))
                both_ways.create_task(self._pump(target_reader, writer))
        except* OSError:
            pass
        finally:
            target_writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Forward until ``source`` ends, then pass the end on; the other direction may still be talking."""
        while data := await source.read(_CHUNK):
            await self._flows.wait()
            sink.write(data)
            await sink.drain()
        await self._flows.wait()
        if sink.can_write_eof():
            sink.write_eof()
