"""Faust's Kafka driver, with the five behaviours changed that lose records or seconds.

1. Partitions are dealt with Kafka's *range* assignor. Without tables Faust deals them round-robin, which
   tears the partitions of different topics apart; a worker would see half of what concerns a rollout.
2. A fetch waits as long as the settings say, not 1.5 s.
3. What is committed is what the runners have *handled*, without holes. Faust would commit what passed its
   queues, and it counts records it skipped in a rebalance, and holes in the offsets, as done.
4. A member leaves its group also in generation 0. Some brokers number generations from 0 and aiokafka leaves
   only from 1 on, so a restart would wait a whole session for its own ghost.
5. No pause of a second for tables that do not exist, and no producer: results are written by `KafkaBus`.

Registered under its own URL scheme, ``sentra://``; nothing in Faust is patched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from faust.tables.manager import TableManager
from faust.transport import base
from faust.transport.drivers import TRANSPORTS, aiokafka
from faust.types import TP

from streams.settings import StreamSettings

SCHEME = "sentra"

Progress = Callable[[], Mapping[tuple[str, int], int]]
"""Tells for each (topic on the broker, partition) the offset after the last record handled."""


class App(faust.App):
    """A Faust app that knows our settings and asks the runners for progress."""

    stream_settings: StreamSettings
    progress: Progress = staticmethod(dict)


class LeavingCoordinator(GroupCoordinator):  # type: ignore[misc]  # the base is untyped
    """Says goodbye in generation 0 as well."""

    generation: int

    async def _maybe_leave_group(self) -> None:
        if self.generation == 0:
            # The request holds no generation, so this only opens the caller's gate; it is reset right after.
            self.generation = 1
        await super()._maybe_leave_group()


class GroupConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # the base is untyped
    """aiokafka's consumer with the coordinator above."""

    async def start(self) -> None:
        await super().start()
        # aiokafka offers no way to choose the coordinator's class; the two classes have the same layout.
        self._coordinator.__class__ = LeavingCoordinator


class ConsumerThread(aiokafka.AIOKafkaConsumerThread):
    """The thread in which Faust keeps the consumer, so that heartbeats survive a busy event loop."""

    def _create_worker_consumer(self, transport: base.Transport) -> AIOKafkaConsumer:
        settings = cast(App, self.app).stream_settings
        self._assignor = RangePartitionAssignor
        return GroupConsumer(
            group_id=self.app.conf.id,
            client_id=self.app.conf.broker_client_id,
            partition_assignment_strategy=[RangePartitionAssignor],
            auto_offset_reset="earliest",
            session_timeout_ms=round(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=round(settings.heartbeat_interval_s * 1000),
            rebalance_timeout_ms=round(settings.rebalance_timeout_s * 1000),
            max_poll_interval_ms=round(settings.max_poll_interval_s * 1000),
            **settings.client_options(),
            **settings.fetch_options(),
        )


class Consumer(aiokafka.Consumer):
    """Commits what was handled, and nothing else."""

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def ack(self, message: Any) -> bool:
        """Faust is done with a message. That says nothing about us: it also acknowledges what it skips."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return iter(())

    def _filter_committable_offsets(self, tps: Any) -> dict[TP, int]:
        progress = cast(App, self.app).progress
        handled = {TP(topic, partition): offset for (topic, partition), offset in progress().items()}
        return {tp: offset for tp, offset in handled.items() if self._should_commit(tp, offset)}

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Faust would count a hole as handled; the runner refetches it."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust would report every idle partition as stuck; the runner's sweep knows better."""


class NoProducer(base.Producer):
    """Faust wants a producer to flush before it commits. Ours are flushed by then."""

    async def flush(self) -> None:
        """Nothing is ever buffered here."""

    async def create_topic(self, *_: Any, **__: Any) -> None:
        """`streams.topics.create_topics` makes the topics."""


class Transport(aiokafka.Transport):
    """The driver behind ``sentra://``."""

    Consumer = Consumer
    Producer = NoProducer


class PromptTableManager(TableManager):
    """Starts without the second that Faust grants applications to declare tables; there are none."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


def register() -> None:
    """Make ``sentra://`` known to Faust; safe to repeat."""
    TRANSPORTS.aliases[SCHEME] = f"{__name__}:{Transport.__name__}"
