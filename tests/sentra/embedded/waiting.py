"""Waiting for a condition instead of for a time, and servers whose connections are gone when they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from sentra.embedded.ports import HOST

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def eventually(condition: Callable[[], bool | Awaitable[bool]], within_s: float = 15.0) -> None:
    """Return once ``condition`` holds; fail the test when it has not within ``within_s`` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"the condition did not come true within {within_s:g} s")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def listening(talk: Talk, port: int = 0) -> AsyncIterator[int]:
    """A server that holds ``talk`` on each connection; yields its port. Afterwards no connection is left."""
    talks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(converse, HOST, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await asyncio.sleep(0)  # a closed transport lets go of its socket in the next turn of the loop


async def reply_to_each(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: bytes, seen: list[bytes] | None = None
) -> None:
    """Answer each request with ``reply``, keep the connection, and add the request's head to ``seen``."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        if seen is not None:
            seen.append(head)
        writer.write(reply)
