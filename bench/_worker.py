"""The worker process of the stream benchmark: ``python -m bench._worker judge|bare|naive RUN.json``.

``judge`` is the worker that ``sentra worker`` runs, composed by `sentra.roles`. ``bare`` hands the same judge
its records in a plain aiokafka loop. ``naive`` is `bench/_naive.py`. With ``BENCH_PROFILE=file`` in the
environment it profiles itself and writes the result there when it ends.
"""

from __future__ import annotations

import asyncio
import cProfile
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiokafka import AIOKafkaConsumer

from bench import _naive
from bench._run import Run, read_run
from domain.clock import SystemClock
from sentra.role import Role
from sentra.roles import Epochs, Memory
from sentra.roles import run as run_roles
from store.database import open_engine
from store.journal import Journal
from store.leases import Leases
from store.repository import Repository
from streams.agent import Handled
from streams.agents.judge import JudgeAgent
from streams.bus import Bus
from streams.consume import KafkaBus, incoming
from streams.topics import create_topics


async def judge(run: Run) -> None:
    """The real worker."""
    await run_roles(run.settings(), [Role.JUDGE], ready=run.ready_path.touch)


async def bare(run: Run) -> None:
    """The same judge without Faust and without our runner: nothing is repaired, nothing is retried."""
    settings, clock = run.stream(), SystemClock()
    engine = open_engine(run.settings().database_url)
    agent = JudgeAgent(
        owner="bare",
        clock=clock,
        epochs=Epochs(Leases(engine)),
        memory=Memory(Repository(engine), Journal(engine)),
        partitions=settings.partitions,
        broker_epoch="bench",
    )
    consumer = AIOKafkaConsumer(
        *agent.topics,
        group_id="bare",
        auto_offset_reset="earliest",
        session_timeout_ms=round(settings.session_timeout_s * 1000),
        heartbeat_interval_ms=round(settings.heartbeat_interval_s * 1000),
        **settings.client_options(),
        **settings.fetch_options() | {"enable_auto_commit": True, "auto_commit_interval_ms": 1000},
    )
    await create_topics(settings)
    async with KafkaBus(settings) as bus:
        await agent.assigned(frozenset(range(settings.partitions)), bus)
        await consumer.start()
        run.ready_path.touch()
        ticked = clock.now()
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for raw in records:
                    await _publish(bus, await agent.handle(incoming(settings, raw)))
            if clock.now() - ticked >= agent.interval_s:
                ticked = clock.now()
                await _publish(bus, await agent.tick(ticked))


async def _publish(bus: Bus, batches: Handled) -> None:
    for batch in batches:
        await bus.send(batch)


async def naive(run: Run) -> None:
    """Plain Faust."""
    app = _naive.make_app(run)
    await app.start()
    run.ready_path.touch()
    await asyncio.Event().wait()


FLAVOURS: dict[str, Callable[[Run], Awaitable[None]]] = {"judge": judge, "bare": bare, "naive": naive}


async def _until_terminated(work: Awaitable[None]) -> None:
    """Run until SIGTERM. The real worker handles the signal itself."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


def main() -> None:
    flavour, path = sys.argv[1:]
    work = _until_terminated(FLAVOURS[flavour](read_run(Path(path))))
    target = os.environ.get("BENCH_PROFILE")
    if not target:
        asyncio.run(work)
        return
    profile = cProfile.Profile()
    try:
        profile.runcall(asyncio.run, work)
    finally:
        profile.dump_stats(target)


if __name__ == "__main__":
    main()
