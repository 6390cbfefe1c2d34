"""Real servers for tests: started on free ports, stopped by their own process id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sentra.embedded.broker import TansuBroker
from sentra.embedded.ports import free_port


@asynccontextmanager
async def running_broker(folder: Path) -> AsyncIterator[TansuBroker]:
    """The embedded broker, empty, ready for clients."""
    broker = TansuBroker(free_port(), folder / "broker.log")
    broker.start()
    try:
        await broker.wait_until_ready()
        yield broker
    finally:
        await broker.stop()
