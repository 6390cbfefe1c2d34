"""What a worker process consists of: the composition root of everything that runs.

A *role* is one job: ``judge``, ``actuate`` and ``record`` are agents in a consumer group, ``poll`` asks the
telemetry sources, ``relay`` publishes what the database promised. The embedded stack runs all of them in one
process; production runs them apart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing

from sqlalchemy import Engine

from domain.clock import Clock, SystemClock
from domain.errors import ConfigError, RecordError, StoreError
from domain.records import Evaluation, RestartInput, RolloutRecord, SampleFrame
from domain.rollout import RolloutFold
from domain.signal import Channel
from scorers.evidence.warm import warm_up
from sentra.config import Settings
from sentra.role import Role
from store.calibrations import Calibrations
from store.database import check_current, open_engine
from store.journal import Journal
from store.leases import Leases
from store.live import LiveState
from store.outbox import Outbox
from store.repository import Repository
from store.writer import BatchWriter
from streams.agent import Agent
from streams.agents.actuate import ActuateAgent
from streams.agents.calibrate import Learner
from streams.agents.judge import JudgeAgent
from streams.agents.record import RecordAgent
from streams.agents.targets import Publish, TargetDriver
from streams.app import Worker
from streams.bus import BrokerUnavailable, Outgoing
from streams.codec import decode, encode
from streams.consume import KafkaBus, cluster_id, follow
from streams.outbox_relay import IDLE_S, TROUBLE_S, relay_once
from streams.pollers.loop import Poller
from streams.pollers.registry import open_sources
from streams.settings import StreamSettings
from streams.topics import LOGS, METRICS, ROLLOUTS, TRACES, create_topics, partition_of

log = logging.getLogger(__name__)


_TOPIC_OF = {Channel.METRICS: METRICS.name, Channel.LOGS: LOGS.name, Channel.TRACES: TRACES.name}


class Memory:
    """The database as recovery sees it (``streams.agents.recovery.Memory``)."""

    def __init__(self, repository: Repository, journal: Journal) -> None:
        self._repository = repository
        self._journal = journal

    def unfinished(self) -> list[str]:
        return [each.spec.rollout_id for each in self._repository.active_rollouts()]

    def restore(self, rollout_id: str) -> tuple[RolloutFold, list[Evaluation]] | None:
        return self._repository.restore(rollout_id)

    def floors(self, rollout_id: str, now: float) -> RestartInput:
        verified = self._journal.last_verified(rollout_id)
        return RestartInput(
            now=now,
            seq_floor=self._journal.highest_seq(rollout_id),
            generation_floor=self._journal.highest_generation(rollout_id),
            observed_bp=None if verified is None else verified.observed_bp,
        )


class Epochs:
    """The lease table as partition owners use it (``streams.agents.judge.Epochs``).

    The consumer group says who owns a partition; the lease only counts. So it runs out at once, and taking it
    never waits for an owner that is gone.
    """

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def take(self, key: str, owner: str, now: float) -> int:
        while (lease := self._leases.acquire(key, owner, ttl_s=0.0, now=now)) is None:
            continue  # somebody took one between our look and our write; ours comes after theirs
        return lease.epoch


async def run(
    settings: Settings,
    roles: Sequence[Role],
    *,
    ready: Callable[[], None] = lambda: None,
    web_port: int = 6066,
    clock: Clock | None = None,
) -> None:
    """Run ``roles`` until SIGTERM or SIGINT; ``ready`` is called when all of them work.

    Raises
    ------
    ConfigError, BrokerUnavailable, StoreUnavailable
        Something is missing or gave up; whoever supervises this process starts it again.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        if Role.JUDGE in roles:
            await asyncio.to_thread(warm_up)
        parts = await _Parts.open(settings, clock or SystemClock(), stack)
        tasks = [asyncio.create_task(each, name=name) for name, each in parts.background(roles)]
        agents = await parts.agents(roles, stack)
        if agents:
            worker = Worker(
                parts.stream,
                agents,
                datadir=settings.state_dir / "faust",
                clock=parts.clock,
                web_port=web_port,
            )
            await worker.start()
            stack.push_async_callback(worker.stop)
            tasks.append(asyncio.create_task(_until_running(worker, ready), name="ready"))
        else:
            ready()
        await _until_stopped(stop, tasks)


async def _until_running(worker: Worker, ready: Callable[[], None]) -> None:
    """Call ``ready`` once every agent has recovered, then go on for ever."""
    while not all(health.phase == "running" for health in worker.health().values()):
        await asyncio.sleep(0.02)
    ready()
    await asyncio.Event().wait()


async def _until_stopped(stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Return when asked to stop; raise what a background task died of."""
    asked = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({asked, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {asked}:
            task.result()
            raise ConfigError(f"the task {task.get_name()!r} ended by itself")
    finally:
        for task in (asked, *tasks):
            task.cancel()
        await asyncio.gather(asked, *tasks, return_exceptions=True)


class _Parts:
    """What the roles of one process share."""

    def __init__(
        self, settings: Settings, engine: Engine, bus: KafkaBus, clock: Clock, broker_epoch: str
    ) -> None:
        self.settings = settings
        self.broker_epoch = broker_epoch
        self.stream: StreamSettings = settings.stream()
        self.bus = bus
        self.clock = clock
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        self.repository = Repository(engine)
        self.journal = Journal(engine)
        self.leases = Leases(engine)
        self.outbox = Outbox(engine)
        self.calibrations = Calibrations(engine)

    @classmethod
    async def open(cls, settings: Settings, clock: Clock, stack: AsyncExitStack) -> _Parts:
        stream = settings.stream()
        engine = open_engine(settings.database_url)
        stack.callback(engine.dispose)
        check_current(engine)
        await create_topics(stream)
        bus = await stack.enter_async_context(KafkaBus(stream))
        broker_epoch = settings.broker_epoch or await cluster_id(stream)
        return cls(settings, engine, bus, clock, broker_epoch)

    async def agents(self, roles: Sequence[Role], stack: AsyncExitStack) -> list[Agent]:
        """The agents among ``roles``, in the order of the flow."""
        agents: list[Agent] = []
        if Role.JUDGE in roles:
            agents.append(self._judge())
        if Role.ACTUATE in roles:
            agents.append(self._actuate())
        if Role.RECORD in roles:
            agents.append(await self._record(stack))
        return agents

    def background(self, roles: Sequence[Role]) -> list[tuple[str, Coroutine[None, None, None]]]:
        """The roles that are no agents, as named coroutines that never return."""
        chosen = []
        if Role.POLL in roles:
            chosen.append((Role.POLL.value, self._poll()))
        if Role.RELAY in roles:
            chosen.append((Role.RELAY.value, self._relay()))
        return chosen

    async def _poll(self) -> None:
        sources = open_sources(self.settings.source_settings(), self.clock)
        poller = Poller(
            sources,
            partitions=self.stream.partitions,
            partition_of=partition_of,
            publish=self._publish_frame,
            clock=self.clock,
        )
        async with aclosing(self._rollouts()) as rollouts:
            await poller.run(rollouts)

    async def _publish_frame(self, channel: Channel, partition: int, frame: SampleFrame) -> None:
        record = Outgoing(topic=_TOPIC_OF[channel], partition=partition, value=encode(frame))
        await self.bus.send([record])

    async def _rollouts(self) -> AsyncGenerator[RolloutRecord, None]:
        """The public states, from the beginning: a poller that comes late knows every running rollout."""
        async with aclosing(follow(self.stream, [ROLLOUTS.name], from_beginning=True)) as records:
            async for record in records:
                try:
                    yield decode(RolloutRecord, record.value)
                except RecordError as exc:
                    log.warning("%s: %s", record.address, exc)

    async def _relay(self) -> None:
        again = await asyncio.to_thread(self.outbox.follow_log, self.broker_epoch)
        if again:
            log.info("publishing %d commands again: their log is gone", again)
        while True:
            try:
                published = await relay_once(self.outbox, self.bus, self.clock.now())
            except (StoreError, BrokerUnavailable) as exc:
                log.warning("commands wait: %s", exc)
                await asyncio.sleep(TROUBLE_S)
                continue
            if not published:
                await asyncio.sleep(IDLE_S)

    def _judge(self) -> JudgeAgent:
        return JudgeAgent(
            owner=self.owner,
            clock=self.clock,
            epochs=Epochs(self.leases),
            memory=Memory(self.repository, self.journal),
            partitions=self.stream.partitions,
            broker_epoch=self.broker_epoch,
        )

    def _actuate(self) -> ActuateAgent:
        def make_driver(publish: Publish) -> TargetDriver:
            return TargetDriver(
                journal=self.journal,
                epochs=self.leases,
                publish=publish,
                owner=self.owner,
                clock=self.clock,
            )

        return ActuateAgent(
            make_driver=make_driver,
            epoch_of=self.leases.epoch_of,
            partitions=self.stream.partitions,
        )

    async def _record(self, stack: AsyncExitStack) -> RecordAgent:
        writer = await stack.enter_async_context(BatchWriter(self.repository))
        live = LiveState(self.settings.redis) if self.settings.redis else None
        if live is not None:
            stack.push_async_callback(live.aclose)
        learner = stack.enter_context(Learner(self.repository, self.calibrations, self.clock))
        return RecordAgent(
            writer=writer,
            facts=self.repository,
            live=live,
            broker_epoch=self.broker_epoch,
            learner=learner,
        )
