"""Writing to the log: records with their acknowledgements, and barriers that mark a topic's end."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from streams.bus import BARRIER_HEADER, BARRIER_KEY, BrokerUnavailable, Outgoing
from streams.settings import StreamSettings


class Publisher:
    """One producer. Start it before use, or use it as an async context manager."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect.

        Raises
        ------
        BrokerUnavailable
        """
        producer = AIOKafkaProducer(
            acks=self._settings.acks,
            linger_ms=self._settings.linger_ms,
            max_request_size=self._settings.max_request_bytes,
            **self._settings.client_options(),
        )
        try:
            with translated(self._settings):
                await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def stop(self) -> None:
        """Flush and disconnect; safe to repeat."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def send(self, records: Sequence[Outgoing]) -> None:
        """See `Bus.send`."""
        if not records:
            return
        with translated(self._settings):
            pending = [await self._enqueue(record) for record in records]
            await asyncio.gather(*pending)

    async def barrier(self, topic: str, partition: int) -> int:
        """Mark the present end of a partition; returns the offset of the mark."""
        record = Outgoing(
            topic=topic,
            partition=partition,
            key=BARRIER_KEY,
            value=b"",
            headers={BARRIER_HEADER: uuid.uuid4().bytes},
        )
        with translated(self._settings):
            written = await (await self._enqueue(record))
        offset: int = written.offset
        return offset

    async def _enqueue(self, record: Outgoing) -> asyncio.Future[Any]:
        if self._producer is None:
            raise RuntimeError("start the bus before sending")
        acknowledged: asyncio.Future[Any] = await self._producer.send(
            self._settings.wire_name(record.topic),
            value=record.value,
            key=record.key,
            partition=record.partition,
            headers=list(record.headers.items()),
        )
        return acknowledged


@contextmanager
def translated(settings: StreamSettings) -> Iterator[None]:
    """Turn what the client library raises into what a caller can act on.

    Errors that no retry can help (a record larger than the broker takes) pass as they are.
    """
    try:
        yield
    except KafkaError as exc:
        if not (exc.retriable or isinstance(exc, KafkaTimeoutError)):
            raise
        raise BrokerUnavailable(f"broker at {settings.bootstrap}: {type(exc).__name__}: {exc}") from exc
    except OSError as exc:
        raise BrokerUnavailable(f"broker at {settings.bootstrap}: {exc}") from exc
