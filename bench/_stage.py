"""Brings up what is measured (broker, worker, generator), grows it, and takes stretches of measurement."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench import _naive
from bench._fleet import INTERVAL_S, WINDOW_TICKS, start_command
from bench._run import Run, Usage, usage_of
from bench._watch import Watch
from domain.clock import SystemClock, tick_floor
from sentra.embedded.broker import TansuBroker
from sentra.embedded.ports import free_port
from sentra.embedded.processes import Child, Probe
from store.database import upgrade
from streams.consume import KafkaBus, follow
from streams.topics import create_topics

GROW_AT_ONCE = 1_000
"""Rollouts started together, so that commands and ticks take turns."""

_clock = SystemClock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Some ticks in a row: what the worker used, and how long after its frames each tick was judged."""

    rollouts: int
    ticks: int
    seconds: float
    cpu_s: float
    peak_rss_mb: float
    lags_ms: list[float]
    """Sorted; one per rollout and tick that was judged."""
    first_ms: float
    last_ms: float
    """Slowest judgement of the first and of the last tick: lag that grows shows here."""

    @property
    def core_share(self) -> float:
        return self.cpu_s / self.seconds

    @property
    def cpu_us_per_tick(self) -> float:
        """Microseconds of CPU per rollout and tick."""
        return self.cpu_s / (self.rollouts * self.ticks) * 1e6

    @property
    def is_complete(self) -> bool:
        return len(self.lags_ms) >= self.rollouts * self.ticks


def say(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def percentile(ordered: list[float], share: float) -> float:
    """The nearest rank of sorted values; not a number when there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


@asynccontextmanager
async def staged(folder: Path, flavour: str, *, partitions: int = 4) -> AsyncIterator[Stage]:
    """A fresh broker with one worker of ``flavour`` (see `bench/_worker.py`), ready, and a generator."""
    folder.mkdir(parents=True)
    broker = TansuBroker(free_port(), folder / "broker.log")
    async with AsyncExitStack() as running:
        broker.start()
        running.push_async_callback(broker.stop)
        await broker.wait_until_ready()
        run = Run(
            folder=folder,
            bootstrap=broker.bootstrap,
            partitions=partitions,
            per_sample=flavour == "naive",
        )
        run.write()
        run.order(0)
        upgrade(run.settings().database_url)
        await create_topics(run.stream())
        await _create_naive_topics(run)
        worker = _child(run, "worker", "bench._worker", flavour, profiled=True)
        worker.start()
        running.push_async_callback(worker.stop)
        await worker.wait_until_ready(_exists(run.ready_path), 60.0)
        load = _child(run, "generator", "bench._load")
        load.start()
        running.push_async_callback(load.stop)
        watch = await running.enter_async_context(Watch(run.stream()))
        bus = await running.enter_async_context(KafkaBus(run.stream()))
        yield Stage(run, worker, load, watch, bus)


class Stage:
    """A running arrangement."""

    def __init__(self, run: Run, worker: Child, load: Child, watch: Watch, bus: KafkaBus) -> None:
        self.run = run
        self.watch = watch
        self.rollouts = 0
        self._worker = worker
        self._load = load
        self._bus = bus

    async def grow(self, rollouts: int) -> None:
        """Start rollouts until there are ``rollouts``, polled and with their first weight verified."""
        while self.rollouts < rollouts:
            self._check()
            upto = min(rollouts, self.rollouts + GROW_AT_ONCE)
            now = _clock.now()
            await self._bus.send([start_command(number, now) for number in range(self.rollouts, upto)])
            self.run.order(upto)
            self.rollouts = upto
            async with asyncio.timeout(120):
                while len(self.watch.shifted) < upto:
                    self._check()
                    await asyncio.sleep(0.05)

    async def fill_windows(self) -> None:
        """Wait until every window is as long as it gets."""
        await self.ticks(WINDOW_TICKS + 1)

    async def ticks(self, count: int) -> list[float]:
        """Wait for ``count`` whole ticks; their ends. Returns half a tick after the last."""
        first = tick_floor(_clock.now(), INTERVAL_S) + INTERVAL_S
        ends = [first + INTERVAL_S * number for number in range(count)]
        while (left := ends[-1] + INTERVAL_S / 2 - _clock.now()) > 0:
            self._check()
            self.watch.forget_before(_clock.now() - 60 * INTERVAL_S)
            await asyncio.sleep(min(1.0, left))
        return ends

    async def measure(self, count: int, *, failures: int = 0) -> Stretch:
        """A stretch of ``count`` ticks; in each, ``failures`` rollouts begin to fail."""
        self.run.order(self.rollouts, failures)
        await self._half_a_tick()
        before, began = self.usage(), _clock.now()
        ends = await self.ticks(count)
        after, seconds = self.usage(), _clock.now() - began
        self.run.order(self.rollouts)
        await self._until_judged(ends[-1])
        return Stretch(
            rollouts=self.rollouts,
            ticks=count,
            seconds=seconds,
            cpu_s=after.cpu_s - before.cpu_s,
            peak_rss_mb=after.peak_rss_mb,
            lags_ms=self.watch.tick_ms(ends),
            first_ms=percentile(self.watch.tick_ms(ends[:1]), 1.0),
            last_ms=percentile(self.watch.tick_ms(ends[-1:]), 1.0),
        )

    async def _until_judged(self, end: float) -> None:
        """Give a worker that is behind until the next tick's frames are due and half a tick more."""
        while self.watch.judged(end) < self.rollouts and _clock.now() < end + 1.5 * INTERVAL_S:
            await asyncio.sleep(0.05)

    async def measure_naive(self, count: int) -> tuple[Usage, int]:
        """What ``count`` ticks cost the naive worker, and how many verdicts it published meanwhile."""
        await self._half_a_tick()
        counted = 0

        async def count_verdicts() -> None:
            nonlocal counted
            async for _ in follow(self.run.stream(), [_naive.RESULTS], from_beginning=False):
                counted += 1

        counter = asyncio.create_task(count_verdicts())
        before = self.usage()
        await self.ticks(count)
        after = self.usage()
        counter.cancel()
        await asyncio.gather(counter, return_exceptions=True)
        return Usage(after.cpu_s - before.cpu_s, after.peak_rss_mb), counted

    def usage(self) -> Usage:
        assert self._worker.pid is not None
        return usage_of(self._worker.pid)

    async def _half_a_tick(self) -> None:
        """Measurements begin and end between two ticks, when there is nothing to do."""
        now = _clock.now()
        middle = tick_floor(now, INTERVAL_S) + INTERVAL_S / 2
        await asyncio.sleep(middle - now if middle > now else middle + INTERVAL_S - now)

    def _check(self) -> None:
        self.watch.check()
        for child in (self._worker, self._load):
            if not child.is_alive():
                raise RuntimeError(f"{child.name} ended: {child.last_log_lines(5)}")


def _child(run: Run, name: str, *module_and_arguments: str, profiled: bool = False) -> Child:
    module, *arguments = module_and_arguments
    env: Mapping[str, str] = {} if profiled else {"BENCH_PROFILE": ""}
    return Child(
        name,
        [sys.executable, "-m", module, *arguments, run.settings_path],
        log_path=run.folder / f"{name}.log",
        env={**env, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))},
    )


def _exists(path: Path) -> Probe:
    async def look() -> bool:
        return path.exists()

    return look


async def _create_naive_topics(run: Run) -> None:
    admin = AIOKafkaAdminClient(**run.stream().client_options())
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(name, run.partitions, 1) for name in (_naive.TOPIC, _naive.RESULTS)]
        )
    finally:
        await admin.close()
