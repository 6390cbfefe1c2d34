"""The Kafka source: what OpenTelemetry Collectors write to topics, counted as if it had come by HTTP.

It reads all partitions of its topic from where they end when it is first asked. It belongs to no consumer
group, since every poller needs to see everything, and commits nothing. What was consumed up to a tick's end
is counted in that tick. A record that cannot be read, and offsets that retention took away before they were
read, leave every arm of the tick partial: nobody knows whose they were.

References
----------
OpenTelemetry Collector, Kafka exporter: topics ``otlp_metrics``, ``otlp_logs``, ``otlp_spans``; encodings
``otlp_proto``, ``otlp_json``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError

from domain.clock import Clock
from domain.errors import RecordError, SourceRejected, SourceUnavailable
from streams.pollers.base import Fetched, Target
from streams.pollers.config import SourceSettings
from streams.pollers.otlp import read_tick
from streams.pollers.otlp_config import OtlpKafkaSettings
from streams.pollers.otlp_intake import Intake
from streams.pollers.otlp_messages import JSON, PROTOBUF
from streams.settings import Security

log = logging.getLogger(__name__)

POLL_MS = 200
TROUBLE_S = 1.0
CONNECT_S = 10.0
ASSIGNED_S = 0.02
ANSWER_S = 2.0
"""Within which the broker says where its topic ends, which is how we know that it is there."""


class OtlpKafkaSource:
    """Implements :class:`streams.pollers.base.Source`."""

    Settings = OtlpKafkaSettings

    def __init__(self, name: str, settings: SourceSettings, clock: Clock) -> None:
        assert isinstance(settings, OtlpKafkaSettings)
        self.name = name
        self.channel = settings.carries
        self.freshness = settings.freshness
        self.intake = Intake(settings, clock.now())
        self._settings = settings
        self._clock = clock
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._next: dict[tuple[str, int], int] = {}
        """By topic and partition the offset that comes next."""
        self._opening = asyncio.Lock()

    async def fetch(self, targets: Sequence[Target], end: float, interval_s: float) -> Fetched:
        """What was consumed before ``end``. See :class:`streams.pollers.base.Source`."""
        async with self._opening:
            if self._consumer is None:
                self._consumer = await self._open()
                self._task = asyncio.create_task(self._consume(self._consumer), name=f"consume {self.name}")
        if self._task is not None and self._task.done():
            self._task.result()  # it never ends by itself: a defect, told at every tick
        await self._refuse_silence(self._consumer, min(ANSWER_S, interval_s))
        self._refuse_strangers()
        return read_tick(self.name, self._settings, self.intake, targets, end, interval_s, self._clock.now())

    async def close(self) -> None:
        """Leave the broker."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.stop()
        self._task = self._consumer = None

    async def _open(self) -> AIOKafkaConsumer:
        settings = self._settings
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap,
            client_id=f"sentra-{self.name}",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            fetch_max_wait_ms=settings.fetch_wait_ms,
            **self._security().client_options(),
        )
        try:
            async with asyncio.timeout(CONNECT_S):
                await consumer.start()
                if settings.topic_name not in await consumer.topics():
                    raise SourceUnavailable(f"{settings.bootstrap} has no topic {settings.topic_name}")
                # Only now: a consumer that starts with a topic waits for it without a word.
                consumer.subscribe([settings.topic_name])
                while not consumer.assignment():
                    await asyncio.sleep(ASSIGNED_S)
                await consumer.seek_to_end()
        except (KafkaError, TimeoutError, OSError) as exc:
            await consumer.stop()
            raise SourceUnavailable(f"{settings.bootstrap}: {exc or type(exc).__name__}") from exc
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    def _security(self) -> Security:
        settings = self._settings
        try:
            password = Path(settings.password_file).read_text().strip() if settings.password_file else None
        except OSError as exc:
            raise SourceRejected(f"cannot log in: password_file: {exc.strerror}") from exc
        return Security(
            protocol=settings.protocol,
            ca_file=settings.ca_file or None,
            certificate_file=settings.cert_file or None,
            key_file=settings.key_file or None,
            mechanism=settings.mechanism,
            username=settings.username or None,
            password=password,
        )

    async def _consume(self, consumer: AIOKafkaConsumer) -> None:
        """Take records as they come, until cancelled."""
        while True:
            try:
                batches = await consumer.getmany(timeout_ms=POLL_MS)
                for records in batches.values():
                    for record in records:
                        self._take(record)
                    await asyncio.sleep(0)  # a backlog must not keep ticks from ending
            except KafkaError as exc:
                log.warning("source %s: %s", self.name, exc)
                self.intake.lose(self.channel)
                await asyncio.sleep(TROUBLE_S)

    def _take(self, record: ConsumerRecord) -> None:
        place = (record.topic, record.partition)
        if record.offset > self._next.get(place, record.offset):
            log.warning("source %s: offsets before %d of %s are gone", self.name, record.offset, place)
            self.intake.lose(self.channel)
        self._next[place] = record.offset + 1
        media = JSON if self._settings.encoding == "otlp_json" else PROTOBUF
        try:
            taken = self.intake.take(self.channel, record.value or b"", media, self._clock.now())
        except RecordError as exc:
            log.warning("source %s: offset %d of %s: %s", self.name, record.offset, place, exc)
            self.intake.lose(self.channel)
            return
        if taken.rejected:
            log.warning("source %s: %d items refused: %s", self.name, taken.rejected, taken.remark)

    async def _refuse_silence(self, consumer: AIOKafkaConsumer, timeout_s: float) -> None:
        """Raise when the broker is not there: a consumer alone would wait for it and say nothing."""
        try:
            async with asyncio.timeout(timeout_s):
                await consumer.end_offsets(consumer.assignment())
        except (KafkaError, TimeoutError) as exc:
            raise SourceUnavailable(f"{self._settings.bootstrap} does not answer") from exc

    def _refuse_strangers(self) -> None:
        """Raise when nothing on the topic is what it should be."""
        seen = self.intake.seen
        if seen["unreadable"] and not seen["taken"]:
            wanted = f"{self._settings.encoding} {self.channel.value}"
            raise SourceRejected(
                f"none of {seen['unreadable']} records of {self._settings.topic_name} is {wanted}"
            )
