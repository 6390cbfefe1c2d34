"""The generator process of the stream benchmark: publishes what three pollers would, tick after tick.

``python -m bench._load SETTINGS.json``. How many rollouts are polled, and how many of them fail for the first
time at each tick, is read from ``load.json`` in the run's folder once a tick.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from bench._fleet import INTERVAL_S, TOPIC_OF, Block, rollout_id
from bench._naive import TOPIC as SAMPLES
from bench._naive import records_of
from bench._run import Run, read_run
from domain.clock import SystemClock, tick_floor
from domain.records import SampleFrame
from domain.signal import Channel
from streams.bus import Outgoing
from streams.codec import encode
from streams.consume import KafkaBus

GAP_S = 0.05
"""Sources do not answer at the same instant; each channel is this much later than the one before."""


class Load:
    """The polled rollouts: blocks of frames, one added whenever there are more rollouts."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._clock = SystemClock()
        self._blocks: list[Block] = []
        self._count = 0
        self._failed = 0
        self._failing: frozenset[str] = frozenset()

    async def publish_forever(self, bus: KafkaBus) -> None:
        while True:
            self._follow_orders()
            end = tick_floor(self._clock.now(), INTERVAL_S) + INTERVAL_S
            prepared = [frame for block in self._blocks for frame in block.at(end, self._failing)]
            await asyncio.sleep(end - self._clock.now())
            await asyncio.gather(*(self._publish(bus, channel, prepared) for channel in Channel))

    async def _publish(
        self, bus: KafkaBus, channel: Channel, prepared: list[tuple[int, SampleFrame]]
    ) -> None:
        """One source's frames, one after the other as a poller sends them."""
        await asyncio.sleep(list(Channel).index(channel) * GAP_S)
        for partition, frame in prepared:
            if frame.channel is channel:
                await bus.send(list(self._records(partition, frame)))

    def _records(self, partition: int, frame: SampleFrame) -> Iterator[Outgoing]:
        stamped = replace(frame, published_at=self._clock.now())
        if self._run.per_sample:
            for value in records_of(stamped):
                yield Outgoing(topic=SAMPLES, partition=partition, value=value)
        else:
            yield Outgoing(topic=TOPIC_OF[frame.channel], partition=partition, value=encode(stamped))

    def _follow_orders(self) -> None:
        orders = json.loads(self._run.orders_path.read_text())
        if orders["rollouts"] > self._count:
            self._blocks.append(Block(range(self._count, orders["rollouts"]), self._run.partitions))
            self._count = orders["rollouts"]
        newly = range(self._failed, min(self._count, self._failed + orders["failures"]))
        self._failing = frozenset(rollout_id(number) for number in newly)
        self._failed += len(newly)


async def main(path: Path) -> None:
    run = read_run(path)
    async with KafkaBus(run.stream()) as bus:
        await Load(run).publish_forever(bus)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
